//! What happens when the whole node is paused and goes on: a virtual machine that is copied, a container that is frozen.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::node::send;

use crate::node::{Change, Node, relevo, serves};
use crate::service::Manager;

const PAUSE: Duration = Duration::from_millis(1600);

/// All of its processes.
fn pause(node: &Node) {
    // The guard last: see `release_removes_what_was_left_behind…`.
    let mut processes = node.host.namespace.processes().unwrap();
    processes.sort_by_key(|process| process.pid == node.guard());
    processes.iter().for_each(|process| send(process.pid, Signal::SIGSTOP).unwrap());
    std::thread::sleep(PAUSE);
}

fn go_on(node: &Node) {
    // The balancer first: what it says then is there when the keeper looks.
    let mut processes = node.host.namespace.processes().unwrap();
    processes.sort_by_key(|process| Some(process.pid) != node.balancer());
    processes.iter().for_each(|process| send(process.pid, Signal::SIGCONT).unwrap());
}

/// Of the balancer's threads the one that tells of the workers' silence runs first, and on one processor with them.
fn control_thread_first(node: &Node) {
    let pid = node.balancer().unwrap().to_string();
    for command in [["taskset", "--all-tasks", "--cpu-list", "--pid", "0"], ["chrt", "--fifo", "--pid", "1", ""]] {
        let words = command[1..].iter().filter(|word| !word.is_empty());
        let done = Command::new(command[0]).args(words).arg(&pid).stdout(Stdio::null()).status().unwrap();
        assert!(done.success(), "{command:?}");
    }
}

#[test]
fn a_balancer_that_was_paused_with_its_keeper_is_not_silent() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    control_thread_first(&node);
    let balancer = node.balancer();
    pause(&node);
    go_on(&node);
    node.wait_until("it holds the address again", |node| {
        node.holds_address() && node.status().is_some_and(|status| serves(&status) && status.node.uptime_s > 2.0)
    });
    assert_eq!(node.balancer(), balancer, "{}", node.log());
    assert!(!node.log().contains("the balancer is lost"), "{}", node.log());
}

/// The same for one that can only be told by the messages that it left unread.
#[test]
fn a_balancer_that_hangs_on_waking_is_still_replaced() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let balancer = node.balancer().unwrap();
    pause(&node);
    for process in node.host.namespace.processes().unwrap().iter().filter(|process| process.pid != balancer) {
        send(process.pid, Signal::SIGCONT).unwrap();
    }
    let begin = Instant::now();
    node.wait_until("another balancer serves", |node| {
        node.balancer().is_some_and(|now| now != balancer) && node.status().is_some_and(|status| serves(&status))
    });
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// Its watchdog has counted the pause, and is not to wait for the keeper's next second.
#[test]
fn the_service_manager_hears_at_once_that_a_paused_node_goes_on() {
    let Some(mut node) = Node::new() else { return };
    let manager = Manager::new(&node);
    let mut command = relevo();
    command.arg("run").arg("-c").arg(node.configure(&Change::default()));
    command.env("NOTIFY_SOCKET", node.path("notify")).env("WATCHDOG_USEC", "10000000");
    command.stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    pause(&node);
    manager.forget();
    let begin = Instant::now();
    go_on(&node);
    manager.wait_for("WATCHDOG=1");
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
}
