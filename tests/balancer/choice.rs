//! Which server is next: round robin by weight, least connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::rig::http::{Connection, get};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::{Server, named};
use crate::{configuration, connect, server_of};

/// Requests really alternate, whatever connection (and so whatever worker) they come on.
#[test]
fn requests_alternate_across_connections() {
    let _place = own_loopback();
    let servers = [Server::named("a"), Server::named("b")];
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let _node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
    let mut kept: Vec<Connection> = (0..8).map(|_| connect(web)).collect();
    let answers: Vec<String> = (0..200)
        .map(|number| match number % 3 {
            0 => server_of(&get(web, "/")).to_owned(),
            _ => server_of(&kept[number % 8].get("/").unwrap()).to_owned(),
        })
        .collect();
    let in_a_row = answers.windows(2).filter(|two| two[0] == two[1]).count();
    assert_eq!(in_a_row, 0, "{answers:?}");
}

/// Each server gets its share by weight, exactly, and the heavy one's turns are spread.
#[test]
fn weights_are_shares() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let text =
        text.replace("name = \"a\"", "name = \"a\"\nweight = 3").replace("name = \"c\"", "name = \"c\"\nweight = 0");
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    let answers: String = (0..40).map(|_| server_of(&connection.get("/").unwrap()).to_owned()).collect();
    assert_eq!(answers.matches('a').count(), 30, "{answers}");
    assert_eq!(answers.matches('b').count(), 10, "{answers}");
    assert!(!answers.contains("aaaa"), "{answers}");
}

/// A request goes where the fewest are under way: past a server that still works on one, and evenly where they are equal.
#[test]
fn least_connections_goes_past_a_busy_server() {
    let _place = own_loopback();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let busy = Server::answering(move |request| {
        if request.head.starts_with("GET /long") {
            let _ = released.lock().unwrap().recv();
        }
        named("a")(request)
    });
    let free = Server::named("b");
    let (web, text) = configuration("", "balance = \"least_connections\"", &[busy.address, free.address]);
    let node = Relevo::start(&text);

    let long = long_request_to("a", web, &node);
    let answers: Vec<String> = (0..20).map(|_| server_of(&get(web, "/")).to_owned()).collect();
    assert!(answers.iter().all(|server| server == "b"), "{answers:?}");

    release.send(()).unwrap();
    let mut long = long;
    assert_eq!(server_of(&long.receive().unwrap()), "a");
    node.wait_for("nothing is under way", |status| {
        status.node.backends[0].servers.iter().all(|server| server.connections == 0)
    });
    let mut shares = BTreeMap::<String, usize>::new();
    for _ in 0..40 {
        *shares.entry(server_of(&get(web, "/")).to_owned()).or_default() += 1;
    }
    assert!(shares.len() == 2 && shares.values().all(|share| *share >= 10), "{shares:?}");
}

/// One that is under way at this server; those that go elsewhere are answered at once.
fn long_request_to(server: &str, web: SocketAddr, node: &Relevo) -> Connection {
    loop {
        let mut connection = connect(web);
        connection.send("GET /long HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        connection.stream().set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let mut byte = [0];
        if connection.stream().peek(&mut byte).is_ok() {
            continue;
        }
        connection.stream().set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
        node.wait_for("a request is under way", |status| {
            status.node.backends[0].servers.iter().any(|it| it.name == server && it.connections == 1)
        });
        return connection;
    }
}
