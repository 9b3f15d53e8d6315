//! How little goes over the network for a connection that serves one request, and that nothing waits for it.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use nix::libc::MSG_MORE;
use socket2::SockRef;

use crate::rig::gate::Gate;
use crate::rig::http::{get, response};
use crate::rig::node::Relevo;
use crate::rig::place::{own_loopback, own_network};
use crate::rig::server::Server;
use crate::{configuration, connect};

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

/// Three to begin, the request, the answer with the end, the client's end and its acknowledgement; the client's system may
/// acknowledge the answer before its client ends. A server's connection that is kept adds the request and the answer, and they
/// may be acknowledged on their own.
#[test]
fn what_is_asked_is_acknowledged_by_its_answer_and_the_end_comes_with_that() {
    let Some(_network) = own_network() else { return };
    const ROUNDS: u64 = 50;
    let server = server();
    let (web, text) = configuration("rules = [{ when = { path = '/denied' }, deny = 403 }]", "", &[server.address]);
    let _node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    get(web, "/");
    for (path, most) in [("/denied", 8), ("/", 12)] {
        let before = segments();
        for _ in 0..ROUNDS {
            ask(web, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        }
        let each = (segments() - before) as f64 / ROUNDS as f64;
        assert!((7.0..=most as f64).contains(&each), "{each} segments for {path}");
    }
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

/// Linux keeps what more is to follow for 200 ms.
#[test]
fn no_answer_waits_for_an_end_that_does_not_come() {
    let _place = own_loopback();
    let server = server();
    let (web, text) = configuration("rules = [{ when = { path = '/denied' }, deny = 403 }]", "", &[server.address]);
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
                    let quickest = (0..5).map(|_| time_of_answer(web, &request, method)).find(|time| *time < HOLD);
                    assert!(quickest.is_some(), "it waited: {request:?}");
                }
            }
        }
    }
}

const HOLD: Duration = Duration::from_millis(150);

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

/// A body that nobody reads is discarded after the answer: that is not to wait for it.
#[test]
fn an_answer_that_comes_before_the_body_does_not_wait_for_it() {
    let _place = own_loopback();
    let server = server();
    let (web, text) = configuration("rules = [{ deny = 403 }]", "", &[server.address]);
    let _node = Relevo::start(&text);
    let request = "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n";
    assert!((0..5).any(|_| time_of_answer(web, request, "POST") < HOLD));
}

/// Whoever sends more than its last request has the socket closed on what nobody reads, which resets it: by then the answer has
/// left.
#[test]
fn what_comes_after_the_last_request_takes_nothing_of_its_answer() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    for round in 1..=10 {
        let mut connection = connect(web);
        connection.send("GET /held HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        gate.wait_for(round);
        // More than is read ahead.
        connection.send(vec![b'x'; 200_000]).unwrap();
        gate.let_through(1);
        let mut answer = Vec::new();
        // It ends with a reset.
        let _ = { connection.stream() }.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /held"), "{answer:?}");
    }
}
