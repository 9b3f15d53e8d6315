//! What whoever looks after the node sees of it: the service manager, `relevo release`, the control socket.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::node::{Change, FLOATING, Node, PATIENCE, relevo, serves};

#[test]
fn sigterm_hands_over_and_leaves_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let Some(mut node) = Node::new() else { return };
        node.start(&Change { interval: Some("5s"), ..Change::default() });
        kill(node.guard(), signal).unwrap();
        assert_eq!(node.wait_for_guard(), Some(0), "{}", node.log());
        assert!(!node.holds_address());
        assert!(!node.path("node.sock").exists());
        assert!(node.host.namespace.processes().unwrap().is_empty());
    }
}

/// It hears when the node serves, what it does, and that it is alive: while the keeper is in time, or the guard waits for the
/// next one.
#[test]
fn the_service_manager_is_told() {
    let Some(mut node) = Node::new() else { return };
    let manager = Manager::new(&node);
    let mut command = relevo();
    command.arg("run").arg("-c").arg(node.configure(&Change::default()));
    command.env("NOTIFY_SOCKET", node.path("notify")).env("WATCHDOG_USEC", "10000000");
    command.stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    manager.wait_for("READY=1");
    assert!(node.status().is_some_and(|status| serves(&status)), "ready means that it serves");
    manager.wait_for("STATUS=main: active; balancer: serving, 1 of 1 servers up");
    manager.wait_for("WATCHDOG=1");

    let keeper = node.keeper().unwrap();
    kill(keeper, Signal::SIGSTOP).unwrap();
    let last_words = manager.until_silent(Duration::from_millis(2500));
    let signs_of_life = last_words.iter().filter(|word| *word == "WATCHDOG=1").count();
    assert!(signs_of_life <= 1, "a keeper that hangs is not in time: {last_words:?}");
    kill(keeper, Signal::SIGCONT).unwrap();
    manager.wait_for("WATCHDOG=1");

    kill(keeper, Signal::SIGKILL).unwrap();
    manager.wait_for("STATUS=its keeper died: the addresses are given up, a new keeper starts");
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("STATUS=main: active; balancer: serving, 1 of 1 servers up");

    kill(node.guard(), Signal::SIGTERM).unwrap();
    manager.wait_for("STOPPING=1");
    assert_eq!(node.wait_for_guard(), Some(0));
}

/// An open connection has as long as the configuration says, at first, or after a reload; the service manager is told to wait.
#[test]
fn a_stop_takes_as_long_as_the_configuration_says() {
    let Some(mut node) = Node::new() else { return };
    let manager = Manager::new(&node);
    for (limit, reload, told) in
        [("300ms", None, "10300000"), ("90s", Some("400ms"), "10400000"), ("2h", None, "4294967295")]
    {
        let process = format!("stop_timeout = \"{limit}\"");
        let file = node.configure(&Change { process: &process, ..Change::default() });
        let mut command = relevo();
        command.arg("run").arg("-c").arg(&file).env("NOTIFY_SOCKET", node.path("notify"));
        command.stderr(fs::File::create(node.path("log")).unwrap());
        node.guard = Some(node.host.namespace.spawn(command).unwrap());
        manager.wait_for("READY=1");
        if let Some(reload) = reload {
            fs::write(&file, fs::read_to_string(&file).unwrap().replace(limit, reload)).unwrap();
            assert!(node.ask("reload\n").unwrap().starts_with("ok: process.stop_timeout is "));
        }
        let mut client = node.connect().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: t").unwrap();
        node.wait_until("it is accepted", |node| node.status().unwrap().node.balancer.connections == 1);
        let begin = Instant::now();
        kill(node.guard(), Signal::SIGTERM).unwrap();
        manager.wait_for("STOPPING=1");
        manager.wait_for(&format!("EXTEND_TIMEOUT_USEC={told}"));
        if limit == "2h" {
            drop(client);
        }
        assert_eq!(node.wait_for_guard(), Some(0), "{}", node.log());
        assert!(begin.elapsed() < Duration::from_secs(3), "{limit}: {:?}\n{}", begin.elapsed(), node.log());
        assert!(limit == "2h" || begin.elapsed() >= Duration::from_millis(300), "{limit}: {:?}", begin.elapsed());
    }
}

/// No word of what is not there: of a fault that was none, or of an election where there is none.
#[test]
fn what_a_start_and_a_stop_are_called() {
    for alone in [false, true] {
        let Some(mut node) = Node::new() else { return };
        let file = node.configure(&Change { alone, ..Change::default() });
        let mut command = relevo();
        command.arg("run").arg("-c").arg(file).stderr(fs::File::create(node.path("log")).unwrap());
        node.guard = Some(node.host.namespace.spawn(command).unwrap());
        node.wait_until("it serves", |node| node.status().is_some_and(|status| serves(&status)));
        if !alone {
            node.wait_until("it holds the address", Node::holds_address);
        }
        kill(node.guard(), Signal::SIGTERM).unwrap();
        assert_eq!(node.wait_for_guard(), Some(0), "{}", node.log());
        let log = node.log();
        assert!(!log.contains("from=fault"), "{log}");
        assert_eq!(log.contains("this node has handed over and stops"), !alone, "{log}");
        assert!(!alone || (log.contains("this node stops") && !log.contains("election")), "{log}");
    }
}

/// A reload is told the service manager, from its beginning to its end, and so is one that comes to nothing. The election does not
/// notice it.
#[test]
fn a_reload_is_told_and_moves_no_address() {
    let Some(mut node) = Node::new() else { return };
    let manager = Manager::new(&node);
    let file = node.configure(&Change::default());
    let mut command = relevo();
    command.arg("run").arg("-c").arg(&file).env("NOTIFY_SOCKET", node.path("notify"));
    command.stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    manager.wait_for("READY=1");
    node.wait_until("it holds the address", Node::holds_address);
    let (begin, before) = (Instant::now(), node.status().unwrap().node);

    let text = fs::read_to_string(&file).unwrap();
    for (text, words) in [
        (text.replace("name = \"one\"", "name = \"two\""), "was reloaded: server app/two came; server app/one went"),
        (text.replace("priority = 255", "priority = 7"), "stays as it is: vrrp.main.priority counts only when"),
    ] {
        fs::write(&file, text).unwrap();
        kill(node.guard(), Signal::SIGHUP).unwrap();
        let reloading = std::iter::from_fn(|| manager.hear(PATIENCE)).find(|word| word.starts_with("RELOADING=1"));
        assert!(reloading.is_some_and(|word| word.starts_with("RELOADING=1\nMONOTONIC_USEC=")));
        manager.wait_for("READY=1");
        node.wait_until("the log says so", |node| node.log().contains(words));
    }
    let after = node.status().unwrap().node;
    assert_ne!(after.config_hash, before.config_hash);
    assert_eq!((after.vrrp[0].transitions, after.balancer.pid), (before.vrrp[0].transitions, before.balancer.pid));
    assert_eq!(after.backends[0].servers[0].name, "two");
    assert!(node.time_without_address(begin).is_zero(), "{}", node.log());
}

/// One that does not read keeps nobody from anything.
#[test]
fn a_service_manager_that_hangs_is_no_harm() {
    let Some(mut node) = Node::new() else { return };
    let manager = Manager::new(&node);
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"full", node.path("notify")).is_ok() {}
    let mut command = relevo();
    command.arg("run").arg("-c").arg(node.configure(&Change { interval: Some("5s"), ..Change::default() }));
    command.env("NOTIFY_SOCKET", node.path("notify")).stderr(fs::File::create(node.path("log")).unwrap());
    node.guard = Some(node.host.namespace.spawn(command).unwrap());
    node.wait_until("it holds the address", Node::holds_address);
    let begin = Instant::now();
    kill(node.keeper().unwrap(), Signal::SIGKILL).unwrap();
    node.wait_until("the guard removes it", |node| !node.time_without_address(begin).is_zero());
    drop(manager);
}

/// systemd's end of `NOTIFY_SOCKET`.
pub(crate) struct Manager(UnixDatagram);

impl Manager {
    pub(crate) fn new(node: &Node) -> Manager {
        Manager(UnixDatagram::bind(node.path("notify")).unwrap())
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, expected: &str) {
        let begin = Instant::now();
        let mut told = Vec::new();
        while told.last().is_none_or(|word| word != expected) {
            assert!(begin.elapsed() < PATIENCE, "{expected} is not among {told:?}");
            told.push(self.hear(PATIENCE).unwrap_or_else(|| panic!("{expected} is not among {told:?}")));
        }
    }

    /// What it was told so far.
    pub(crate) fn forget(&self) {
        while self.hear(Duration::from_millis(1)).is_some() {}
    }

    fn until_silent(&self, silence: Duration) -> Vec<String> {
        std::iter::from_fn(|| self.hear(silence)).collect()
    }

    fn hear(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 256];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
    }
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

    node.kill_all();
    assert!(node.holds_address(), "all were killed at once, so that nobody removed it\n{}", node.log());

    let done = release(&node);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
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
