//! Nobody waits for ever: neither for a client nor for a server.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::rig::http::{Connection, get, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connect};

const TIMEOUT: Duration = Duration::from_millis(300);

/// Not much sooner than the timeout, and not ages after it.
#[track_caller]
fn assert_took_the_timeout(since: Instant) {
    let took = since.elapsed();
    assert!(took >= TIMEOUT - Duration::from_millis(100), "after {took:?} already");
    assert!(took <= TIMEOUT + Duration::from_secs(5), "only after {took:?}");
}

/// Either 408 and the end, or the end alone.
#[track_caller]
fn assert_turned_out(connection: &mut Connection) {
    let rest = connection.receive_rest().unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408 "), "{rest}");
}

fn quick(timeout: &str) -> (SocketAddr, String, Server) {
    let server = Server::named("a");
    let (web, text) = configuration(&format!("timeouts.{timeout} = \"300ms\""), "", &[server.address]);
    (web, text, server)
}

/// The head of a request must be complete in time, however slowly its bytes drip: 408, and the connection is closed.
#[test]
fn a_head_that_drips_is_cut_off() {
    let _place = own_loopback();
    let (web, text, server) = quick("http_request");
    let node = Relevo::start(&text);
    let begin = Instant::now();
    let mut connection = connect(web);
    connection.send("GET / HTTP/1.1\r\nHost: test\r\nX-Slow: ").unwrap();
    connection.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut byte = [0];
    while matches!(connection.stream().peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        assert!(begin.elapsed() < crate::rig::PATIENCE, "{}", node.messages());
        if connection.send("x").is_err() {
            break;
        }
    }
    assert_took_the_timeout(begin);
    connection.stream().set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
    assert_turned_out(&mut connection);
    assert_eq!(server.connections(), 0);
    assert_eq!(get(web, "/").status(), 200);
}

/// A kept connection on which no further request begins is closed, without a word.
#[test]
fn an_idle_kept_connection_is_closed() {
    let _place = own_loopback();
    let (web, text, _server) = quick("http_keep_alive");
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    assert_eq!(connection.get("/").unwrap().status(), 200);
    let begin = Instant::now();
    assert_eq!(connection.receive_rest().unwrap(), b"");
    assert_took_the_timeout(begin);
}

/// A client that stops in the middle of its body is not waited for.
#[test]
fn a_body_that_stalls_is_cut_off() {
    let _place = own_loopback();
    let (web, text, _server) = quick("client");
    let _node = Relevo::start(&text);
    let begin = Instant::now();
    let mut connection = connect(web);
    connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    assert_turned_out(&mut connection);
    assert_took_the_timeout(begin);
    assert_eq!(get(web, "/").status(), 200);
}

/// A server that takes a request and does not answer in time: 504. One that is slow but in time is waited for.
#[test]
fn a_server_that_does_not_answer_is_504() {
    let _place = own_loopback();
    let server = Server::answering(|request| {
        let pause = if request.head.starts_with("GET /late") { 20 * TIMEOUT } else { TIMEOUT / 3 };
        std::thread::sleep(pause);
        response("200 OK", "", "there")
    });
    let (web, text) = configuration("", "timeouts.server = \"300ms\"", &[server.address]);
    let _node = Relevo::start(&text);
    let begin = Instant::now();
    let answer = get(web, "/late");
    assert_took_the_timeout(begin);
    assert_eq!(answer.status(), 504, "{answer:?}");
    assert!(answer.text().contains("<h1>504 "), "{answer:?}");
    assert_eq!(get(web, "/soon").status(), 200);
}

/// A server that stalls in the middle of its answer: what came is passed on, and the cut is seen as one.
#[test]
fn an_answer_that_stalls_is_cut_visibly() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        if connection.receive().is_ok() {
            let _ = connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            let _ = connection.receive_rest();
        }
    });
    let (web, text) = configuration("", "timeouts.server = \"300ms\"", &[server.address]);
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(connection.receive_head().unwrap().starts_with("HTTP/1.1 200 "));
    let begin = Instant::now();
    assert_eq!(connection.receive_rest().unwrap(), b"half");
    assert_took_the_timeout(begin);
}

/// Large answers to slow clients: it is the client who is waited for, as long as it may take, and not the server.
mod downloads {
    use super::*;

    const PIECE: usize = 30_000;
    const PIECES: usize = 600;

    /// Sends its answer in pieces, as fast as they are taken.
    fn downloads(timeouts: &str) -> (Server, SocketAddr, Relevo) {
        let server = Server::start(|mut connection| {
            let Ok(_) = connection.receive() else { return };
            let _ = connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES));
            for piece in 0..PIECES {
                if connection.send(vec![piece as u8; PIECE]).is_err() {
                    return;
                }
            }
            let _ = connection.receive_rest();
        });
        let (web, text) = configuration(timeouts, "timeouts.server = \"300ms\"", &[server.address]);
        (server, web, Relevo::start(&text))
    }

    #[test]
    fn a_client_that_pauses_gets_all_of_it() {
        let _place = own_loopback();
        let (_server, web, node) = downloads("timeouts.client = \"20s\"");
        let mut connection = connect(web);
        socket2::SockRef::from(connection.stream()).set_recv_buffer_size(16 * 1024).unwrap();
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        std::thread::sleep(TIMEOUT * 4);
        let answer = connection.receive().unwrap();
        let expected = (0..PIECES).flat_map(|piece| [piece as u8; PIECE]);
        assert!(answer.body.len() == PIECE * PIECES && answer.body.iter().copied().eq(expected));
        node.wait_for_message(" ---- ");
    }

    #[test]
    fn a_client_that_never_reads_is_closed() {
        let _place = own_loopback();
        let (_server, web, node) = downloads("timeouts.client = \"1s\"");
        let mut connection = connect(web);
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        node.wait_for_message(" cD-- ");
    }
}
