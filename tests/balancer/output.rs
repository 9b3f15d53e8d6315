//! Commands whose stdout or stderr is full, or has lost its reader: none panics, what was asked for is done, the status tells.

use std::fs::File;
use std::io::pipe;
use std::process::{Command, Output, Stdio};

use relevo::status::ServerState;

use crate::configuration;
use crate::rig::node::{BINARY, Relevo};
use crate::rig::place::own_network;
use crate::rig::server::Server;

/// Where a command's words go.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sink {
    Full,
    /// Its reader has gone.
    Broken,
}

impl Sink {
    fn open(self) -> Stdio {
        match self {
            Sink::Full => File::create("/dev/full").unwrap().into(),
            Sink::Broken => pipe().unwrap().1.into(),
        }
    }
}

fn run(arguments: &[&str], sink: Sink) -> Output {
    Command::new(BINARY).args(arguments).stdin(Stdio::null()).stdout(sink.open()).output().unwrap()
}

#[test]
fn what_stdout_does_not_take_is_a_failure_and_no_panic() {
    let Some(_place) = own_network() else { return };
    let server = Server::named("a");
    let (_, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    let (file, socket) = (node.directory().join("relevo.toml"), node.directory().join("control.sock"));
    let (file, socket) = (file.to_str().unwrap(), socket.to_str().unwrap());

    for sink in [Sink::Full, Sink::Broken] {
        for shows in [
            &["status", "-c", file][..],
            &["status", "--json", "-c", file],
            &["server", "list", "--socket", socket],
            &["server", "list", "--json", "--socket", socket],
            &["check", "-c", file],
            &["--help"],
            &["--version"],
            &["help", "server"],
        ] {
            let output = run(shows, sink);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{shows:?} {sink:?}: {complaint}");
            match sink {
                Sink::Full => {
                    assert!(complaint.contains("standard output takes nothing: No space left"), "{complaint}")
                }
                Sink::Broken => assert_eq!(complaint, "", "{shows:?}: a reader may have seen enough"),
            }
        }
        for (does, done) in [
            (
                &["reload", "-c", file][..],
                "this has been done: the configuration was reloaded: nothing in it has changed",
            ),
            (&["release"], "this has been done: no address was left behind"),
            (&["server", "drain", "app/a", "--socket", socket], "this has been done: app/a is drained"),
            (&["server", "weight", "app/a", "50%", "--socket", socket], "this has been done: app/a is "),
        ] {
            let output = run(does, sink);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{does:?} {sink:?}: {complaint}");
            assert!(complaint.contains(done), "{does:?} {sink:?}: {complaint}");
        }
        let state = node.status().unwrap().node.backends[0].servers[0].state;
        assert_eq!(state, ServerState::Drain, "it was done all the same");
    }
}

#[test]
fn what_stderr_does_not_take_is_no_panic() {
    for sink in [Sink::Full, Sink::Broken] {
        for (arguments, status) in [
            (&["check", "-c", "/nowhere"][..], 1),
            (&["check", "-c", "/proc/self/status"], 1),
            (&["run", "-c", "/proc/self/status"], 1),
            (&["status", "--socket", "/nowhere"], 1),
            (&["server", "drain", "a/b", "--socket", "/nowhere"], 1),
            (&["reload", "--socket", "/nowhere"], 1),
            (&["key", "/nowhere/key"], 1),
            (&["demo", "--inner=1"], 1),
            (&["keeper"], 1),
            (&["balancer"], 1),
            (&["chek"], 2),
        ] {
            let mut command = Command::new(BINARY);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(sink.open());
            assert_eq!(command.status().unwrap().code(), Some(status), "{arguments:?} {sink:?}");
        }
    }
}
