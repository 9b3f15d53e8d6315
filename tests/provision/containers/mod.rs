//! Machines to provision: Debian 12 with its own systemd, sshd and network, in containers on one switch, and a place beside
//! them from which an administrator and clients reach them.
//!
//! ```text
//!  control 10.77.0.100 ─┐                    ┌─ lb1 10.77.0.11
//!  ssh, ansible, curl   ├── switch (bridge) ─┤
//!                       ┘                    └─ lb2 10.77.0.12 …
//! ```
//!
//! ```ignore
//! let site = Site::start(&[("lb1", LB1), ("lb2", LB2)]);      // booted, 2 to 5 s
//! site.machine("lb1").install(&package::make(site.directory(), 1));
//! site.machine("lb1").shell("systemctl is-active ssh");       // as root; fails the test unless it succeeds
//! site.execute(Command::new("ansible-playbook").arg("site.yml"), "what it is for");
//! site.machine("lb1").power_off();                            // like the plug; power_on, reboot, pull_cable, plug_cable
//! let prober = Prober::start(&site.control().namespace, target, EVERY);
//! ```
//!
//! They have a user `admin` (sudo without a password) and root; `site.ssh_config()` lets both in. apt installs apache2, PHP,
//! chrony and nftables from a repository on their own disk. Disks live in memory and go away with the [`Site`], also when the
//! test is killed.
//!
//! By hand: with the environment variable `RELEVO_HOLD=1` a site stays at its end, the test's success or failure, until Ctrl-C
//! (or a line on its standard input), and says how to get in:
//! `RELEVO_HOLD=1 cargo test --test provision a_machine -- --nocapture`.
#![allow(dead_code, reason = "each test program uses a part of it")]

mod cgroup;
mod machine;
pub(crate) mod package;
mod root;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::{Pid, geteuid};
use relevo::lab::directory::Directory;
use relevo::lab::network::{Host, Switch};

pub(crate) use self::machine::Machine;

/// Where administrator and clients are.
pub(crate) const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// Programs of the host, and the Debian packages that have them.
const NEEDED: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("dpkg-scanpackages", "dpkg-dev"),
    ("ssh", "openssh-client"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Machines on a switch.
pub(crate) struct Site {
    // The order is that of their ends.
    machines: Vec<Machine>,
    _building: Building,
    control: Arc<Host>,
    directory: Directory,
    switch: Arc<Switch>,
    /// One site at a time, or the clocks would measure the neighbours.
    _alone: MutexGuard<'static, ()>,
}

impl Site {
    /// Boots these machines, by name and address.
    #[track_caller]
    pub(crate) fn start(machines: &[(&str, Ipv4Addr)]) -> Self {
        assert!(
            geteuid().is_root(),
            "containers with a systemd of their own need root: run this as root (sudo tests/run)"
        );
        for (program, package) in NEEDED {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
            assert!(found.status.success(), "there is no {program}: apt-get install {package} (tests/run does it)");
        }
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        cgroup::remove_leftovers();
        let root = root::debian();
        let switch = Arc::new(Switch::new().unwrap());
        let control = Arc::new(switch.host("control", CONTROL).unwrap());
        let directory = Directory::new().unwrap();
        let key = make_key(directory.path());
        write_ssh_config(directory.path(), machines);
        let building = Building::open(&control, &root);
        let machines: Vec<Machine> = machines
            .iter()
            .map(|(name, address)| {
                let disk = building.disk(name, *address, &key);
                Machine::new(name, *address, &switch, disk, directory.path())
            })
            .collect();
        let site = Self { machines, _building: building, control, directory, switch, _alone: alone };
        site.machines.iter().for_each(Machine::begin_power_on);
        site.machines.iter().for_each(Machine::wait_for_boot);
        site
    }

    /// By its name.
    #[track_caller]
    pub(crate) fn machine(&self, name: &str) -> &Machine {
        self.machines
            .iter()
            .find(|machine| machine.name() == name)
            .unwrap_or_else(|| panic!("there is no machine {name}"))
    }

    /// All of them.
    pub(crate) fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Where administrator and clients are.
    pub(crate) fn control(&self) -> &Host {
        &self.control
    }

    /// For further hosts: web servers, clients.
    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// For files of the test; it goes away with the site.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// For `ssh -F` and `ansible_ssh_common_args`: keys, no questions, the machines by name and by address.
    pub(crate) fn ssh_config(&self) -> PathBuf {
        ssh_config(self.directory.path())
    }

    /// Runs a command at the place of control and returns what it said, whatever that was.
    pub(crate) fn run(&self, mut command: Command) -> Output {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.control.namespace.spawn(command).unwrap().wait_with_output().unwrap()
    }

    /// The same; the test fails unless the command succeeds. Returns its standard output.
    #[track_caller]
    pub(crate) fn execute(&self, command: Command) -> String {
        let name = format!("{command:?}");
        text_of(&name, &self.run(command))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::env::var_os("RELEVO_HOLD").is_none() {
            return;
        }
        let (inside, config) = (self._building.process, self.ssh_config());
        eprintln!("\nThe machines stay. To get in, from another terminal as root:");
        for machine in &self.machines {
            eprintln!("  nsenter -t {inside} --net ssh -F {} {}", config.display(), machine.name());
        }
        eprintln!("  nsenter -t {inside} --net bash   # a shell beside them, for ansible and curl");
        eprintln!("Enter ends them.");
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

/// Where the disks are, and the process whose end ends all machines: its death is certain when the test dies.
struct Building {
    process: Pid,
    _unshare: Child,
    root: PathBuf,
}

/// Below this, in the building alone, is everything that the machines write.
const DISKS: &str = "/mnt";

impl Building {
    fn open(control: &Host, root: &Path) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child=SIGKILL", "--mount", "--mount-proc", "sh", "-c"]);
        unshare.arg(format!("mount -t tmpfs -o mode=755 disks {DISKS} && echo open && exec sleep infinity"));
        unshare.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut unshare = control.namespace.spawn(unshare).unwrap();
        let mut line = String::new();
        let output = unshare.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        assert_eq!(line, "open\n", "namespaces for the machines cannot be made");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let process = std::fs::read_to_string(&children).unwrap().trim().parse().map(Pid::from_raw).unwrap();
        Self { process, _unshare: unshare, root: root.into() }
    }

    /// A copy of the Debian disk that a machine can write to; returns its directory as the building sees it.
    fn disk(&self, name: &str, address: Ipv4Addr, key: &str) -> Disk {
        let [_, _, third, fourth] = address.octets();
        let script = r#"set -e
mkdir -p "$1/$2/upper/etc" "$1/$2/work" "$1/$2/root"
mount -t overlay -o "lowerdir=$3,upperdir=$1/$2/upper,workdir=$1/$2/work" "$2" "$1/$2/root"
cd "$1/$2/root"
echo "$2" >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$2" >etc/hosts
echo "$4" >etc/machine-id
for home in root home/admin; do
    mkdir -p -m 700 $home/.ssh
    echo "$5" >$home/.ssh/authorized_keys
done
chown -R "$(stat -c %u:%g home/admin)" home/admin/.ssh
"#;
        let mut command = self.enter();
        command.args(["sh", "-c", script, "sh", DISKS, name]).arg(&self.root);
        succeed(command.arg(format!("{:032x}", u32::from_be_bytes([1, 0, third, fourth]))).arg(key));
        Disk { building: self.process, root: Path::new(DISKS).join(name).join("root") }
    }

    fn enter(&self) -> Command {
        enter(self.process)
    }
}

/// A machine's disk.
struct Disk {
    building: Pid,
    root: PathBuf,
}

fn enter(building: Pid) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--target={building}")).args(["--pid", "--mount"]);
    nsenter
}

fn make_key(directory: &Path) -> String {
    let file = directory.join("key");
    succeed(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&file));
    std::fs::read_to_string(file.with_extension("pub")).unwrap().trim().to_owned()
}

fn ssh_config(directory: &Path) -> PathBuf {
    directory.join("ssh_config")
}

fn write_ssh_config(directory: &Path, machines: &[(&str, Ipv4Addr)]) {
    let key = directory.join("key");
    let mut text: String =
        machines.iter().map(|(name, address)| format!("Host {name} {address}\n  HostName {address}\n")).collect();
    text += &format!(
        "Host *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  BatchMode yes\n  ConnectTimeout 10\n  LogLevel ERROR\n  \
         StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n",
        key.display()
    );
    let file = ssh_config(directory);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs a command on the host; the test fails unless it succeeds. Returns its standard output.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    text_of(&name, &output)
}

#[track_caller]
fn text_of(name: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
