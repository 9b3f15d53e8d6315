//! What happens when a process dies or hangs.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::node::{Change, Node, relevo, serves};

#[test]
fn a_balancer_that_dies_is_replaced_by_the_same_keeper() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let (keeper, balancer) = (node.keeper().unwrap(), node.balancer().unwrap());
    kill(balancer, Signal::SIGKILL).unwrap();
    node.wait_until("another balancer serves", |node| {
        node.status().is_some_and(|status| serves(&status) && status.node.balancer.pid != balancer.as_raw() as u32)
    });
    assert_eq!(node.keeper(), Some(keeper));
    node.wait_until("it holds the address again", Node::holds_address);
}

#[test]
fn a_balancer_that_hangs_is_replaced() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let balancer = node.balancer().unwrap();
    let begin = Instant::now();
    kill(balancer, Signal::SIGSTOP).unwrap();
    node.wait_until("it gives the address up", |node| !node.time_without_address(begin).is_zero());
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    node.wait_until("another balancer serves", |node| {
        node.status().is_some_and(|status| serves(&status) && status.node.balancer.pid != balancer.as_raw() as u32)
    });
}

#[test]
fn the_address_stays_where_nobody_else_could_serve() {
    let Some(mut node) = Node::new() else { return };
    assert!(relevo().arg("key").arg(node.path("pair.key")).status().unwrap().success());
    node.start(&Change { peering: true, ..Change::default() });
    let begin = Instant::now();
    let balancer = node.balancer().unwrap();
    kill(balancer, Signal::SIGKILL).unwrap();
    node.wait_until("another balancer serves", |node| {
        node.status().is_some_and(|status| serves(&status) && status.node.balancer.pid != balancer.as_raw() as u32)
    });
    assert!(node.time_without_address(begin).is_zero());
}

#[test]
fn a_keeper_that_was_frozen_does_not_blame_the_balancer() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let (keeper, balancer) = (node.keeper().unwrap(), node.balancer().unwrap());
    kill(keeper, Signal::SIGSTOP).unwrap();
    node.wait_until("the lease runs out", |node| !node.holds_address());
    kill(keeper, Signal::SIGCONT).unwrap();
    node.wait_until("it holds the address again", Node::holds_address);
    assert_eq!(node.balancer(), Some(balancer), "{}", node.log());
}

#[test]
fn connections_are_refused_when_no_balancer_serves_for_a_second() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    // Each end makes the pause before the next start longer: 0, 250, 500, 1000, 2000 ms.
    for _ in 0..5 {
        node.wait_until("a balancer runs", |node| node.balancer().is_some());
        let balancer = node.balancer().unwrap();
        kill(balancer, Signal::SIGKILL).unwrap();
        node.wait_until("it is gone", |node| node.balancer() != Some(balancer));
    }
    node.wait_until("connections are refused", |node| {
        node.connect().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    node.wait_until("connections are accepted again", |node| node.connect().is_ok());
    node.wait_until("it serves", |node| node.status().is_some_and(|status| serves(&status)));
}

#[test]
fn when_the_keeper_dies_the_guard_removes_the_address_and_starts_another() {
    let Some(mut node) = Node::new() else { return };
    // A lease of 15 s: it does not run out by itself while this test looks.
    node.start(&Change { interval: Some("5s"), ..Change::default() });
    let (keeper, balancer) = (node.keeper().unwrap(), node.balancer().unwrap());
    let begin = Instant::now();
    kill(keeper, Signal::SIGKILL).unwrap();
    node.wait_until("the address is removed and comes again", |node| {
        !node.time_without_address(begin).is_zero() && node.holds_address()
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    node.wait_until("it serves", |node| node.status().is_some_and(|status| serves(&status)));
    assert_ne!(node.keeper(), Some(keeper));
    assert_ne!(node.balancer(), Some(balancer));
}

/// What the node runs was read and checked when it started, the key too.
#[test]
fn a_new_keeper_runs_what_the_last_one_ran_whatever_is_in_the_files_by_now() {
    let Some(mut node) = Node::new() else { return };
    assert!(relevo().arg("key").arg(node.path("pair.key")).status().unwrap().success());
    node.start(&Change { peering: true, ..Change::default() });
    let (keeper, before) = (node.keeper().unwrap(), node.status().unwrap().node);
    fs::write(node.path("node.toml"), "[frontends.web\nbind = ").unwrap();
    fs::remove_file(node.path("pair.key")).unwrap();
    kill(keeper, Signal::SIGKILL).unwrap();
    node.wait_until("another keeper serves", |node| {
        node.keeper().is_some_and(|now| now != keeper) && node.status().is_some_and(|status| serves(&status))
    });
    let after = node.status().unwrap();
    assert_eq!((&after.node.node, &after.node.config_hash), (&before.node, &before.config_hash));
    assert_eq!(after.peers[0].name, "other", "the peer link works, and so the key is there");
    node.wait_until("it holds the address again", Node::holds_address);
}

#[test]
fn when_the_guard_dies_the_keeper_hands_over_and_stops() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change { interval: Some("5s"), ..Change::default() });
    kill(node.guard(), Signal::SIGKILL).unwrap();
    node.wait_for_guard();
    node.wait_until_nothing_runs();
    assert!(!node.holds_address());
    assert!(!node.path("node.sock").exists());
}

/// What the first start would have refused is told by later ones as well.
#[test]
fn a_balancer_that_cannot_be_locked_in_any_more_says_why_in_the_nodes_log() {
    let Some(mut node) = Node::new() else { return };
    let jail = node.path("jail");
    fs::create_dir(&jail).unwrap();
    node.start(&Change { process: &format!("chroot = {jail:?}"), ..Change::default() });
    fs::remove_dir(&jail).unwrap();
    kill(node.balancer().unwrap(), Signal::SIGKILL).unwrap();
    let words = format!("the balancer is lost reason=\"process.chroot: it cannot lock itself into {}", jail.display());
    node.wait_until("the log says why", |node| node.log().contains(&words));
    // As somebody would who did not know better.
    fs::write(&jail, "").unwrap();
    node.wait_until("it is no folder", |node| node.log().contains("Not a directory"));
    fs::remove_file(&jail).unwrap();
    fs::create_dir(&jail).unwrap();
    node.wait_until("it serves again", |node| node.status().is_some_and(|status| serves(&status)));
}
