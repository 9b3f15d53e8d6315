//! What the host keeps of its own addresses, whoever removes the virtual one, and in whatever order they came.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};

use crate::node::{ADDRESS, Change, FLOATING, Node, relevo};

const PROMOTE_SECONDARIES: &str = "net/ipv4/conf/eth0/promote_secondaries";

/// A host whose first address is to be the virtual one, as where one balancer becomes a pair; the kernel removes the others of the
/// subnet with it.
fn virtual_address_first() -> Option<Node> {
    let node = Node::new()?;
    node.host.namespace.sysctl(PROMOTE_SECONDARIES, "0").unwrap();
    ip(&node, "flush dev eth0");
    ip(&node, &format!("add {FLOATING}/24 dev eth0"));
    ip(&node, &format!("add {ADDRESS}/24 dev eth0"));
    // Routes go with the last address.
    let routed = node.run(Command::new("ip").args(["route", "add", "default", "via", "10.78.0.254"]));
    assert!(routed.status.success(), "{routed:?}");
    Some(node)
}

fn ip(node: &Node, arguments: &str) -> String {
    let output = node.run(Command::new("ip").arg("address").args(arguments.split(' ')));
    assert!(output.status.success(), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn assert_own_alone(node: &Node) {
    let (addresses, own) = (ip(node, "show dev eth0"), format!("inet {ADDRESS}/24 "));
    assert!(addresses.contains(&own) && addresses.matches("inet ").count() == 1, "{addresses}");
    let routes = node.run(Command::new("ip").args(["route", "show", "default"]));
    assert!(!routes.stdout.is_empty(), "no default route is left");
}

/// The own address comes again, after the virtual one, and the kernel forgets what the node has asked of it.
fn come_again(node: &Node) {
    // With none at all the node would let go.
    ip(node, "add 10.78.0.3/32 dev eth0");
    ip(node, &format!("del {ADDRESS}/24 dev eth0"));
    ip(node, &format!("add {ADDRESS}/24 dev eth0"));
    ip(node, "del 10.78.0.3/32 dev eth0");
    node.wait_until("it is active", Node::holds_address);
    let addresses = ip(node, "show dev eth0");
    assert!(addresses.contains("secondary") && addresses.find("78.0.10") < addresses.find("78.0.1/"), "{addresses}");
    node.host.namespace.sysctl(PROMOTE_SECONDARIES, "0").unwrap();
}

#[test]
fn the_own_address_stays_at_the_start() {
    let Some(mut node) = virtual_address_first() else { return };
    node.start(&Change::default());
    assert!(node.log().contains("removed a virtual address that was there already"), "{}", node.log());
    assert!(ip(&node, "show dev eth0").contains(&format!("inet {ADDRESS}/24 ")), "{}", node.log());
}

#[test]
fn the_own_address_stays_when_the_node_stops() {
    let Some(mut node) = virtual_address_first() else { return };
    node.start(&Change::default());
    come_again(&node);
    kill(node.guard(), Signal::SIGTERM).unwrap();
    node.wait_for_guard();
    assert_own_alone(&node);
}

#[test]
fn the_own_address_stays_when_the_keeper_dies_and_when_all_do() {
    let Some(mut node) = virtual_address_first() else { return };
    node.start(&Change::default());
    come_again(&node);
    let keeper = node.keeper().unwrap();
    kill(keeper, Signal::SIGKILL).unwrap();
    node.wait_until("a new keeper holds the address", |node| {
        node.keeper().is_some_and(|other| other != keeper) && node.holds_address()
    });
    assert!(ip(&node, "show dev eth0").contains(&format!("inet {ADDRESS}/24 ")), "{}", node.log());

    // A refresh of the lease is time enough to ask the kernel again.
    come_again(&node);
    node.wait_until("the kernel is asked again", |node| {
        let read = || fs::read_to_string(format!("/proc/sys/{PROMOTE_SECONDARIES}"));
        node.host.namespace.run(read).unwrap().unwrap().trim() == "1"
    });
    node.kill_all();
    node.wait_until("the lease ends", |node| !node.holds_address());
    assert_own_alone(&node);
}

#[test]
fn the_own_address_stays_when_the_address_is_released() {
    let Some(mut node) = virtual_address_first() else { return };
    // Of the virtual router that makes a lease of 30 s.
    node.start(&Change { interval: Some("10s"), ..Change::default() });
    come_again(&node);
    node.kill_all();
    let released = node.run(relevo().arg("release"));
    assert!(released.status.success(), "{released:?}");
    assert_own_alone(&node);
}

/// As in a container.
#[test]
fn the_own_address_stays_where_settings_can_only_be_read() {
    let Some(mut node) = virtual_address_first() else { return };
    let file = node.configure(&Change::default());
    let script = format!(
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec {} run -c {}",
        env!("CARGO_BIN_EXE_relevo"),
        file.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_remove("NOTIFY_SOCKET");
    command.stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    node.wait_until("it is active", |node| node.holds_address() && node.log().contains("is now active"));
    come_again(&node);
    kill(node.guard(), Signal::SIGTERM).unwrap();
    node.wait_for_guard();
    assert_own_alone(&node);
    assert!(!node.log().contains("cannot set"), "{}", node.log());
}
