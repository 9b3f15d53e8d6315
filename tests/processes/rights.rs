//! What each process may do, and what it is not told.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Change, Node, serves};

pub(crate) const NOBODY: u32 = 65534;

#[test]
fn each_process_has_the_rights_it_needs_and_no_more() {
    let Some(mut node) = Node::new() else { return };
    let chroot = node.path("empty");
    fs::create_dir(&chroot).unwrap();
    node.start(&Change { process: &format!("user = \"nobody\"\nchroot = {chroot:?}"), ..Change::default() });
    let (keeper, balancer) = (node.keeper().unwrap(), node.balancer().unwrap());

    assert_no_rights(balancer);
    assert_eq!(proc_status(balancer, "Uid"), format!("{NOBODY} {NOBODY} {NOBODY} {NOBODY}"));
    assert_eq!(fs::read_link(format!("/proc/{balancer}/root")).unwrap(), chroot);
    assert_eq!(session(balancer), balancer, "without a controlling terminal");

    assert_eq!(scheduling_policy(keeper), 1);
    assert_ne!(proc_status(keeper, "VmLck"), "0 kB");
    assert!(!node.log().contains("restricted mode"), "{}", node.log());
    assert!(!node.log().contains("there is no user"), "it was named: {}", node.log());
}

#[test]
fn what_was_open_or_secret_is_passed_on_to_nobody() {
    let Some(mut node) = Node::new() else { return };
    let (file, private) = (node.configure(&Change::default()), node.path("private"));
    fs::write(&private, "private").unwrap();
    let mut command = Command::new("sh");
    let script = "exec 7<\"$1\" && exec \"$2\" run -c node.toml";
    command.args(["-c", script, "sh"]).arg(&private).arg(env!("CARGO_BIN_EXE_relevo"));
    command.current_dir(file.parent().unwrap()).env("PASSWORD", "open sesame").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    node.wait_until("it serves", |node| node.status().is_some_and(|status| serves(&status)));

    let (keeper, balancer) = (node.keeper().unwrap(), node.balancer().unwrap());
    for pid in [keeper, balancer] {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut files = open.filter_map(|descriptor| fs::read_link(descriptor.unwrap().path()).ok());
        assert!(!files.any(|file| file == private), "{pid}");
    }
    let environment = fs::read(format!("/proc/{balancer}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("sesame"));
    for pid in [node.guard(), keeper] {
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"), "no file system is kept busy");
    }
}

/// systemd may send SIGTERM to every process of a service, and who reloads one by its name sends SIGHUP to all.
#[test]
fn signals_to_all_processes_are_for_the_guard_alone() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let (keeper, balancer) = (node.keeper().unwrap(), node.balancer().unwrap());
    let is_handled = |pid, signal: Signal| {
        let caught = u64::from_str_radix(&proc_status(pid, "SigCgt"), 16).unwrap();
        caught & (1 << (signal as i32 - 1)) != 0
    };
    assert!(is_handled(keeper, Signal::SIGHUP));
    let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
    for signal in signals {
        assert!(is_handled(balancer, signal), "{signal}");
        kill(balancer, signal).unwrap();
    }
    for signal in [Signal::SIGHUP, Signal::SIGUSR2] {
        kill(keeper, signal).unwrap();
    }
    // HAProxy reloads by it.
    kill(node.guard(), Signal::SIGUSR2).unwrap();
    node.wait_until("the guard says so", |node| node.log().contains("SIGUSR2 is ignored"));
    // Both still work: an answer comes from the keeper, and a balancer that had died would be another soon.
    node.connect().unwrap();
    assert!(node.status().is_some_and(|status| serves(&status)));
    assert_eq!((node.keeper(), node.balancer()), (Some(keeper), Some(balancer)), "{}", node.log());
}

#[test]
fn a_user_namespace_is_restricted_mode_and_one_warning_says_so() {
    let Some(mut node) = Node::new() else { return };
    let file = node.configure(&Change::default());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", env!("CARGO_BIN_EXE_relevo"), "run", "-c"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    node.wait_until("it serves", |node| node.status().is_some_and(|status| serves(&status)));

    let balancer = Pid::from_raw(node.status().unwrap().node.balancer.pid as i32);
    assert_no_rights(balancer);
    assert_eq!(proc_status(balancer, "Uid"), proc_status(Pid::this(), "Uid"));
    let log = node.log();
    assert_eq!(log.matches("restricted mode: ").count(), 1, "{log}");
    assert!(log.contains("real-time priority") && log.contains("memory is not locked"), "{log}");
    assert!(log.contains("cannot change its user"), "{log}");
    kill(node.guard(), Signal::SIGTERM).unwrap();
    assert_eq!(node.wait_for_guard(), Some(0));
}

/// A line of /proc/PID/status, without its name.
fn proc_status(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Scheduling policy, from /proc/PID/stat: 0 ordinary, 1 first in first out.
fn scheduling_policy(pid: Pid) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(38).unwrap().parse().unwrap()
}

fn session(pid: Pid) -> Pid {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    Pid::from_raw(fields.split_whitespace().nth(3).unwrap().parse().unwrap())
}

fn assert_no_rights(balancer: Pid) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(proc_status(balancer, set), "0000000000000000", "{set}");
    }
    assert_eq!(proc_status(balancer, "NoNewPrivs"), "1");
    assert_eq!(scheduling_policy(balancer), 0);
}
