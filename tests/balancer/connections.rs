//! What becomes of connections after a response, the client's and the server's.

use std::net::SocketAddr;
use std::time::Duration;

use crate::rig::gate::Gate;
use crate::rig::http::{Message, get};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connect};

/// A node with these lines in its frontend and its backend, and its only server.
fn node(frontend: &str, backend: &str) -> (Server, SocketAddr, Relevo) {
    let server = Server::named("a");
    let (web, text) = configuration(frontend, backend, &[server.address]);
    // One worker: each has connections of its own.
    (server, web, Relevo::start(&format!("[process]\nthreads = 1\n{text}")))
}

/// What the server was told of the connection; it answers with the head it got.
fn told_server(answer: &Message) -> Option<String> {
    let line = answer.text().lines().find(|line| line.to_ascii_lowercase().starts_with("connection:"))?.to_owned();
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Both are kept by default.
#[test]
fn keep_alive_keeps_both_connections() {
    let _place = own_loopback();
    for (frontend, backend) in [("", ""), ("connection = 'keep_alive'", "connection = 'keep_alive'")] {
        let (server, web, _node) = node(frontend, backend);
        let mut client = connect(web);
        for _ in 0..3 {
            let answer = client.get("/").unwrap();
            assert_eq!((answer.header("connection"), told_server(&answer)), (None, None), "{answer:?}");
        }
        assert_eq!(server.connections(), 1);
    }
}

/// The server gets a connection for each request, and is told that no other follows; the client's is kept.
#[test]
fn server_close_keeps_the_clients_connection_alone() {
    let _place = own_loopback();
    for (frontend, backend) in [("connection = 'server_close'", ""), ("", "connection = 'server_close'")] {
        let (server, web, _node) = node(frontend, backend);
        let mut client = connect(web);
        for _ in 0..3 {
            let answer = client.get("/").unwrap();
            assert_eq!((answer.header("connection"), told_server(&answer).as_deref()), (None, Some("close")));
        }
        assert_eq!(server.connections(), 3);
    }
}

/// Neither is kept, whichever side says so; the balancer's own answers close as well.
#[test]
fn close_keeps_neither() {
    let _place = own_loopback();
    for (frontend, backend) in [
        ("connection = 'close'", ""),
        ("", "connection = 'close'"),
        ("connection = 'close'", "connection = 'keep_alive'"),
    ] {
        let (server, web, _node) = node(frontend, backend);
        for round in 1..=3 {
            let mut client = connect(web);
            let answer = client.get("/").unwrap();
            assert_eq!((answer.header("connection"), told_server(&answer).as_deref()), (Some("close"), Some("close")));
            assert_eq!(client.receive_rest().unwrap(), b"", "it is closed");
            assert_eq!(server.connections(), round);
        }
    }
    // Nor does an answer to a client of HTTP/1.0 say both.
    let (_server, web, _node) = node("connection = 'close'", "");
    let mut client = connect(web);
    client.send("GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n").unwrap();
    assert_eq!(client.receive().unwrap().header("connection"), Some("close"));
    let (_server, web, _node) = node("connection = 'close'\nrules = [{ deny = 403 }]", "");
    let mut client = connect(web);
    assert_eq!(client.get("/").unwrap().status(), 403);
    assert_eq!(client.receive_rest().unwrap(), b"");
}

/// A WebSocket is a connection that stays, whatever becomes of others.
#[test]
fn an_upgrade_is_no_connection_to_close() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        let Ok(request) = connection.receive() else { return };
        assert_eq!(request.header("connection"), Some("upgrade"));
        let _ = connection.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n");
        if let Ok(bytes) = connection.receive_bytes(5) {
            let _ = connection.send(bytes);
        }
    });
    let (web, text) = configuration("connection = 'close'", "", &[server.address]);
    let _node = Relevo::start(&text);
    let mut client = connect(web);
    client.send("GET / HTTP/1.1\r\nHost: test\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n").unwrap();
    assert!(client.receive_head().unwrap().starts_with("HTTP/1.1 101 "));
    client.send("hello").unwrap();
    assert_eq!(client.receive_bytes(5).unwrap(), b"hello");
}

/// A client that is quiet for so long is put to rest, which nobody sees; no connection is closed for it.
const A_WHILE: Duration = Duration::from_millis(500);
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody";

/// `never`: a connection to a server belongs to one client's.
#[test]
fn connections_that_are_never_shared_are_each_clients_own() {
    let _place = own_loopback();
    let (server, web, _node) = node("", "reuse = 'never'");
    let (mut one, mut other) = (connect(web), connect(web));
    for _ in 0..3 {
        assert_eq!(one.get("/").unwrap().status(), 200);
        assert_eq!(other.get("/").unwrap().status(), 200);
    }
    // Long enough for its connection to be one that rests.
    std::thread::sleep(A_WHILE);
    assert_eq!(one.get("/").unwrap().status(), 200);
    assert_eq!(server.connections(), 2);
    drop(one);
    assert_eq!(get(web, "/").status(), 200);
    assert_eq!(server.connections(), 3);
}

/// `safe`, the default: a client's first request goes over a connection of another only if it could be sent again.
#[test]
fn what_could_not_be_sent_again_gets_a_connection_of_its_own_if_it_is_a_clients_first() {
    let _place = own_loopback();
    for (reuse, of_the_first_post) in [("", 2), ("reuse = 'safe'", 2), ("reuse = 'always'", 1)] {
        let (server, web, _node) = node("", reuse);
        assert_eq!(get(web, "/").status(), 200);
        assert_eq!(get(web, "/").status(), 200);
        assert_eq!(server.connections(), 1, "{reuse}: a GET may be sent again");
        let mut client = connect(web);
        for _ in 0..3 {
            client.send(POST).unwrap();
            assert_eq!(client.receive().unwrap().status(), 200);
            assert_eq!(server.connections(), of_the_first_post, "{reuse}");
        }
        std::thread::sleep(A_WHILE);
        client.send(POST).unwrap();
        assert_eq!(client.receive().unwrap().status(), 200);
        assert_eq!(server.connections(), of_the_first_post, "{reuse}: it is not its first");
    }
}

/// As HAProxy with `option abortonclose`: whoever ends its side is taken to have left, whether or not it would still listen.
#[test]
fn a_client_that_leaves_or_ends_its_side_has_its_request_given_up() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for (round, ends_its_side_alone) in [(1, true), (2, false)] {
        let mut client = connect(web);
        client.send(format!("GET /held-{round} HTTP/1.1\r\nHost: test\r\n\r\n")).unwrap();
        gate.wait_for(round);
        if ends_its_side_alone {
            client.finish().unwrap();
            assert_eq!(client.receive_rest().unwrap(), b"");
        }
        drop(client);
        let line = node.wait_for_message(&format!("GET /held-{round} "));
        assert!(line.contains(" -1 0 - - CH-- "), "{line}");
        gate.let_through(1);
    }
}

/// What a server demands another protocol by goes on (RFC 9110 §15.5.22); what it merely offers is meant for us.
#[test]
fn a_demand_for_another_protocol_says_which() {
    let _place = own_loopback();
    let server = Server::answering(|request| {
        let status = request.head.split(['/', ' ']).nth(2).unwrap_or_default();
        let headers = "Upgrade: websocket\r\nUpgrade: foo/2\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
        crate::rig::http::response(&format!("{status} Told"), headers, "")
    });
    for (frontend, options) in [("", "upgrade"), ("connection = 'close'", "close, upgrade")] {
        let (web, text) = configuration(frontend, "", &[server.address]);
        let _node = Relevo::start(&text);
        for (status, is_named) in [(426, true), (200, false), (400, false)] {
            let answer = get(web, &format!("/{status}"));
            let protocols: Vec<_> = answer.headers("upgrade").collect();
            let expected: &[&str] = if is_named { &["websocket", "foo/2"] } else { &[] };
            assert_eq!((answer.status(), protocols.as_slice()), (status, expected), "{answer:?}");
            assert_eq!(answer.header("connection") == Some(options), is_named, "{answer:?}");
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{answer:?}");
        }
    }
}

/// After how long a silence a connection from one port to the other asks if its other end is still there; `None`: never.
fn asks_after(from: u16, to: u16) -> Option<Duration> {
    let connections = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let ports = (format!(":{from:04X}"), format!(":{to:04X}"));
    let fields = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = fields.filter(|fields| fields[1].ends_with(&ports.0) && fields[2].ends_with(&ports.1));
    let (timer, ticks) = found.next().expect("there is such a connection")[5].split_once(':').unwrap();
    let ticks = u64::from_str_radix(ticks, 16).unwrap();
    // proc(5): 2 is the timer for that, which runs in hundredths of seconds.
    (timer == "02").then(|| Duration::from_secs(ticks.div_ceil(100)))
}

/// Each side asks where the file says so, in both modes, from the next connection on after a reload.
#[test]
fn quiet_connections_are_asked_if_they_are_still_there() {
    let _place = own_loopback();
    let hour = Duration::from_secs(3600);
    for mode in ["http", "tcp"] {
        let server = Server::named("a");
        let (web, text) = configuration(&format!("mode = '{mode}'\n# frontend"), "# backend", &[server.address]);
        let with = |frontend: &str, backend: &str| text.replace("# frontend", frontend).replace("# backend", backend);
        let node = Relevo::start(&with("", ""));
        let rows = [
            ("", "", [None, None]),
            ("tcp_keep_alive = { idle = '1h', interval = '9s', count = 3 }", "", [Some(hour), None]),
            ("", "tcp_keep_alive = { idle = '1h' }", [None, Some(hour)]),
            // As the system does it.
            ("tcp_keep_alive = {}", "tcp_keep_alive = { count = 5 }", [Some(2 * hour), Some(2 * hour)]),
            ("", "", [None, None]),
        ];
        for (frontend, backend, expected) in rows {
            node.reload_with(&with(frontend, backend));
            // It is a client's first request, and could not be sent again: it gets a connection of its own.
            let mut client = connect(web);
            client.send(POST).unwrap();
            assert_eq!(client.receive().unwrap().status(), 200);
            let of_client = client.stream().local_addr().unwrap().port();
            let of_server = server.newest_client().unwrap().port();
            let found = [asks_after(web.port(), of_client), asks_after(of_server, server.address.port())];
            assert_eq!(found, expected, "{mode}: {frontend} {backend}");
        }
    }
}
