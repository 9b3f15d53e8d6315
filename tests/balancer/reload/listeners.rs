//! Where it listens.

use std::net::SocketAddr;

use super::{configuration, wait_for_old_configurations};
use crate::rig::http::{Connection, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{connect, server_of};

/// One that is new accepts once the command has succeeded; one that is gone refuses. Whoever is connected to that is answered
/// once more, and told that this was the end.
#[test]
fn listeners_come_and_go() {
    let _place = own_loopback();
    let a = Server::named("a");
    let (web, other) = (free_port(), free_port());
    let one = configuration(web, "", &[("a", a.address)]);
    let both = format!("{one}\n[frontends.other]\nbind = \"{other}\"\ndefault_backend = \"app\"\n");
    let node = Relevo::start(&one);
    assert!(Connection::open(other).is_err());
    assert_eq!(node.reload_with(&both), "the configuration was reloaded: frontend other came");
    let (mut first, mut second) = (connect(web), connect(other));
    for connection in [&mut first, &mut second] {
        assert_eq!(server_of(&connection.get("/").unwrap()), "a");
    }

    node.reload_with(&one);
    wait_until("nobody listens there", || Connection::open(other).is_err(), || node.messages());
    let last = second.get("/").unwrap();
    assert_eq!((server_of(&last), last.header("connection")), ("a", Some("close")));
    assert!(second.receive_rest().unwrap().is_empty());
    let answer = first.get("/").unwrap();
    assert_eq!((server_of(&answer), answer.header("connection")), ("a", None));
    wait_for_old_configurations(&node, 0);
    // And once more: an address that was let go of can be had again.
    node.reload_with(&both);
    assert_eq!(server_of(&get(other, "/")), "a");
}

/// The wildcard in place of an address, and the other way round: what is ours is not in our way.
#[test]
fn an_address_takes_the_place_of_the_wildcard() {
    let _place = own_loopback();
    let (a, web) = (Server::named("a"), free_port());
    let wildcard = SocketAddr::from(([0, 0, 0, 0], web.port()));
    let node = Relevo::start(&configuration(wildcard, "", &[("a", a.address)]));
    for address in [web, wildcard] {
        node.reload_with(&configuration(address, "", &[("a", a.address)]));
        assert_eq!(server_of(&get(web, "/")), "a");
    }
}

/// Two frontends exchange their addresses, then one of them changes its mode: the listeners stay, and whoever is connected is
/// from then on at the frontend that has the address, if that speaks HTTP.
#[test]
fn an_address_goes_to_another_frontend() {
    let _place = own_loopback();
    let (a, b) = (Server::named("a"), Server::named("b"));
    let (one, other) = (free_port(), free_port());
    let text = |web: SocketAddr, second: SocketAddr, mode: &str| {
        let second = format!("[frontends.second]\nmode = \"{mode}\"\nbind = \"{second}\"\ndefault_backend = \"b\"\n");
        let b = format!("[[backends.b.servers]]\nname = \"b\"\naddress = \"{}\"\ncheck = false\n", b.address);
        configuration(web, &second, &[("a", a.address)]) + &b
    };
    let node = Relevo::start(&text(one, other, "http"));
    let mut connections = [one, other].map(connect);
    let mut answers = || {
        let answers = connections.each_mut().map(|connection| connection.get("/").unwrap());
        answers.map(|answer| (server_of(&answer).to_owned(), answer.header("connection").map(str::to_owned)))
    };
    let from = |server: &str| (server.to_owned(), None);
    assert_eq!(answers(), [from("a"), from("b")]);
    assert_eq!(
        node.reload_with(&text(other, one, "http")),
        "the configuration was reloaded: frontends second, web changed"
    );
    assert_eq!(answers(), [from("b"), from("a")]);
    assert_eq!([one, other].map(|address| server_of(&get(address, "/")).to_owned()), ["b", "a"]);

    node.reload_with(&text(other, one, "tcp"));
    assert_eq!(answers(), [("b".to_owned(), Some("close".to_owned())), from("a")], "once more, as it was");
    let raw = get(one, "/");
    assert_eq!((server_of(&raw), raw.text().contains("X-Forwarded")), ("b", false));
    wait_for_old_configurations(&node, 0);
}
