//! A node that cannot start says why, and does no harm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Change, Node, assert_refused, relevo, serves};
use crate::rights::NOBODY;

#[test]
fn a_second_instance_fails_and_does_the_first_no_harm() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let begin = Instant::now();
    assert_refused(&node, &node.path("node.toml"), "another relevo is running");
    // With nothing in common but the network namespace it would remove the first one's address.
    let second = node.configure(&Change { second: true, ..Change::default() });
    assert_refused(&node, &second, "another relevo is running and looks after the virtual addresses");

    assert!(!node.path("second.sock").exists());
    assert!(node.holds_address());
    assert!(node.status().is_some_and(|status| serves(&status)));
    assert!(node.time_without_address(begin).is_zero());
}

/// Virtual addresses are none of its business, not even those that it might find when it starts or ends.
#[test]
fn an_instance_without_virtual_routers_may_run_beside_one_that_has_them() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let begin = Instant::now();
    let mut command = relevo();
    command.arg("run").arg("-c").arg(node.configure(&Change { second: true, alone: true, ..Change::default() }));
    command.stderr(fs::File::create(node.path("second.log")).unwrap());
    let mut second = node.host.namespace.spawn(command).unwrap();
    let second_log = || fs::read_to_string(node.path("second.log")).unwrap();
    node.wait_until("the second serves", |_| second_log().contains("ready: "));
    kill(Pid::from_raw(second.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(second.wait().unwrap().success(), "{}", second_log());

    assert!(!second_log().contains("removed"), "{}", second_log());
    assert!(node.holds_address());
    assert!(node.time_without_address(begin).is_zero());
}

#[test]
fn what_cannot_work_is_refused_with_one_clear_message() {
    let Some(node) = Node::new() else { return };
    let missing_user = node.configure(&Change { process: "user = \"no-such-user\"", ..Change::default() });
    assert_refused(&node, &missing_user, "useradd --system");
    let open = node.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let open_directory = node.configure(&Change { process: &format!("chroot = {open:?}"), ..Change::default() });
    assert_refused(&node, &open_directory, "chmod 755");
    let missing_directory = node.configure(&Change { process: "chroot = \"/no/such\"", ..Change::default() });
    assert_refused(&node, &missing_directory, "mkdir -p /no/such");

    let peering = node.configure(&Change { peering: true, ..Change::default() });
    assert_refused(&node, &peering, "relevo key");
    assert!(relevo().arg("key").arg(node.path("pair.key")).status().unwrap().success());
    fs::set_permissions(node.path("pair.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_refused(&node, &peering, "chmod 600");

    assert!(!node.path("node.sock").exists());
    assert!(node.host.namespace.processes().unwrap().is_empty());
}

#[test]
fn without_privilege_it_says_what_it_takes() {
    let Some(node) = Node::new() else { return };
    let file = node.configure(&Change::default());
    fs::set_permissions(node.directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // The build directory may be closed to others.
    let binary = node.path("relevo");
    fs::copy(env!("CARGO_BIN_EXE_relevo"), &binary).unwrap();
    let output = node.run(Command::new(&binary).arg("run").arg("-c").arg(file).uid(NOBODY).gid(NOBODY));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().filter(|line| line.starts_with("relevo: ")).count(), 1, "{message}");
    assert!(message.contains("run as root"), "{message}");
    assert!(!node.path("node.sock").exists());
}

#[test]
fn every_error_of_the_configuration_is_told_before_anything_starts() {
    let Some(node) = Node::new() else { return };
    let file = node.configure(&Change { process: "usr = \"nobody\"\nthreads = \"many\"", ..Change::default() });
    let output = node.run(relevo().arg("run").arg("-c").arg(file));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("usr"), "{message}");
}
