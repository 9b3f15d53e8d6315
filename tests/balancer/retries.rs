//! What clients never see: a server that refuses, a kept connection that its server closes at the wrong moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Socket, Type};

use crate::rig::http::{Connection, Message, exchange, get, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::{Server, named};
use crate::{configuration, connect, server_of};

/// The keep-alive race: a server may close a kept connection just when a request is on its way. Here it always does, in each
/// of the ways there are; of 500 requests none fails, and each is answered once.
#[test]
fn the_keep_alive_race_is_hidden() {
    let _place = own_loopback();
    let answered = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let answered = Arc::clone(&answered);
        move |mut connection| {
            let Ok(_) = connection.receive() else { return };
            let number = answered.fetch_add(1, Ordering::Relaxed);
            if connection.send(response("200 OK", "X-Server: a\r\n", "a")).is_err() {
                return;
            }
            let mut bytes = [0; 1];
            match number % 3 {
                // With the request unread: the client gets a reset.
                0 => drop(connection.stream().peek(&mut bytes)),
                // With the request read: the client gets an orderly end.
                1 => drop(connection.receive()),
                // At any moment: before the request, while it is on its way, or never.
                _ => std::thread::sleep(std::time::Duration::from_micros(number as u64 * 37 % 2000)),
            }
        }
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    let mut connection = connect(web);
    for number in 0..500 {
        let answer = connection.get(&format!("/{number}")).unwrap();
        assert_eq!(answer.status(), 200, "request {number}: {answer:?}\n{}", node.messages());
    }
    assert_eq!(answered.load(Ordering::Relaxed), 500);
    assert!(server.connections() > 300, "connections were not kept: there was no race");
}

/// A server that refuses connections, checks or not, costs no client an error while there is another.
#[test]
fn a_server_that_refuses_is_retried_elsewhere() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[Server::nowhere(), server.address]);
    let node = Relevo::start(&text);
    for _ in 0..50 {
        let answer = get(web, "/");
        assert_eq!(server_of(&answer), "a", "{answer:?}\n{}", node.messages());
    }
}

/// A request with a body that has begun is not sent twice: where its server dies over it, the client is told (502).
#[test]
fn a_body_is_not_replayed() {
    let _place = own_loopback();
    let bodies = Arc::new(AtomicUsize::new(0));
    let dying = || {
        let bodies = Arc::clone(&bodies);
        Server::start(move |mut connection| {
            if connection.receive().is_ok_and(|request| request.body == b"order") {
                bodies.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let servers = [dying(), dying()];
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    connection.send("POST /buy HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\norder").unwrap();
    assert_eq!(connection.receive().unwrap().status(), 502);
    assert_eq!(bodies.load(Ordering::Relaxed), 1, "a server got it twice, or none did");
}

/// Fails in the way that the path names.
fn failing() -> Server {
    Server::start(|mut connection| {
        while let Ok(request) = connection.receive() {
            let answer = match request.head.split(' ').nth(1) {
                Some("/empty") => return,
                Some("/junk") => b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(),
                Some("/cut") => {
                    let _ = connection.send("HTTP/1.1 200 OK\r\nContent-Le");
                    return;
                }
                Some("/silent") => continue,
                Some("/503") => response("503 Busy", "X-Server: failing\r\n", "busy"),
                Some("/404") => response("404 Lost", "X-Server: failing\r\n", "lost"),
                _ => named("failing")(&request),
            };
            if connection.send(answer).is_err() {
                return;
            }
        }
    })
}

/// Answers with its name and the body it got.
fn well() -> Server {
    Server::answering(|request| response("200 OK", "X-Server: well\r\n", &request.body))
}

/// A frontend and a backend, whose first server gets every request as long as it is there.
fn first_of(name: &str, backend: &str, servers: &[SocketAddr]) -> (SocketAddr, String) {
    let web = free_port();
    let servers: String = servers
        .iter()
        .zip('a'..)
        .map(|(address, server)| {
            format!("[[backends.{name}.servers]]\nname = \"{server}\"\naddress = \"{address}\"\ncheck = false\n")
        })
        .collect();
    let text = format!(
        "[frontends.{name}]\nbind = \"{web}\"\ndefault_backend = \"{name}\"\n\
         [backends.{name}]\nbalance = \"first\"\ntimeouts = {{ server = \"300ms\" }}\n{backend}\n{servers}"
    );
    (web, text)
}

/// Each word of `retry_on` is for what it says, and for nothing else; what is not retried is the error that it was.
#[test]
fn a_request_is_sent_again_on_the_failures_that_are_named() {
    let _place = own_loopback();
    let (failing, well) = (failing(), well());
    let servers = [failing.address, well.address];
    let rows: [(&str, &[&str]); 7] = [
        ("retry_on = []", &[]),
        ("", &[]),
        ("retry_on = 'empty_response'", &["/empty"]),
        ("retry_on = 'junk_response'", &["/junk", "/cut"]),
        ("retry_on = 'response_timeout'", &["/silent"]),
        ("retry_on = [404, 503]", &["/404", "/503"]),
        ("retry_on = 'all_retryable_errors'", &["/empty", "/junk", "/cut", "/silent", "/503"]),
    ];
    let frontends: Vec<_> =
        rows.iter().enumerate().map(|(row, (lines, _))| first_of(&format!("f{row}"), lines, &servers)).collect();
    let node = Relevo::start(&frontends.iter().map(|(_, text)| text.as_str()).collect::<String>());
    let errors = [("/empty", 502), ("/junk", 502), ("/cut", 502), ("/silent", 504), ("/503", 503), ("/404", 404)];
    for ((lines, retried), (web, _)) in rows.iter().zip(&frontends) {
        for (path, error) in errors {
            // A connection of its own to the server each time, or it might be that of a request before.
            let answer = get(*web, path);
            let expected = if retried.contains(&path) { 200 } else { error };
            assert_eq!(answer.status(), expected, "{path} with {lines:?}: {answer:?}\n{}", node.messages());
        }
    }
}

/// Without `"connection_failure"` a connection that is refused is an error at once, in mode `"tcp"` as well.
#[test]
fn connections_that_fail_are_tried_again_only_where_that_is_wanted() {
    let _place = own_loopback();
    let well = well();
    let servers = [Server::nowhere(), well.address];
    let http = [first_of("http", "", &servers), first_of("http_off", "retry_on = []", &servers)];
    let tcp = [first_of("tcp", "", &servers), first_of("tcp_off", "retry_on = []", &servers)];
    let none = first_of("none", "retries = 0", &servers);
    let stays = first_of("stays", "redispatch = false\nretries = 1", &servers);
    let tcp_text = tcp.each_ref().map(|(_, text)| text.replacen("\nbind", "\nmode = \"tcp\"\nbind", 1)).concat();
    let text = format!("{}{}{}{}{tcp_text}", http[0].1, http[1].1, none.1, stays.1);
    let _node = Relevo::start(&text);
    assert_eq!(get(http[0].0, "/").status(), 200);
    assert_eq!(get(http[1].0, "/").status(), 503);
    assert_eq!(get(none.0, "/").status(), 503);
    assert_eq!(get(stays.0, "/").status(), 503, "the same server again, which refuses again");
    assert_eq!(get(tcp[0].0, "/").status(), 200);
    assert!(Connection::open(tcp[1].0).unwrap().get("/").is_err());
}

/// A request with this method and body, in one piece or in chunks.
fn ask(web: SocketAddr, method: &str, body: &str, is_chunked: bool) -> Message {
    let (framing, body) = match is_chunked {
        true => ("Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
        false => (format!("Content-Length: {}", body.len()), body.to_owned()),
    };
    exchange(web, format!("{method} /empty HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n{body}"))
}

/// What a server got, or began to get, is sent again only if that does no harm or the user says so; a body only if it is small
/// and held for that. It then arrives as it was.
#[test]
fn a_body_is_sent_again_only_if_it_is_held_and_a_post_only_if_that_is_wanted() {
    let _place = own_loopback();
    let (failing, well) = (failing(), well());
    let servers = [failing.address, well.address];
    let all = "retry_on = 'all_retryable_errors'";
    let held = format!("{all}\nbuffer_request = 100");
    let asked_for = format!("{held}\nretry_non_idempotent = true");
    let frontends =
        [first_of("all", all, &servers), first_of("held", &held, &servers), first_of("any", &asked_for, &servers)];
    let node = Relevo::start(&frontends.each_ref().map(|(_, text)| text.as_str()).concat());
    let [all, held, asked_for] = frontends.map(|(web, _)| web);
    let fits = "x".repeat(100);
    let too_long = "x".repeat(101);
    let cases = [
        (all, "GET", "", 200),
        (all, "PUT", "", 200),
        (all, "PUT", "body", 502),
        (all, "POST", "", 502),
        (all, "POST", "body", 502),
        (held, "PUT", "body", 200),
        (held, "PUT", &fits, 200),
        (held, "PUT", &too_long, 502),
        (held, "POST", "body", 502),
        (held, "POST", "", 502),
        (asked_for, "POST", "", 200),
        (asked_for, "POST", "body", 200),
        (asked_for, "POST", &fits, 200),
        (asked_for, "POST", &too_long, 502),
    ];
    for (web, method, body, status) in cases {
        for is_chunked in [false, true] {
            let before = failing.connections();
            let answer = ask(web, method, body, is_chunked);
            // Of a body in chunks nobody knows beforehand that there is nothing in it.
            let status = if is_chunked && body.is_empty() && web == all { 502 } else { status };
            let what = format!("{method} of {} bytes, chunked: {is_chunked}: {answer:?}", body.len());
            assert_eq!(answer.status(), status, "{what}\n{}", node.messages());
            assert_eq!(failing.connections(), before + 1, "{what}");
            if status == 200 {
                assert_eq!(answer.text(), body, "{what}");
            }
        }
    }
}

/// A body that does not come is 408, whether it is held for a retry or not, and no server is kept waiting for it.
#[test]
fn a_body_that_is_held_has_the_time_of_a_head() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) =
        configuration("timeouts = { http_request = \"200ms\" }", "buffer_request = 100", &[server.address]);
    let _node = Relevo::start(&text);
    let answer = exchange(web, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nbo");
    assert_eq!(answer.status(), 408, "{answer:?}");
    assert_eq!(server.connections(), 0);
}

/// Two servers that cannot answer get no more than the budget beyond what clients ask; who is over it gets the error.
#[test]
fn retries_keep_to_their_budget() {
    let _place = own_loopback();
    let asked = Arc::new(AtomicUsize::new(0));
    let busy = || {
        let asked = Arc::clone(&asked);
        Server::answering(move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            response("503 Busy", "", "busy")
        })
    };
    let servers = [busy(), busy()];
    let backend = "retry_on = [503]\nretries = 1\nretry_budget = { percent = 20, min_per_second = 0 }";
    let (web, text) = configuration("", backend, &servers.each_ref().map(|server| server.address));
    let statistics = free_port();
    let node = Relevo::start(&format!("[stats]\nlisten = \"{statistics}\"\n{text}"));
    let mut client = connect(web);
    for _ in 0..100 {
        assert_eq!(client.get("/").unwrap().text(), "busy", "{}", node.messages());
    }
    let retries = asked.load(Ordering::Relaxed) - 100;
    assert!((19..=20).contains(&retries), "{retries} retries of 100 requests");
    let metrics = get(statistics, "/metrics").text();
    for (name, count) in [("redispatches", retries), ("retries_over_budget", 100 - retries)] {
        let line = format!("relevo_backend_{name}_total{{backend=\"app\"}} {count}.0");
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}

/// A request that was sent to nobody is no load: another server gets it whatever the budget.
#[test]
fn a_connection_that_failed_is_no_matter_of_the_budget() {
    let _place = own_loopback();
    let server = Server::named("a");
    let backend = "retry_on = 'all_retryable_errors'\nretry_budget = { percent = 0, min_per_second = 0 }";
    let (web, text) = configuration("", backend, &[Server::nowhere(), server.address]);
    let node = Relevo::start(&text);
    for _ in 0..20 {
        assert_eq!(get(web, "/").status(), 200, "{}", node.messages());
    }
}

/// Where all servers have failed, those before are tried again: of two that each fail once, one answers the third attempt.
#[test]
fn with_attempts_left_a_server_is_asked_a_second_time() {
    let _place = own_loopback();
    let fails_once = || {
        let asked = AtomicUsize::new(0);
        Server::answering(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => response("503 Busy", "", "busy"),
            _ => response("200 OK", "", "well"),
        })
    };
    let servers = [fails_once(), fails_once()];
    let (web, text) = configuration("", "retry_on = 503", &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text);
    assert_eq!(get(web, "/").text(), "well", "{}", node.messages());
    assert!(node.wait_for_message("/+2 ").contains(" 200 "), "{}", node.messages());
}

/// A server whose queue of connections is full: whoever comes waits.
fn full_server() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = || {
        let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        waiting.set_nonblocking(true).unwrap();
        let _ = waiting.connect(&address);
        waiting
    };
    let waiting = (0..3).map(|_| fill()).collect();
    let address = address.as_socket().unwrap();
    (listener, waiting, address)
}

/// Who could not be connected to was sent nothing: the next server gets the request on a connection that is kept to it, as it
/// would have at the first attempt.
#[test]
fn connections_do_not_pile_up_where_others_cannot_be_reached() {
    let _place = own_loopback();
    let (_listener, _waiting, full) = full_server();
    let refuses = Server::nowhere();
    let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody";
    let get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let rows = [
        ("refused", refuses.to_string(), "", get, 40),
        ("by a client of its own", refuses.to_string(), "reuse = 'never'", get, 40),
        ("with a body", refuses.to_string(), "reuse = 'always'", post, 40),
        ("with a body, not the first", refuses.to_string(), "", post, 40),
        ("without a name", "nowhere.invalid:80".to_owned(), "", get, 40),
        ("too late", full.to_string(), "timeouts = { connect = '20ms' }", get, 10),
    ];
    for (what, unreachable, backend, request, requests) in rows {
        let server = Server::named("a");
        let (web, text) = configuration("", backend, &[refuses, server.address]);
        let text = text.replacen(&refuses.to_string(), &unreachable, 1);
        let node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
        let mut client = connect(web);
        for _ in 0..requests {
            client.send(request).unwrap();
            let answer = client.receive().unwrap();
            assert_eq!(server_of(&answer), "a", "{what}: {answer:?}\n{}", node.messages());
        }
        let least = if what == "with a body, not the first" { 2 } else { 1 };
        assert!(server.connections() <= least, "{what}: {} connections", server.connections());
    }
}
