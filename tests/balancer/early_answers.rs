//! Answers that come before the body of their request: the client gets them, and may send that body all the same.

use std::time::{Duration, Instant};

use crate::rig::PATIENCE;
use crate::rig::http::{Connection, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connect};

const RULES: &str = r#"rules = [
    { when = { path_prefix = "/denied" }, deny = 403 }, { when = { path_prefix = "/so-not" }, deny = 405 },
]"#;
const LENGTH: usize = 3_000_000;

/// It answers a POST without a look at its body.
fn hasty() -> Server {
    Server::start(|mut connection| {
        while let Ok(head) = connection.receive_head() {
            let _ = connection.send(response("200 OK", "", "done"));
            if head.starts_with("POST") {
                return;
            }
        }
    })
}

fn post(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {LENGTH}\r\n{headers}\r\n")
}

fn node(timeouts: &str) -> (Server, Relevo, Connection) {
    let server = hasty();
    let (web, text) = configuration(&format!("{RULES}\n{timeouts}"), "", &[server.address]);
    let node = Relevo::start(&text);
    let connection = connect(web);
    (server, node, connection)
}

/// The answer is there before the body, the body goes nowhere, and the connection is as good as before: for the answer of a
/// server, and for one of a rule.
#[test]
fn a_body_that_comes_after_the_answer_harms_nobody() {
    let _place = own_loopback();
    let (_server, _node, mut connection) = node("");
    for (path, status) in [("/", 200), ("/denied", 403), ("/so-not", 405), ("/", 200)] {
        connection.send(post(path, "")).unwrap();
        let answer = connection.receive().unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (status, None), "{answer:?}");
        connection.send(vec![b'x'; LENGTH]).unwrap();
        assert_eq!(connection.get("/").unwrap().text(), "done", "after {path}");
    }
}

/// Whoever sends all it has before it reads gets the answer too, although nobody wanted the body.
#[test]
fn a_client_that_sends_before_it_reads_gets_its_answer() {
    let _place = own_loopback();
    let (_server, _node, mut connection) = node("");
    for (path, status) in [("/", 200), ("/denied", 403), ("/so-not", 405)] {
        let mut request = post(path, "").into_bytes();
        request.resize(request.len() + LENGTH, b'x');
        connection.send(request).unwrap();
        assert_eq!(connection.receive().unwrap().status(), status);
    }
}

/// A client that asks before it sends, and is refused, cannot be told from one that sends all the same: the connection ends.
#[test]
fn who_asks_and_is_refused_is_told_that_the_connection_ends() {
    let _place = own_loopback();
    let (_server, _node, mut connection) = node("");
    connection.send(post("/denied", "Expect: 100-continue\r\n")).unwrap();
    let answer = connection.receive().unwrap();
    assert_eq!((answer.status(), answer.header("connection")), (403, Some("close")), "{answer:?}");
    assert_eq!(connection.receive_rest().unwrap(), b"");
}

/// With its last byte the request is over: from there on the connection waits for another one, and no longer than for any.
#[test]
fn a_body_that_has_come_whole_is_over() {
    let _place = own_loopback();
    let (_server, _node, mut connection) = node("timeouts.http_keep_alive = \"300ms\"\ntimeouts.client = \"1m\"");
    connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n").unwrap();
    assert_eq!(connection.receive().unwrap().text(), "done");
    connection.send("body").unwrap();
    assert_eq!(connection.receive_rest().unwrap(), b"");
}

/// One that goes on and on is read for as long as a client may be silent, and no longer.
#[test]
fn a_body_without_end_is_not_read_for_ever() {
    let _place = own_loopback();
    let (_server, _node, mut connection) = node("timeouts.client = \"300ms\"");
    connection.send("POST /denied HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert_eq!(connection.receive().unwrap().status(), 403);
    let begin = Instant::now();
    while connection.send("1\r\nx\r\n").is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it is still read");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One that never sends what it announced holds its connection no longer than any client may be silent.
#[test]
fn a_body_that_never_comes_is_not_awaited_for_ever() {
    let _place = own_loopback();
    let (_server, _node, mut connection) = node("timeouts.client = \"300ms\"");
    connection.send(post("/", "")).unwrap();
    assert_eq!(connection.receive().unwrap().text(), "done");
    assert_eq!(connection.receive_rest().unwrap(), b"");
}
