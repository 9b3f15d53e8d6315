//! A node on its own, without an election: the built binary, its state and its messages.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use relevo::lab::directory::Directory;
use relevo::lab::node::{ask, send};
use relevo::status::{BalancerState, PairStatus, ServerState};

use super::{PATIENCE, wait_until};

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_relevo");

/// A running node; its processes and files go away with the value.
pub(crate) struct Relevo {
    guard: Child,
    directory: Directory,
}

impl Relevo {
    /// Runs this configuration (without `[node]`) and waits until it serves.
    #[track_caller]
    pub(crate) fn start(configuration: &str) -> Self {
        let node = Self::launch(configuration);
        node.wait_for("it serves", |status| status.node.balancer.state == BalancerState::Serving);
        node
    }

    /// The same, and waits until the servers have been checked and so many of them are up.
    #[track_caller]
    pub(crate) fn start_with(configuration: &str, servers_up: usize) -> Self {
        let node = Self::start(configuration);
        node.wait_for_servers(servers_up);
        node
    }

    /// Runs this configuration, whatever becomes of it.
    pub(crate) fn launch(configuration: &str) -> Self {
        Self::launch_by(Command::new(BINARY), configuration)
    }

    /// The same for a node of another name than lb1.
    pub(crate) fn launch_as(name: &str, configuration: &str) -> Self {
        Self::launch_node(Command::new(BINARY), name, configuration)
    }

    /// The same by a command that starts the program in a certain way.
    pub(crate) fn launch_by(command: Command, configuration: &str) -> Self {
        Self::launch_node(command, "lb1", configuration)
    }

    fn launch_node(mut command: Command, name: &str, configuration: &str) -> Self {
        let directory = Directory::new().unwrap();
        open_to_all(directory.path());
        let file = configure_node(directory.path(), name, configuration);
        let messages = File::create(directory.path().join("messages")).unwrap();
        command.arg("run").arg("-c").arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages);
        Self { guard: command.spawn().unwrap(), directory }
    }

    pub(crate) fn status(&self) -> Option<PairStatus> {
        ask(&control_socket(self.directory.path())).ok()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn(&PairStatus) -> bool) {
        wait_until(
            what,
            || self.status().as_ref().is_some_and(&is_so),
            || format!("{:#?}\n{}", self.status().map(|status| status.node), self.messages()),
        );
    }

    /// Waits until all servers have been checked and so many are up.
    #[track_caller]
    pub(crate) fn wait_for_servers(&self, up: usize) {
        self.wait_for(&format!("{up} servers are up"), |status| {
            let states = || status.node.backends.iter().flat_map(|backend| &backend.servers).map(|server| server.state);
            let is_known = states().all(|state| matches!(state, ServerState::Up | ServerState::Down));
            is_known && states().filter(|state| *state == ServerState::Up).count() == up
        });
    }

    /// What it wrote to stderr so far.
    pub(crate) fn messages(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("messages")).unwrap_or_default()
    }

    /// Waits for a line with these words and returns it.
    #[track_caller]
    pub(crate) fn wait_for_message(&self, words: &str) -> String {
        let find = || self.messages().lines().find(|line| line.contains(words)).map(str::to_owned);
        wait_until(&format!("a message with {words:?}"), || find().is_some(), || self.messages());
        find().unwrap_or_default()
    }

    /// Runs `relevo server` with these arguments.
    pub(crate) fn server(&self, arguments: &[&str]) -> Output {
        server(&control_socket(self.directory.path()), arguments)
    }

    /// Where its configuration, its control socket and its messages are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes another configuration (without `[node]`) into its file, and no more.
    pub(crate) fn configure(&self, configuration: &str) {
        configure(self.directory.path(), configuration);
    }

    /// Has it read its file again.
    pub(crate) fn reload(&self) -> Output {
        let file = self.directory.path().join("relevo.toml");
        relevo(&["reload", "-c", &file.display().to_string()])
    }

    /// Runs this configuration (without `[node]`) from now on, and returns what it says has changed.
    #[track_caller]
    pub(crate) fn reload_with(&self, configuration: &str) -> String {
        self.configure(configuration);
        let output = self.reload();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{errors}\n{}", self.messages());
        said.trim_end().to_owned()
    }

    /// Stops it as a service manager does.
    pub(crate) fn stop(mut self) -> ExitStatus {
        send(self.pid(), Signal::SIGTERM).unwrap();
        wait_for_end(&mut self.guard)
    }

    /// Sends a signal to its guard, as people and service managers do.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal).unwrap();
    }

    /// The process that carries traffic.
    pub(crate) fn balancer(&self) -> Pid {
        let pid = self.status().map(|status| status.node.balancer.pid).filter(|pid| *pid > 0);
        Pid::from_raw(pid.expect("a balancer runs").cast_signed())
    }

    /// The process that runs the election.
    pub(crate) fn keeper(&self) -> Pid {
        let children = with_descendants(self.pid());
        *children.get(1).expect("a keeper runs")
    }

    /// Of its guard, the first of its processes.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.guard.id().cast_signed())
    }
}

impl Drop for Relevo {
    fn drop(&mut self) {
        if matches!(self.guard.try_wait(), Ok(None)) {
            for process in with_descendants(self.pid()) {
                let _ = send(process, Signal::SIGKILL);
            }
            let _ = self.guard.wait();
        }
    }
}

/// Runs this configuration (without `[node]`) where it must not start, and returns what it said.
#[track_caller]
pub(crate) fn run_refused(configuration: &str) -> Refused {
    run_refused_by(Command::new(BINARY), configuration)
}

/// A node that did not start.
pub(crate) struct Refused {
    pub(crate) code: Option<i32>,
    pub(crate) messages: String,
    directory: Directory,
}

impl Refused {
    /// Asserts that it ended with status 1, left no socket behind and said this in one message.
    #[track_caller]
    pub(crate) fn assert_clean(&self, words: &[&str]) {
        let messages = &self.messages;
        assert_eq!(self.code, Some(1), "{messages}");
        assert!(!control_socket(self.directory.path()).exists(), "a socket was left behind\n{messages}");
        let complaints: Vec<_> = messages.lines().filter(|line| line.starts_with("relevo: ")).collect();
        let [complaint] = complaints[..] else { panic!("not one message but {}:\n{messages}", complaints.len()) };
        for words in words {
            assert!(complaint.contains(words), "{words:?} is not in: {complaint}");
        }
    }
}

/// The same by a command that starts the program in a certain way.
#[track_caller]
pub(crate) fn run_refused_by(mut command: Command, configuration: &str) -> Refused {
    let directory = Directory::new().unwrap();
    open_to_all(directory.path());
    let file = configure(directory.path(), configuration);
    let messages = directory.path().join("messages");
    command.arg("run").arg("-c").arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&messages).unwrap());
    let mut child = command.spawn().unwrap();
    let end = wait_for_end(&mut child);
    Refused { code: end.code(), messages: std::fs::read_to_string(messages).unwrap(), directory }
}

/// Runs a command to its end.
pub(crate) fn relevo(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs `relevo server` with these arguments, on the node with this control socket.
pub(crate) fn server(socket: &Path, arguments: &[&str]) -> Output {
    let socket = format!("--socket={}", socket.display());
    relevo(&[&["server", &socket], arguments].concat())
}

/// So that a node of another user can make its socket there.
fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
}

fn configure(directory: &Path, configuration: &str) -> PathBuf {
    configure_node(directory, "lb1", configuration)
}

fn configure_node(directory: &Path, name: &str, configuration: &str) -> PathBuf {
    let file = directory.join("relevo.toml");
    let socket = control_socket(directory);
    let node = format!("[node]\nname = \"{name}\"\ncontrol_socket = \"{}\"\n\n", socket.display());
    std::fs::write(&file, node + configuration).unwrap();
    file
}

fn control_socket(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

#[track_caller]
fn wait_for_end(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= end {
            for process in with_descendants(Pid::from_raw(child.id().cast_signed())) {
                let _ = send(process, Signal::SIGKILL);
            }
            let _ = child.wait();
            panic!("it did not end within {PATIENCE:?}");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A process and all that it started.
fn with_descendants(process: Pid) -> Vec<Pid> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let children = text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
    std::iter::once(process).chain(children.flat_map(with_descendants)).collect()
}
