//! One machine: a container with systemd as its first process, which can be switched off, restarted and unplugged.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use relevo::lab::namespace::Process;
use relevo::lab::network::{Host, Switch};
use relevo::lab::node::{ask, send};
use relevo::status::PairStatus;

use super::cgroup::ControlGroup;
use super::{Disk, enter, text_of};

/// For a machine to boot, or to shut down; it takes 2 s alone.
const PATIENCE: Duration = Duration::from_secs(60);

/// systemd-nspawn's exit status when the machine asks to be started again.
const REBOOT: i32 = 133;

/// Where Relevo's package has the control socket.
const CONTROL_SOCKET: &str = "run/relevo/control.sock";

/// A machine, switched on or off.
pub(crate) struct Machine(Arc<Shared>);

struct Shared {
    name: String,
    address: Ipv4Addr,
    switch: Arc<Switch>,
    disk: Disk,
    console: PathBuf,
    boots: AtomicU32,
    /// `None`: switched off.
    running: Mutex<Option<Running>>,
    changed: Condvar,
}

/// From power on until off; a restart makes a new one, since a kernel that starts knows nothing of the one before.
#[derive(Clone)]
struct Running {
    host: Arc<Host>,
    /// Its group is there until all let go of it.
    _group: Arc<ControlGroup>,
    boot: u32,
}

impl Machine {
    pub(super) fn new(name: &str, address: Ipv4Addr, switch: &Arc<Switch>, disk: Disk, directory: &Path) -> Self {
        Self(Arc::new(Shared {
            name: name.into(),
            address,
            switch: Arc::clone(switch),
            disk,
            console: directory.join(format!("{name}.console")),
            boots: AtomicU32::new(0),
            running: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Its own address, on `eth0`.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.0.address
    }

    /// Its network, until it is switched off or restarts.
    #[track_caller]
    pub(crate) fn host(&self) -> Arc<Host> {
        let running = self.0.lock().clone();
        running.unwrap_or_else(|| panic!("{} is switched off", self.name())).host
    }

    /// Is it switched on?
    pub(crate) fn is_on(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Switches it on and waits until it has booted.
    pub(crate) fn power_on(&self) {
        self.begin_power_on();
        self.wait_for_boot();
    }

    /// Switches it on.
    pub(crate) fn begin_power_on(&self) {
        Shared::start(&self.0);
    }

    /// Takes its power: no process of it does anything more, and no packet tells of that.
    pub(crate) fn power_off(&self) {
        let mut running = self.0.lock();
        let Some(Running { host, .. }) = running.as_ref() else { return };
        // The kernel lives on, and would tell everybody that the connections are over.
        host.port.silence().unwrap();
        send(self.0.init(host).expect("a machine has a first process"), Signal::SIGKILL).unwrap();
        let end = Instant::now() + PATIENCE;
        while running.is_some() {
            assert!(Instant::now() < end, "{} does not end", self.name());
            running = self.0.changed.wait_timeout(running, Duration::from_millis(100)).unwrap().0;
        }
    }

    /// Restarts it as its administrator would, and waits until it has booted.
    pub(crate) fn reboot(&self) {
        self.begin_reboot();
        self.wait_for_restart(self.boot());
    }

    /// Asks it to restart.
    pub(crate) fn begin_reboot(&self) {
        self.shell("systemctl --no-block reboot");
    }

    /// How often it was started, as [`Self::wait_for_restart`] wants to know.
    pub(crate) fn boot(&self) -> u32 {
        self.0.lock().as_ref().map_or(0, |running| running.boot)
    }

    /// Waits for a later start than `boot`, and until it has booted.
    #[track_caller]
    pub(crate) fn wait_for_restart(&self, boot: u32) {
        let end = Instant::now() + PATIENCE;
        while self.boot() <= boot {
            assert!(Instant::now() < end, "{} does not restart\n{}", self.name(), self.console());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.wait_for_boot();
    }

    /// Waits until systemd has started everything that it starts at boot.
    #[track_caller]
    pub(crate) fn wait_for_boot(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let state =
                self.try_run("systemctl is-system-running --wait").map(|output| output.stdout).unwrap_or_default();
            match String::from_utf8_lossy(&state).trim() {
                "running" => return,
                "degraded" => {
                    panic!("{} has failed units\n{}", self.name(), self.shell("systemctl --failed --no-legend"))
                }
                _ => assert!(Instant::now() < end, "{} does not boot\n{}", self.name(), self.console()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes its network cable out: it loses its carrier.
    pub(crate) fn pull_cable(&self) {
        self.host().port.pull().unwrap();
    }

    /// Puts the cable back.
    pub(crate) fn plug_cable(&self) {
        self.host().port.plug().unwrap();
    }

    /// Runs a shell's command there as root, whatever becomes of it.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> Output {
        self.try_run(command).unwrap_or_else(|| panic!("{} is not running", self.name()))
    }

    /// The same; the test fails unless it succeeds. Returns its standard output.
    #[track_caller]
    pub(crate) fn shell(&self, command: &str) -> String {
        text_of(&format!("{}# {command}", self.name()), &self.run(command))
    }

    /// Puts a file there, for root alone to write and for all to read.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(path), content).unwrap();
    }

    /// Installs a Debian package, or the next version of it, as an administrator who has the file.
    #[track_caller]
    pub(crate) fn install(&self, package: &Path) {
        self.write("/root/package.deb", std::fs::read(package).unwrap());
        self.shell("apt-get install -qq --no-install-recommends /root/package.deb 2>&1 && rm /root/package.deb");
    }

    /// Where the host finds a file of it while it runs.
    #[track_caller]
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let init = self.0.init(&self.host()).unwrap_or_else(|| panic!("{} is not running", self.name()));
        Path::new("/proc").join(init.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// The processes of Relevo there, in the order of guard, keeper, balancer, as far as they are there.
    #[track_caller]
    pub(crate) fn relevo(&self) -> Vec<Process> {
        let all = self.host().namespace.processes().unwrap();
        let is = |process: &Process, role: &str| {
            let [program, argument, ..] = &process.arguments[..] else { return false };
            program.rsplit('/').next() == Some("relevo") && argument == role
        };
        ["run", "keeper", "balancer"].iter().flat_map(|role| all.iter().filter(move |p| is(p, role)).cloned()).collect()
    }

    /// What Relevo there says of the pair.
    pub(crate) fn status(&self) -> std::io::Result<PairStatus> {
        ask(&self.path(CONTROL_SOCKET))
    }

    /// The end of what it wrote to its console, for messages.
    pub(crate) fn console(&self) -> String {
        let text = std::fs::read(&self.0.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn try_run(&self, command: &str) -> Option<Output> {
        let running = self.0.lock().clone()?;
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--target={}", self.0.init(&running.host)?)).args(["--all", "--wd=/"]);
        nsenter.args(["sh", "-c", command]).stdin(Stdio::null());
        nsenter.env_clear().envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
        Some(nsenter.output().unwrap())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, and somebody who waits for its end and starts it again if it asks for that.
    fn start(self: &Arc<Self>) {
        let mut running = self.lock();
        assert!(running.is_none(), "{} is switched on already", self.name);
        let (now, mut container) = self.boot();
        *running = Some(now);
        drop(running);
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            while container.wait().unwrap().code() == Some(REBOOT) {
                let mut running = shared.lock();
                // Its network is that of the kernel that is no more.
                *running = None;
                let (now, again) = shared.boot();
                (*running, container) = (Some(now), again);
            }
            *shared.lock() = None;
            shared.changed.notify_all();
        });
    }

    fn boot(&self) -> (Running, Child) {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed) + 1;
        let host = Arc::new(self.switch.host(&self.name, self.address).unwrap());
        let group = Arc::new(ControlGroup::new(&format!("{}-{boot}", self.name)));
        let console = File::options().append(true).create(true).open(&self.console).unwrap();
        let mut command = enter(self.disk.building);
        let join: String = group.doors().iter().map(|door| format!("echo 0 >{}; ", door.display())).collect();
        command.args(["sh", "-ec", &format!("{join}exec systemd-nspawn \"$@\""), "sh"]);
        command.arg(format!("--directory={}", self.disk.root.display()));
        command.args([&format!("--machine={}", self.name), "--boot", "--register=no", "--keep-unit", "--settings=no"]);
        command.args(["--network-namespace-path=/proc/self/ns/net", "--resolv-conf=off", "--timezone=off"]);
        command.args([
            "--link-journal=no",
            "--console=read-only",
            "--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_IPC_LOCK",
        ]);
        // Otherwise it could not set what is under net in sysctl.
        command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
        command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        let container = host.namespace.spawn(command).unwrap();
        (Running { host, _group: group, boot }, container)
    }

    /// Its first process: that which has the number 1 in its own eyes.
    fn init(&self, host: &Host) -> Option<Pid> {
        let processes = host.namespace.processes().ok()?;
        processes.into_iter().map(|process| process.pid).find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            numbers.split_whitespace().count() > 1 && numbers.split_whitespace().last() == Some("1")
        })
    }
}
