//! Requests that are not clear about where they end are how one client's request becomes part of another's (RFC 9112 §11.2).
//! They get a clear status and a line in the log, no server sees any of them, and nothing of them stays.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::rig::http::{Connection, get, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{ask, configuration};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What is wrong, and the request.
const REFUSED: &[(&str, &str)] = &[
    ("no version", "GET /\r\n\r\n"),
    ("a version that is not", "GET / HTTP/1.2.3\r\nHost: a\r\n\r\n"),
    ("another protocol's version", "GET / ICY/1.1\r\nHost: a\r\n\r\n"),
    ("TLS", "\u{16}\u{3}\u{1}\u{0}\u{c}\u{1}\u{0}\u{0}\u{8}\r\n\r\n"),
    ("HTTP/2 that nobody agreed on", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a method with a space", "GE T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a star for what is no OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a host for a target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a host and a port for a target", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    ("a user in the target", "GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a control character in the target", "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a length that is no number", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    ("a length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
    ("a length beyond all numbers", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"),
    ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    ("two lengths in one line", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello"),
    ("a coding that is not known", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ("chunked that is not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("chunked in disguise", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("a coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
    ("a header without a name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    ("a header without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
    ("a line that goes on", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n folded: 2\r\n\r\n"),
    ("a space before the first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("a zero in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: \u{0}\r\n\r\n"),
    ("a carriage return in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\rX-B: 2\r\n\r\n"),
    ("a name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX(A): 1\r\n\r\n"),
];

#[test]
fn what_is_no_clear_request_is_400_and_reaches_no_server() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for (what, request) in REFUSED {
        let answer = refused(web, &format!("{request}{SMUGGLED}"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what} was followed by another answer: {answer:?}");
    }
    let logged = || node.messages().lines().filter(|line| line.contains(" 400 ")).count();
    wait_until("each has its line in the log", || logged() == REFUSED.len(), || node.messages());
    assert_eq!(server.connections(), 0, "one reached the server");
    assert_eq!(get(web, "/").status(), 200);
}

/// What comes until the balancer closes.
fn refused(web: SocketAddr, request: &str) -> String {
    let mut connection = Connection::open(web).unwrap();
    connection.send(request).unwrap();
    String::from_utf8_lossy(&connection.receive_rest().unwrap()).into_owned()
}

/// A body that is chunked and has a length as well, be it wrong, goes on as chunked alone, and nothing is read behind it
/// (RFC 9112 §6.1). A coding that the balancer does not take off is not for a server to guess at, in whatever words.
#[test]
fn a_body_ends_in_one_place_for_all() {
    let _place = own_loopback();
    let server = Server::answering(|request| response("200 OK", "", format!("{}\n{}", request.head, request.text())));
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for headers in [
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 99\r\nTransfer-Encoding: CHUNKED\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
        let answer = refused(web, &request);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\nhello"), "{headers}: {answer:?}");
        assert!(answer.contains("\r\ntransfer-encoding: chunked\n"), "{headers}: {answer:?}");
        let arrived = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(!arrived.contains("content-length") && !answer.contains("smuggled"), "{headers}: {answer:?}");
    }
    let connections = server.connections();
    for codings in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: , chunked",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    ] {
        let answer = refused(web, &format!("POST / HTTP/1.1\r\nHost: a\r\n{codings}\r\n\r\n0\r\n\r\n{SMUGGLED}"));
        assert!(answer.starts_with("HTTP/1.1 501 "), "{codings}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{codings} was followed by another answer: {answer:?}");
    }
    assert_eq!(server.connections(), connections, "one reached the server");
    node.wait_for_message(" 501 ");
}

/// They were agreed on before the head was read; the head is sent on, so the request counts as begun.
#[test]
fn a_body_that_breaks_its_own_rules_ends_its_connections() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        // Answers what is whole, and nothing else.
        while let Ok(request) = connection.receive() {
            let body = request.body;
            let _ = connection.send([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".as_slice(), &body[..2]].concat());
        }
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for chunks in [
        "z\r\nhello\r\n",
        "5\r\nhelloX\r\n",
        "-5\r\nhello\r\n",
        "fffffffffffffffff\r\nhello",
        "5 5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut connection = Connection::open(web).unwrap();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.send(format!("{head}{chunks}{SMUGGLED}")).unwrap();
        let answer = String::from_utf8_lossy(&connection.receive_rest().unwrap()).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{chunks:?}: {answer:?}");
    }
    let mut connection = Connection::open(web).unwrap();
    connection
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(connection.receive().unwrap().text(), "he", "a chunk's extension is no reason\n{}", node.messages());
}

/// Unknown methods are the server's business.
#[test]
fn a_method_that_nobody_knows_is_passed_on() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    let mut connection = Connection::open(web).unwrap();
    for method in ["BREW", "PROPFIND", "M-SEARCH", "get"] {
        connection.send(format!("{method} /pot HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        let answer = connection.receive().unwrap();
        assert!(answer.text().contains(&format!("{method} /pot HTTP/1.1")), "{answer:?}");
    }
}

/// Two hundred of each kind that misbehaves, at once; then everything is as it was.
#[test]
fn nothing_stays_of_clients_that_misbehave() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) =
        configuration("timeouts = { http_request = \"500ms\", client = \"500ms\" }", "", &[server.address]);
    let node = Relevo::start(&text);
    assert_eq!(get(web, "/").status(), 200);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", node.balancer())).unwrap().count();
    let connections = || node.status().map_or(u64::MAX, |status| status.node.balancer.connections);
    wait_until("the first client has gone", || connections() == 0, String::new);
    let before = descriptors();

    let begun = [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal",
    ];
    let clients: Vec<Connection> = (0..200)
        .flat_map(|_| begun)
        .map(|request| {
            let mut connection = Connection::open(web).unwrap();
            connection.send(request).unwrap();
            connection
        })
        .collect();
    // Half of them leave, the others are turned out.
    for (index, mut client) in clients.into_iter().enumerate() {
        if index % 2 == 0
            && let Err(error) = client.receive_rest()
        {
            assert!(error.kind() == ErrorKind::ConnectionReset, "{error}");
        }
    }
    wait_until("all have gone", || connections() == 0, || node.messages());
    assert_eq!(get(web, "/").status(), 200);
    // What a server's connection costs may stay: it is kept.
    wait_until(
        "their descriptors are closed",
        || descriptors() <= before + 1,
        || format!("{} {before}", descriptors()),
    );
}

/// A server that sends these pieces without end to who asks for `/flood`, and is well otherwise.
fn flooding(begin: &'static str, piece: &'static str) -> Server {
    Server::start(move |mut connection| {
        let Ok(request) = connection.receive() else { return };
        if request.head.starts_with("GET /flood") {
            let _ = connection.send(begin);
            let flood = piece.repeat(2_000);
            while connection.send(&flood).is_ok() {}
        }
        let _ = connection.send(response("200 OK", "", "well"));
    })
}

/// So long others usually wait for an answer.
fn usual_wait(web: SocketAddr, node: &Relevo) -> Duration {
    let wait = |_| {
        let begin = Instant::now();
        assert_eq!(get(web, "/").text(), "well", "{}", node.messages());
        begin.elapsed()
    };
    let mut waits: Vec<_> = (0..15).map(wait).collect();
    waits.sort_unstable();
    waits[7]
}

/// Servers that say without end that an answer will come take no time from others, and their own requests end in time.
#[test]
fn a_flood_of_informational_responses_delays_nobody_else() {
    let _place = own_loopback();
    let server = flooding("", "HTTP/1.1 102 Processing\r\n\r\n");
    let (web, text) = configuration("", "timeouts = { server = '800ms' }", &[server.address]);
    let node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    let mut floods: Vec<_> = (0..8).map(|_| ask(web, "/flood", "")).collect();
    let wait = usual_wait(web, &node);
    assert!(wait < Duration::from_millis(60), "{wait:?}");
    for flood in &mut floods {
        assert_eq!(flood.receive().unwrap().status(), 504);
    }
}

/// Nor do servers that send the smallest chunks there are as fast as they can, to clients that take them as fast.
#[test]
fn a_flood_of_small_chunks_delays_nobody_else() {
    let _place = own_loopback();
    let server = flooding("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let mut flood = ask(web, "/flood", "");
            let end = flood.stream().try_clone().unwrap();
            (end, std::thread::spawn(move || while flood.receive_bytes(4096).is_ok() {}))
        })
        .collect();
    let wait = usual_wait(web, &node);
    assert!(wait < Duration::from_millis(300), "{wait:?}");
    for (end, taking) in floods {
        let _ = end.shutdown(std::net::Shutdown::Both);
        taking.join().unwrap();
    }
}
