//! How little goes over the network for a connection that serves one request, and that nothing waits for it.

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::MSG_MORE;
use socket2::SockRef;

use crate::rig::gate::Gate;
use crate::rig::http::{get, response};
use crate::rig::node::Relevo;
use crate::rig::place::{own_loopback, own_network};
use crate::rig::server::Server;
use crate::{configuration, connect};

/// Later than this has been kept back: Linux keeps what more is to follow for 200 ms.
const HOLD: Duration = Duration::from_millis(150);

const RULES: &str = "rules = [{ when = { path = '/denied' }, deny = 403 }]";

/// A server with answers of several sizes, with and without a length.
fn server() -> Server {
    Server::start(|mut connection| {
        while let Ok(request) = connection.receive() {
            let path = request.head.split(' ').nth(1).unwrap_or_default();
            let size = path.trim_start_matches('/').parse().unwrap_or(5);
            let sent = match path {
                "/chunked" => {
                    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
                }
                "/until-close" => {
                    let _ = connection.send("HTTP/1.1 200 OK\r\n\r\nhello");
                    return;
                }
                _ => connection.send(response("200 OK", "", "x".repeat(size))),
            };
            if sent.is_err() {
                return;
            }
        }
    })
}

/// One request on a connection of its own, which its client gives up when the balancer has.
fn ask(web: SocketAddr, request: &str) {
    let mut connection = connect(web);
    connection.send(request).unwrap();
    assert!(connection.receive().unwrap().status() >= 200);
    assert_eq!(connection.receive_rest().unwrap(), b"", "{request}");
}

/// Segments that left a socket of this network.
fn segments() -> u64 {
    let counters = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = counters.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "OutSegs").unwrap().1.parse().unwrap()
}

/// Three to begin, the request, the answer with the end, the client's end and its acknowledgement. A server's connection that is
/// kept adds the request and the answer. Now and then a system acknowledges something on its own.
#[test]
fn what_is_asked_is_acknowledged_by_its_answer_and_the_end_comes_with_that() {
    let Some(_network) = own_network() else { return };
    let server = server();
    let (web, text) = configuration(RULES, "reuse = 'always'", &[server.address]);
    let _node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    get(web, "/");
    for (request, body, expected) in [
        ("GET /denied HTTP/1.1\r\n", "", 7.0),
        ("GET / HTTP/1.1\r\n", "", 9.0),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n", "hello", 9.0),
    ] {
        let each = segments_of_one(web, request, body);
        assert!((each - expected).abs() < 0.6, "{each} segments for {request}");
    }
}

/// Such sockets are told so again when their frontend becomes one for requests.
#[test]
fn a_frontend_that_speaks_http_only_after_a_reload_is_as_good() {
    let Some(_network) = own_network() else { return };
    let server = server();
    let (web, text) = configuration("rules = [{ deny = 403 }]", "", &[server.address]);
    let node = Relevo::start(&text.replace("rules = [{ deny = 403 }]", "mode = 'tcp'"));
    node.reload_with(&text);
    let each = segments_of_one(web, "GET / HTTP/1.1\r\n", "");
    assert!((each - 7.0).abs() < 0.6, "{each} segments");
}

/// For a connection that serves a request that begins so, and has this body.
fn segments_of_one(web: SocketAddr, beginning: &str, body: &str) -> f64 {
    const ROUNDS: u32 = 50;
    let before = segments();
    for _ in 0..ROUNDS {
        ask(web, &format!("{beginning}Host: test\r\nConnection: close\r\n\r\n{body}"));
    }
    (segments() - before) as f64 / f64::from(ROUNDS)
}

/// A server's last words and its end in one segment leave the balancer in one; acknowledgements may come between.
#[test]
fn in_mode_tcp_last_words_and_the_end_stay_together() {
    let Some(_network) = own_network() else { return };
    const ROUNDS: u64 = 20;
    let turn = Arc::new(Barrier::new(2));
    let server = Server::start({
        let turn = turn.clone();
        move |mut connection| {
            let _ = connection.receive_bytes(4);
            turn.wait();
            turn.wait();
            let _ = SockRef::from(connection.stream()).send_with_flags(b"bye", MSG_MORE);
        }
    });
    let (tcp, text) = configuration("mode = 'tcp'", "", &[server.address]);
    let _node = Relevo::start(&text);
    let mut sent = 0;
    for _ in 0..ROUNDS {
        let mut connection = connect(tcp);
        connection.send("ping").unwrap();
        turn.wait();
        let before = segments();
        turn.wait();
        assert_eq!(connection.receive_rest().unwrap(), b"bye");
        sent += segments() - before;
    }
    let each = sent as f64 / ROUNDS as f64;
    assert!((2.0..=3.0).contains(&each), "{each} segments");
}

/// Whatever is asked, and however the connection goes on.
#[test]
fn no_answer_waits_for_an_end_that_does_not_come() {
    let _place = own_loopback();
    let server = server();
    let (web, text) = configuration(RULES, "", &[server.address]);
    let _node = Relevo::start(&text);
    for headers in [
        "",
        "Connection: keep-alive\r\n",
        "Connection: close\r\n",
        "Connection: Close\r\n",
        "Connection: close, keep-alive\r\n",
        "Connection: keep-alive, close\r\n",
        "Connection: close\r\nConnection: keep-alive\r\n",
        "Connection: keep-alive\r\nConnection: close\r\n",
        "Connection: x-close\r\n",
    ] {
        for version in ["1.0", "1.1"] {
            for path in ["/5", "/1000", "/20000", "/1000000", "/chunked", "/until-close", "/denied"] {
                for (method, body) in [("GET", ""), ("HEAD", ""), ("POST", "Content-Length: 5\r\n\r\nhello")] {
                    let end = if body.is_empty() { "\r\n" } else { body };
                    let request = format!("{method} {path} HTTP/{version}\r\nHost: test\r\n{headers}{end}");
                    assert_prompt(web, method, &request);
                }
            }
        }
    }
}

/// Some of five may be late because the machine is busy; an answer that waits for an end is late each time.
#[track_caller]
fn assert_prompt(web: SocketAddr, method: &str, request: &str) {
    assert!((0..5).any(|_| time_of_answer(web, request, method) < HOLD), "it waited: {request:?}");
}

fn time_of_answer(web: SocketAddr, request: &str, method: &str) -> Duration {
    let mut connection = connect(web);
    let begun = Instant::now();
    connection.send(request).unwrap();
    match method {
        "HEAD" => drop(connection.receive_head().unwrap()),
        _ => drop(connection.receive().unwrap()),
    }
    begun.elapsed()
}

/// Whatever the page, and however much of the request it comes before.
#[test]
fn no_page_waits_either() {
    let _place = own_loopback();
    let server = server();
    let (web, text) = configuration(&format!("connection = 'close'\n{RULES}"), "", &[server.address]);
    let _node = Relevo::start(&text);
    for request in [
        "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhel",
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
        "POST /denied HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n",
        "POST /denied HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n",
        "POST /denied HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        assert_prompt(web, "POST", request);
    }
}

/// A client with Nagle's algorithm sends the rest of a request when what came before is acknowledged; unasked, the system would do
/// that after 40 ms. Its first request is no other than those that follow.
#[test]
fn a_request_that_comes_in_parts_is_acknowledged_at_once() {
    let _place = own_loopback();
    let server = server();
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    for parts in [
        ["POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n", "hello"],
        ["POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"],
        ["GET / HTTP/1.1\r\n", "Host: test\r\n\r\n"],
    ] {
        let mut quickest = [Duration::MAX; 3];
        for _ in 0..9 {
            let mut connection = connect(web);
            connection.stream().set_nodelay(false).unwrap();
            for time in &mut quickest {
                let begun = Instant::now();
                parts.iter().for_each(|part| connection.send(part).unwrap());
                connection.receive().unwrap();
                *time = begun.elapsed().min(*time);
            }
        }
        assert!(quickest.iter().all(|time| *time < Duration::from_millis(30)), "{quickest:?} for {parts:?}");
    }
}

/// Whoever sends more than its last request has the socket closed on what nobody reads, which resets it: by then an answer that
/// its client had room for has left.
#[test]
fn what_comes_after_the_last_request_takes_nothing_of_its_answer() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let mut asked = 0;
    for (frontend, headers) in [
        ("", "Connection: close\r\n"),
        // hyper ends these in another way.
        ("", "Connection: close\r\nUpgrade: h2c\r\n"),
        ("connection = 'close'", "Connection: Upgrade\r\nUpgrade: chat\r\n"),
    ] {
        let (web, text) = configuration(frontend, "", &[server.address]);
        let _node = Relevo::start(&text);
        for _ in 0..10 {
            asked += 1;
            let mut connection = connect(web);
            connection.send(format!("GET /held HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).unwrap();
            gate.wait_for(asked);
            // More than is read ahead.
            connection.send(vec![b'x'; 200_000]).unwrap();
            gate.let_through(1);
            let answer = String::from_utf8(connection.receive_rest().unwrap()).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /held"), "{headers:?}: {answer:?}");
        }
    }
}

/// A server answers an upload before it has read all of it, and ends, which resets what still comes.
#[test]
fn in_mode_tcp_an_early_answer_is_not_lost() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        let _ = connection.receive_bytes(300_000);
        let _ = connection.send("bye");
    });
    let (tcp, text) = configuration("mode = 'tcp'", "", &[server.address]);
    let _node = Relevo::start(&text);
    for _ in 0..40 {
        let mut connection = connect(tcp);
        let mut upload = connection.stream().try_clone().unwrap();
        let sender = thread::spawn(move || while upload.write_all(&[b'x'; 64 * 1024]).is_ok() {});
        assert_eq!(connection.receive_rest().unwrap(), b"bye");
        let _ = connection.stream().shutdown(Shutdown::Both);
        sender.join().unwrap();
    }
}

/// Neither a byte at a time, nor what a server says after its client's end.
#[test]
fn in_mode_tcp_nothing_waits() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        while let Ok(byte) = connection.receive_bytes(1) {
            let _ = connection.send(byte);
        }
        for _ in 0..3 {
            let _ = connection.send("bye");
        }
    });
    let (tcp, text) = configuration("mode = 'tcp'", "", &[server.address]);
    let _node = Relevo::start(&text);
    for said in [1, 1000] {
        let time = || {
            let mut connection = connect(tcp);
            let begun = Instant::now();
            for _ in 0..3 {
                connection.send("x").unwrap();
                assert_eq!(connection.receive_bytes(1).unwrap(), b"x");
            }
            connection.send(vec![b'y'; said]).unwrap();
            connection.finish().unwrap();
            assert_eq!(connection.receive_rest().unwrap().len(), said + 9);
            begun.elapsed()
        };
        assert!((0..5).any(|_| time() < HOLD), "{said} bytes");
    }
}
