//! A host with one node on it, and what a test does to its processes.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use relevo::lab::directory::Directory;
use relevo::lab::network::{Host, Switch};
use relevo::lab::node::is_active;
use relevo::lab::watch::Watch;
use relevo::status::{BalancerState, PairStatus};

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
pub(crate) const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 10);
const PORT: u16 = 8080;
/// Everything that is waited for takes milliseconds, or the seconds that are said at its place.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A host with one node on it.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) watch: Watch,
    pub(crate) directory: Directory,
    pub(crate) guard: Option<Child>,
}

/// What a test changes in the configuration.
#[derive(Default)]
pub(crate) struct Change<'a> {
    pub(crate) process: &'a str,
    /// Instead of 100 ms.
    pub(crate) interval: Option<&'a str>,
    /// A peer that does not run.
    pub(crate) peering: bool,
    /// Another control socket, another port.
    pub(crate) second: bool,
    /// No virtual router.
    pub(crate) alone: bool,
}

impl Node {
    /// `None` where namespaces cannot be made, which CI does not accept.
    pub(crate) fn new() -> Option<Node> {
        let switch = match Switch::new() {
            Ok(switch) => switch,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                eprintln!("not tried: {error} (it needs root)");
                return None;
            }
        };
        let host = switch.host("node", ADDRESS).unwrap();
        let watch = Watch::start(FLOATING, [&host.namespace]).unwrap();
        Some(Node { host, watch, directory: Directory::new().unwrap(), guard: None })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration.
    pub(crate) fn configure(&self, change: &Change) -> PathBuf {
        let name = if change.second { "second" } else { "node" };
        let peering = format!(
            "[peering]\nlisten = \"{ADDRESS}:8650\"\nkey_file = \"{}\"\npeers = {{ other = \"{PEER}:8650\" }}",
            self.path("pair.key").display()
        );
        let virtual_router = format!(
            "[vrrp.main]\ninterface = \"{interface}\"\nvirtual_router_id = 1\npriority = 255\n\
             addresses = [\"{FLOATING}/24\"]\nadvertisement_interval = \"{interval}\"",
            interface = relevo::lab::network::INTERFACE,
            interval = change.interval.unwrap_or("100ms"),
        );
        let text = format!(
            r#"[node]
name = "node"
control_socket = "{socket}"

[process]
threads = 2
{process}

[frontends.web]
bind = ["*:{port}"]
default_backend = "app"

[[backends.app.servers]]
name = "one"
address = "127.0.0.1:1"
check = false

{virtual_router}

{peering}
"#,
            socket = self.path(&format!("{name}.sock")).display(),
            process = change.process,
            port = PORT + u16::from(change.second),
            virtual_router = if change.alone { "" } else { &virtual_router },
            peering = if change.peering { &peering } else { "" },
        );
        let file = self.path(&format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        file
    }

    /// Starts the node and waits until it serves and holds the address.
    pub(crate) fn start(&mut self, change: &Change) {
        let file = self.configure(change);
        let mut command = relevo();
        command.arg("run").arg("-c").arg(file).stderr(fs::File::create(self.path("log")).unwrap());
        self.guard = Some(self.host.namespace.spawn(command).unwrap());
        self.wait_until("it serves and holds the address", |node| {
            node.status().is_some_and(|status| serves(&status) && is_active(&status.node)) && node.holds_address()
        });
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: &mut Command) -> Output {
        self.host.namespace.run(|| command.output().unwrap()).unwrap()
    }

    pub(crate) fn status(&self) -> Option<PairStatus> {
        serde_json::from_str(&self.ask("status\n")?).ok()
    }

    pub(crate) fn ask(&self, line: &str) -> Option<String> {
        let mut socket = UnixStream::connect(self.path("node.sock")).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(line.as_bytes()).ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text)
    }

    pub(crate) fn guard(&self) -> Pid {
        Pid::from_raw(self.guard.as_ref().unwrap().id() as i32)
    }

    pub(crate) fn keeper(&self) -> Option<Pid> {
        self.process("keeper")
    }

    pub(crate) fn balancer(&self) -> Option<Pid> {
        self.process("balancer")
    }

    /// Known by the hidden command it was started with.
    pub(crate) fn process(&self, command: &str) -> Option<Pid> {
        let processes = self.host.namespace.processes().unwrap();
        processes
            .iter()
            .find(|process| process.arguments.get(1).is_some_and(|word| word == command))
            .map(|found| found.pid)
    }

    pub(crate) fn holds_address(&self) -> bool {
        self.watch.history().holds(0)
    }

    pub(crate) fn time_without_address(&self, since: Instant) -> Duration {
        self.watch.history().longest_without_owner(since, Instant::now())
    }

    pub(crate) fn connect(&self) -> std::io::Result<TcpStream> {
        let address = SocketAddr::from((ADDRESS, PORT));
        self.host.namespace.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn wait_until_nothing_runs(&self) {
        self.wait_until("no process is left", |node| node.host.namespace.processes().unwrap().is_empty());
    }

    /// Kills all at once, so that none can do anything about the death of another; what they had open is closed when it returns.
    pub(crate) fn kill_all(&mut self) {
        let mut processes = self.host.namespace.processes().unwrap();
        // The guard dies last: with it the keeper's process group would lose its last parent in the session, and what is stopped
        // there would be continued by the kernel.
        processes.sort_by_key(|process| process.pid == self.guard());
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            processes.iter().for_each(|process| kill(process.pid, signal).unwrap());
        }
        self.wait_for_guard();
        // A process leaves its namespace before its files are closed.
        self.wait_until("every process has ended", |_| processes.iter().all(|process| has_ended(process.pid)));
    }

    /// Waits for the guard's own end; returns its exit status.
    pub(crate) fn wait_for_guard(&mut self) -> Option<i32> {
        let mut guard = self.guard.take().unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = guard.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < PATIENCE, "the guard does not end\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }
}

/// Is no thread of it left that does anything? What is open is closed before a thread becomes a zombie.
fn has_ended(process: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return true };
    let state = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    threads.flatten().filter_map(state).all(|state| matches!(state, 'Z' | 'X'))
}

impl Drop for Node {
    fn drop(&mut self) {
        for process in self.host.namespace.processes().unwrap_or_default() {
            let _ = kill(process.pid, Signal::SIGKILL);
        }
        if let Some(guard) = &mut self.guard {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

pub(crate) fn relevo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_remove("NOTIFY_SOCKET");
    command
}

pub(crate) fn serves(status: &PairStatus) -> bool {
    status.node.balancer.state == BalancerState::Serving
}

/// It failed with one clear message, and left nothing behind.
pub(crate) fn assert_refused(node: &Node, file: &Path, expected: &str) {
    let output = node.run(relevo().arg("run").arg("-c").arg(file));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("relevo: ")).collect();
    assert_eq!(errors.len(), 1, "{message}");
    assert!(errors[0].contains(expected), "{message}");
}
