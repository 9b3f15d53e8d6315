//! Guard, keeper and balancer as real processes: what each may do, what happens when one dies, and what is said when the
//! node cannot start. Each test has a network namespace of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
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

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 10);
const PORT: u16 = 8080;
/// Everything that is waited for takes milliseconds, or the seconds that are said at its place.
const PATIENCE: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65534;

/// A host with one node on it.
struct Node {
    host: Host,
    watch: Watch,
    directory: Directory,
    guard: Option<Child>,
}

/// What a test changes in the configuration.
#[derive(Default)]
struct Change<'a> {
    process: &'a str,
    /// Instead of 100 ms.
    interval: Option<&'a str>,
    /// A peer that does not run.
    peering: bool,
    /// Another control socket.
    second: bool,
}

impl Node {
    /// `None` where namespaces cannot be made, which CI does not accept.
    fn new() -> Option<Node> {
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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration.
    fn configure(&self, change: &Change) -> PathBuf {
        let name = if change.second { "second" } else { "node" };
        let peering = format!(
            "[peering]\nlisten = \"{ADDRESS}:8650\"\nkey_file = \"{}\"\npeers = {{ other = \"{PEER}:8650\" }}",
            self.path("pair.key").display()
        );
        let text = format!(
            r#"[node]
name = "node"
control_socket = "{socket}"

[process]
threads = 2
{process}

[frontends.web]
bind = ["*:{PORT}"]
default_backend = "app"

[[backends.app.servers]]
name = "one"
address = "127.0.0.1:1"
check = false

[vrrp.main]
interface = "{interface}"
virtual_router_id = 1
priority = 255
addresses = ["{FLOATING}/24"]
advertisement_interval = "{interval}"

{peering}
"#,
            socket = self.path(&format!("{name}.sock")).display(),
            process = change.process,
            interface = relevo::lab::network::INTERFACE,
            interval = change.interval.unwrap_or("100ms"),
            peering = if change.peering { &peering } else { "" },
        );
        let file = self.path(&format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        file
    }

    /// Starts the node and waits until it serves and holds the address.
    fn start(&mut self, change: &Change) {
        let file = self.configure(change);
        let mut command = relevo();
        command.arg("run").arg("-c").arg(file).stderr(fs::File::create(self.path("log")).unwrap());
        self.guard = Some(self.host.namespace.spawn(command).unwrap());
        self.wait_until("it serves and holds the address", |node| {
            node.status().is_some_and(|status| serves(&status) && is_active(&status.node)) && node.holds_address()
        });
    }

    /// Runs a command to its end.
    fn run(&self, command: &mut Command) -> Output {
        self.host.namespace.run(|| command.output().unwrap()).unwrap()
    }

    fn status(&self) -> Option<PairStatus> {
        serde_json::from_str(&self.ask("status\n")?).ok()
    }

    fn ask(&self, line: &str) -> Option<String> {
        let mut socket = UnixStream::connect(self.path("node.sock")).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(line.as_bytes()).ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn guard(&self) -> Pid {
        Pid::from_raw(self.guard.as_ref().unwrap().id() as i32)
    }

    fn keeper(&self) -> Option<Pid> {
        self.process("keeper")
    }

    fn balancer(&self) -> Option<Pid> {
        self.process("balancer")
    }

    /// Known by the hidden command it was started with.
    fn process(&self, command: &str) -> Option<Pid> {
        let processes = self.host.namespace.processes().unwrap();
        processes
            .iter()
            .find(|process| process.arguments.get(1).is_some_and(|word| word == command))
            .map(|found| found.pid)
    }

    fn holds_address(&self) -> bool {
        self.watch.history().holds(0)
    }

    fn time_without_address(&self, since: Instant) -> Duration {
        self.watch.history().longest_without_owner(since, Instant::now())
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let address = SocketAddr::from((ADDRESS, PORT));
        self.host.namespace.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    fn wait_until_nothing_runs(&self) {
        self.wait_until("no process is left", |node| node.host.namespace.processes().unwrap().is_empty());
    }

    /// Waits for the guard's own end; returns its exit status.
    fn wait_for_guard(&mut self) -> Option<i32> {
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

fn relevo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_remove("NOTIFY_SOCKET");
    command
}

fn serves(status: &PairStatus) -> bool {
    status.node.balancer.state == BalancerState::Serving
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

/// It failed with one clear message, and left nothing behind.
fn assert_refused(node: &Node, file: &Path, expected: &str) {
    let output = node.run(relevo().arg("run").arg("-c").arg(file));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("relevo: ")).collect();
    assert_eq!(errors.len(), 1, "{message}");
    assert!(errors[0].contains(expected), "{message}");
}

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
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        assert!(is_handled(balancer, signal), "{signal}");
        kill(balancer, signal).unwrap();
    }
    kill(keeper, Signal::SIGHUP).unwrap();
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

#[test]
fn a_second_instance_fails_and_does_the_first_no_harm() {
    let Some(mut node) = Node::new() else { return };
    node.start(&Change::default());
    let begin = Instant::now();
    assert_refused(&node, &node.path("node.toml"), "another relevo is running");
    let second = node.configure(&Change { second: true, ..Change::default() });
    assert_refused(&node, &second, "the port is in use");

    assert!(!node.path("second.sock").exists());
    assert!(node.holds_address());
    assert!(node.status().is_some_and(|status| serves(&status)));
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
    node.wait_until("it gives the address up", |node| !node.holds_address());
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
    let release =
        |node: &Node| node.run(relevo().arg("release").arg("-c").arg(node.path("node.toml")).stdout(Stdio::piped()));
    let refused = release(&node);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a keeper runs"), "{refused:?}");
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
