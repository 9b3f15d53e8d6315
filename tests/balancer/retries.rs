//! What clients never see: a server that refuses, a kept connection that its server closes at the wrong moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::rig::http::{get, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
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
