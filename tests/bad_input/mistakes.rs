//! What an administrator may do wrong with a pair that runs.

use std::process::{Command, Stdio};
use std::time::Duration;

use relevo::lab::network::INTERFACE;
use relevo::lab::pair::{FLOATING, NODE_ADDRESSES, Pair};
use relevo_ha::State;

use crate::rig::lab::lab;
use crate::rig::node::{BINARY, relevo};
use crate::rig::wait_until;
use crate::served::served;
use crate::warnings;

/// A second instance on the active node, by mistake: refused, even with a control socket of its own; and it does not take the
/// first one's address away.
#[test]
fn a_second_instance_leaves_the_first_alone() {
    let Some(served) = served() else { return };
    let active = &served.lab.pair.nodes[0];
    let own = served.lab.directory.path().join("lb1.toml");
    let other = served.lab.directory.path().join("other.toml");
    let text = std::fs::read_to_string(&own).unwrap().replace("lb1.sock", "other.sock");
    std::fs::write(&other, text).unwrap();
    for (file, words) in [(&own, "another relevo is running"), (&other, "another relevo is running")] {
        let mut command = Command::new(BINARY);
        command.arg("run").arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let second = active.host.namespace.spawn(command).unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(1), "{said}");
        let refusals: Vec<_> = said.lines().filter(|line| line.starts_with("relevo: ")).collect();
        assert!(refusals.len() == 1 && refusals[0].contains(words), "{said}");
    }
    assert!(!served.lab.directory.path().join("other.sock").exists());
    let mut release = Command::new(BINARY);
    release.arg("release").stdout(Stdio::piped()).stderr(Stdio::piped());
    let release = active.host.namespace.spawn(release).unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&release.stderr);
    assert!(release.status.code() == Some(1) && said.contains("refused: a node runs here"), "{said}");
    assert_eq!(active.host.namespace.processes().unwrap().len(), 3, "guard, keeper and balancer of the first");
    served.assert_undisturbed();
}

/// Keys that differ: both nodes say so, once; there is no link, the election goes on without it, and clients are served.
#[test]
fn a_wrong_key_is_named_and_costs_the_link_alone() {
    let Some(mut served) = served() else { return };
    served.lab.pair.nodes[1].end().unwrap();
    let key = served.lab.directory.path().join("pair.key");
    std::fs::remove_file(&key).unwrap();
    assert!(relevo(&["key", &key.display().to_string()]).status.success());
    served.lab.pair.nodes[1].start().unwrap();
    const WORDS: &str = "the key of peer at";
    served.wait_for("both complain of the other's key", || {
        served.lab.pair.nodes.iter().all(|node| node.messages().contains(WORDS))
    });
    served.wait_for("the second is a backup", || {
        served.lab.pair.nodes[1].status().is_ok_and(|status| status.node.vrrp[0].state == State::Backup)
    });
    // Several attempts more.
    std::thread::sleep(Duration::from_secs(2));
    for (number, node) in served.lab.pair.nodes.iter().enumerate() {
        let messages = node.messages();
        let complaints = warnings(&messages, WORDS);
        let peer = NODE_ADDRESSES[1 - number].to_string();
        assert!(complaints.len() == 1 && complaints[0].contains(&peer), "{}:\n{messages}", node.name);
        assert!(complaints[0].contains("copy the same key file to both nodes"), "{complaints:?}");
        let peer = &node.status().unwrap().peers[0];
        assert!(!peer.connected && peer.link_error.contains("key"), "{}: {peer:#?}", node.name);
        let shown = relevo(&["status", "--socket", &node.control_socket().display().to_string()]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        let name = &peer.name;
        for words in [
            format!("{name}  peer, link down: "),
            "its key differs (copy the same key file to both nodes)".to_owned(),
            format!("takeover: not known of {name}, whose peer link is down"),
        ] {
            assert!(shown.contains(&words), "{words:?} is not in:\n{shown}");
        }
        assert!(!shown.contains("could not take over"), "{shown}");
    }
    served.assert_undisturbed();
}

/// A node's own address as the virtual one: it says so and takes no part, and its host is not taken off the network, until
/// somebody gives it another.
#[test]
fn the_address_of_a_host_is_not_removed_for_a_virtual_one() {
    let Some(mut served) = served() else { return };
    served.lab.pair.nodes[1].end().unwrap();
    let file = served.lab.directory.path().join("lb2.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let own = NODE_ADDRESSES[1].to_string();
    let (without_peering, _) = text.split_once("[peering]").unwrap();
    std::fs::write(&file, without_peering.replace(&format!("\"{FLOATING}/"), &format!("\"{own}/"))).unwrap();
    served.lab.pair.nodes[1].start().unwrap();
    let node = &served.lab.pair.nodes[1];
    let reason = format!("interface eth0 has no IPv4 address of its own: {own} is configured as a virtual one");
    served.wait_for("it is in fault", || {
        let status = node.status().map(|status| status.node.vrrp);
        status.is_ok_and(|routers| routers[0].state == State::Fault && routers[0].reason.starts_with(&reason))
    });
    let ip = |arguments: &[&str]| {
        let mut ip = Command::new("ip");
        ip.arg("-4").args(arguments).stdout(Stdio::piped());
        let output = node.host.namespace.spawn(ip).unwrap().wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let is_there = || ip(&["address", "show"]).contains(&format!(" {own}/"));
    assert!(is_there(), "{}", ip(&["address", "show"]));
    ip(&["address", "add", "10.78.0.12/24", "dev", INTERFACE]);
    served.wait_for("it takes part", || {
        node.status().is_ok_and(|status| matches!(status.node.vrrp[0].state, State::Backup | State::Active))
    });
    let removed = "removed a virtual address that was there already";
    assert_eq!(warnings(&node.messages(), removed).len(), 1, "{}", node.messages());
    served.lab.pair.nodes[1].end().unwrap();
    served.assert_undisturbed();
}

/// Equal priorities: both nodes say so, once, however often their link is made anew, and what to do; and so does `status`.
#[test]
fn equal_priorities_are_told_once_on_both_nodes() {
    let Some(mut lab) = lab(|options| options.priorities = [200, 200]) else { return };
    const WORDS: &str = "virtual router main has priority 200 here and on";
    let said = |pair: &Pair, node: usize| warnings(&pair.nodes[node].messages(), WORDS).len();
    let messages = |pair: &Pair| pair.nodes.iter().map(|node| node.messages()).collect::<String>();
    wait_until("both say so", || [0, 1].iter().all(|node| said(&lab.pair, *node) == 1), || messages(&lab.pair));

    lab.pair.nodes[1].end().unwrap();
    lab.pair.nodes[1].start().unwrap();
    wait_until("the new one says so", || said(&lab.pair, 1) == 2, || messages(&lab.pair));
    wait_until(
        "the first one sees it",
        || {
            lab.pair.nodes[0]
                .status()
                .is_ok_and(|status| status.peers[0].connected && status.peers[0].status.can_take_over)
        },
        || messages(&lab.pair),
    );
    assert_eq!(said(&lab.pair, 0), 1, "{}", messages(&lab.pair));
    let shown = relevo(&["status", "--socket", &lab.pair.nodes[0].control_socket().display().to_string()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("priority: equal, 200 on lb1 and lb2 for main: give the node that should be"), "{shown}");
}
