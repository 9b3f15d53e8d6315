//! What whoever looks after the node sees of it: the service manager, `relevo release`, the control socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};

use crate::node::{Change, FLOATING, Node, PATIENCE, relevo, serves};

#[test]
fn sigterm_hands_over_and_leaves_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let Some(mut node) = Node::new() else { return };
        node.start(&Change { interval: Some("5s"), ..Change::default() });
        kill(node.guard(), signal).unwrap();
        assert_eq!(node.wait_for_guard(), Some(0), "{}", node.log());
        assert!(!node.holds_address());
        assert!(!node.path("node.sock").exists());
        assert!(node.host.namespace.processes().unwrap().is_empty());
    }
}

#[test]
fn the_service_manager_is_told() {
    let Some(mut node) = Node::new() else { return };
    let manager = UnixDatagram::bind(node.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    };
    let mut command = relevo();
    command.arg("run").arg("-c").arg(node.configure(&Change::default())).env("NOTIFY_SOCKET", node.path("notify"));
    command.stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    assert_eq!(told(), "READY=1");
    assert!(node.status().is_some_and(|status| serves(&status)), "ready means that it serves");
    kill(node.guard(), Signal::SIGTERM).unwrap();
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(node.wait_for_guard(), Some(0));
}

#[test]
fn release_removes_what_was_left_behind_and_refuses_while_a_keeper_runs() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change { interval: Some("5s"), ..Change::default() });
    let release = |node: &Node| node.run(relevo().arg("release").stdout(Stdio::piped()));
    let refused = release(&node);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a node runs here"), "{refused:?}");
    assert!(node.holds_address());

    for process in node.host.namespace.processes().unwrap() {
        kill(process.pid, Signal::SIGKILL).unwrap();
    }
    node.wait_for_guard();
    node.wait_until_nothing_runs();
    assert!(node.holds_address(), "all were killed at once, so that nobody removed it");

    let mut done = None;
    // The last of a process's threads is gone a moment after the first.
    node.wait_until("it is not refused any more", |node| done.insert(release(node)).status.success());
    let done = done.unwrap();
    assert!(String::from_utf8_lossy(&done.stdout).contains(&format!("removed {FLOATING}/24")), "{done:?}");
    node.wait_until("the address is gone", |node| !node.holds_address());
    let again = release(&node);
    assert_eq!(again.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&again.stdout).contains("no address was left behind"), "{again:?}");
}

#[test]
fn the_control_socket_answers_and_is_not_for_everybody() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let mode = fs::metadata(node.path("node.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = node.status().unwrap();
    assert_eq!(status.node.node, "node");
    assert_eq!(status.node.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(status.node.balancer.pid, node.balancer().unwrap().as_raw() as u32);
    assert_eq!((status.node.can_take_over, status.node.cannot_take_over_because.as_str()), (true, ""));
    assert!(node.ask("stop\n").unwrap().starts_with("error: unknown command"));
}
