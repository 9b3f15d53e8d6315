//! What a node says of peers that are not what its configuration says.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::configuration;
use crate::rig::node::{Relevo, relevo};
use crate::rig::place::{free_port, own_loopback, own_network};

/// Without servers; the peer link listens at the first address, and these are the peers.
fn with_peering(listen: SocketAddr, key: &str, name: &str, peer: SocketAddr) -> String {
    let (_, text) = configuration("", "", &[SocketAddr::from(([127, 0, 0, 1], 1))]);
    format!("{text}\n[peering]\nlisten = \"{listen}\"\nkey_file = \"{key}\"\npeers = {{ {name} = \"{peer}\" }}\n")
}

fn status(node: &Relevo) -> String {
    let socket = format!("--socket={}", node.directory().join("control.sock").display());
    String::from_utf8(relevo(&["status", &socket]).stdout).unwrap()
}

#[test]
fn a_node_of_another_name_is_refused_and_both_say_why() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let key = directory.path().join("pair.key").display().to_string();
    assert!(relevo(&["key", &key]).status.success());
    let (here, there) = (free_port(), free_port());
    let lb1 = Relevo::start(&with_peering(here, &key, "lb2", there));
    let lb3 = Relevo::launch_as("lb3", &with_peering(there, &key, "lb1", here));
    let is_refused =
        |reason: &'static str| move |pair: &relevo::status::PairStatus| pair.peers[0].link_error.contains(reason);
    lb1.wait_for("lb1 knows why", is_refused("\"lb3\", not \"lb2\": correct peering.peers here, or node.name there"));
    lb3.wait_for("lb3 knows why", is_refused("it refuses the link: peering.peers of \"lb1\" has \"lb2\""));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        assert!(status(&lb3).contains("lb1  peer, link down: it refuses the link"), "{}", status(&lb3));
        std::thread::sleep(Duration::from_millis(20));
    }
    for node in [&lb1, &lb3] {
        let messages = node.messages();
        assert!(!messages.contains("the peer link is up"), "{messages}");
        assert_eq!(messages.matches("the peer link is down").count(), 1, "{messages}");
        assert_eq!(messages.matches("no peer link: ").count(), 1, "{messages}");
    }
}

/// A port that is refused may only be the wrong one: whether anything could take over is not known from that.
#[test]
fn a_peer_that_was_never_met_may_run_all_the_same() {
    let _place = own_loopback();
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let key = directory.path().join("pair.key").display().to_string();
    assert!(relevo(&["key", &key]).status.success());
    let (here, there) = (free_port(), free_port());
    let lb1 = Relevo::start(&with_peering(here, &key, "lb2", free_port()));
    let lb2 = Relevo::launch_as("lb2", &with_peering(there, &key, "lb1", here));
    lb2.wait_for("lb2 has its link", |pair| pair.peers[0].connected);
    lb1.wait_for("lb1 is refused", |pair| pair.peers[0].link_error.contains(" at 127.0.0.1:"));
    let text = status(&lb1);
    assert!(text.contains("takeover: not known of lb2, whose peer link is down for the reason above"), "{text}");
    assert!(!text.contains("lb2 could not take over") && !text.contains("nobody could"), "{text}");

    // Of one that was met more is known.
    lb1.signal(nix::sys::signal::Signal::SIGKILL);
    lb2.wait_for("lb2 sees it go", |pair| pair.peers[0].gone);
    let text = status(&lb2);
    assert!(text.contains("lb1 could not take over now: "), "{text}");
}

/// What listens at an address that is neither the host's nor a virtual one is said, once, and shown until the address is there.
#[test]
fn an_address_that_is_not_here_is_told() {
    let Some(_place) = own_network() else { return };
    let directory = relevo::lab::directory::Directory::new().unwrap();
    let key = directory.path().join("pair.key").display().to_string();
    assert!(relevo(&["key", &key]).status.success());
    let elsewhere = |last: u8| SocketAddr::from(([192, 0, 2, last], 7000));
    let text = with_peering(elsewhere(1), &key, "lb2", elsewhere(2))
        .replace("bind = \"", &format!("bind = \"{}\", \"", elsewhere(3)))
        .replace("bind = ", "bind = [")
        .replace("\"\ndefault_backend", "\"]\ndefault_backend")
        .replace("check = false", "check = false\nsource = \"192.0.2.4\"");
    let node =
        Relevo::start(&format!("{text}\n[stats]\nlisten = \"{}\"\nusers = {{ admin = \"secret\" }}\n", elsewhere(5)));
    let sentences = [
        "no peer reaches peering.listen at 192.0.2.1:7000",
        "nobody reaches frontend \"web\" at 192.0.2.3:7000",
        "nobody reaches frontend \"stats\" at 192.0.2.5:7000",
        "server app/a cannot be asked from 192.0.2.4",
    ];
    let wrong = |text: &str| text.matches("  wrong: ").count();
    for sentence in sentences {
        let line = node.wait_for_message(sentence);
        assert!(
            line.contains("WARN") && line.ends_with("is neither an address of this host nor a virtual one"),
            "{line}"
        );
    }
    assert_eq!(wrong(&status(&node)), 4, "{}", status(&node));

    let mut command = Command::new("ip");
    let added = command.args(["address", "add", "192.0.2.1/29", "dev", "lo"]).status().unwrap();
    assert!(added.success());
    node.wait_for("it is here", |status| status.node.foreign_addresses.is_empty());
    assert_eq!(wrong(&status(&node)), 0);
    assert_eq!(node.messages().matches("no longer so: ").count(), 4, "{}", node.messages());
}
