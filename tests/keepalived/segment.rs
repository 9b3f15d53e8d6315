//! One segment with a node of relevo, a node of Debian's keepalived, and an observer on the wire between them.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use relevo::lab::directory::Directory;
use relevo::lab::network::{Host, INTERFACE, PREFIX_LENGTH, Switch, mac};
use relevo::lab::node::{Messages, Node, send};
use relevo::lab::pair::{FLOATING, VIRTUAL_ROUTER_ID};
use relevo::lab::watch::Watch;
use relevo::lab::wire::{Frame, Said, Wire};

/// Long enough for a program to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Router {
    Relevo,
    Keepalived,
}

use Router::{Keepalived, Relevo};

impl Router {
    pub(crate) fn other(self) -> Self {
        match self {
            Relevo => Keepalived,
            Keepalived => Relevo,
        }
    }
}

/// Both routers' configuration; pairs are relevo's first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) interval: Duration,
    pub(crate) priorities: [u8; 2],
    pub(crate) addresses: [Ipv4Addr; 2],
    pub(crate) preempt: bool,
    pub(crate) unicast: bool,
}

impl Setup {
    /// Priorities 150 and 100, every 100 ms, multicast, preempting.
    pub(crate) fn with_higher(router: Router) -> Self {
        Self {
            interval: Duration::from_millis(100),
            priorities: if router == Relevo { [150, 100] } else { [100, 150] },
            addresses: [Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 0, 12)],
            preempt: true,
            unicast: false,
        }
    }

    /// The router of higher priority.
    pub(crate) fn higher(&self) -> Router {
        if self.priority(Relevo) > self.priority(Keepalived) { Relevo } else { Keepalived }
    }

    pub(crate) fn priority(&self, router: Router) -> u8 {
        self.priorities[router as usize]
    }

    fn address(&self, router: Router) -> Ipv4Addr {
        self.addresses[router as usize]
    }

    /// RFC 9568 §6.1, of this router as a backup.
    pub(crate) fn skew(&self, router: Router) -> Duration {
        self.interval * (256 - u32::from(self.priority(router))) / 256
    }

    /// RFC 9568 §6.1, of this router as a backup.
    pub(crate) fn active_down(&self, router: Router) -> Duration {
        3 * self.interval + self.skew(router)
    }

    fn relevo(&self, directory: &Path) -> String {
        let own = Relevo;
        let unicast = if self.unicast { format!("\"{}\"", self.address(own.other())) } else { String::new() };
        format!(
            r#"[node]
name = "relevo"
control_socket = "{directory}/relevo.sock"

[frontends.web]
bind = ["*:80"]
default_backend = "app"

[backends.app]

[[backends.app.servers]]
name = "web1"
address = "127.0.0.1:8080"
check = false

[vrrp.main]
interface = "{INTERFACE}"
virtual_router_id = {VIRTUAL_ROUTER_ID}
priority = {priority}
addresses = ["{FLOATING}/{PREFIX_LENGTH}"]
advertisement_interval = "{interval}ms"
preempt = {preempt}
unicast_peers = [{unicast}]
"#,
            directory = directory.display(),
            priority = self.priority(own),
            interval = self.interval.as_millis(),
            preempt = self.preempt,
        )
    }

    fn keepalived(&self) -> String {
        let own = Keepalived;
        let unicast = if self.unicast {
            let (source, peer) = (self.address(own), self.address(own.other()));
            format!("unicast_src_ip {source}\n    unicast_peer {{\n        {peer}\n    }}\n")
        } else {
            String::new()
        };
        format!(
            r"global_defs {{
    vrrp_version 3
    # Ours does the same: the winner may never have heard of the loser, and the segment believes the loser.
    vrrp_higher_prio_send_advert true
}}

vrrp_instance main {{
    state BACKUP
    interface {INTERFACE}
    virtual_router_id {VIRTUAL_ROUTER_ID}
    priority {priority}
    advert_int {interval}
    {nopreempt}
    {unicast}
    virtual_ipaddress {{
        {FLOATING}/{PREFIX_LENGTH}
    }}
}}
",
            priority = self.priority(own),
            interval = self.interval.as_secs_f64(),
            nopreempt = if self.preempt { "" } else { "nopreempt" },
        )
    }
}

/// The segment, both routers on it, started or not.
pub(crate) struct Segment {
    pub(crate) setup: Setup,
    relevo: Node,
    keepalived: Host,
    keepalived_parent: Option<Child>,
    directory: Directory,
    watch: Watch,
    wire: Wire,
    _switch: Switch,
}

/// Lays a segment and plays `scene` on it; afterwards neither program may have complained of the other's packets.
///
/// Without root (namespaces, raw sockets) or keepalived nothing is played, which CI does not accept.
pub(crate) fn play(setup: Setup, scene: impl FnOnce(&mut Segment)) {
    // One segment at a time, or the clock would measure the neighbours.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone: MutexGuard<()> = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(why) = is_possible() {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("not tried: {why}");
        return;
    }
    let mut segment = Segment::new(setup);
    scene(&mut segment);
    segment.assert_no_complaint();
}

fn is_possible() -> Result<(), String> {
    Switch::new().map_err(|error| format!("{error} (it needs root)"))?;
    let version = Command::new("keepalived").arg("--version").stderr(Stdio::null()).status();
    version.map(drop).map_err(|error| format!("keepalived: {error} (it needs Debian's package keepalived)"))
}

impl Segment {
    fn new(setup: Setup) -> Self {
        let directory = Directory::new().unwrap();
        let path = directory.path();
        let switch = Switch::new().unwrap();
        let host = |name, router| switch.host(name, setup.address(router)).unwrap();
        let (relevo, keepalived) = (host("relevo", Relevo), host("keepalived", Keepalived));
        let watch = Watch::start(FLOATING, [&relevo.namespace, &keepalived.namespace]).unwrap();
        let wire = Wire::tap(&switch).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_relevo"));
        let relevo = Node::new("relevo", relevo, binary, path, Messages::File, &setup.relevo(path)).unwrap();
        std::fs::write(path.join("keepalived.conf"), setup.keepalived()).unwrap();
        Self { setup, relevo, keepalived, keepalived_parent: None, directory, watch, wire, _switch: switch }
    }

    pub(crate) fn start(&mut self, router: Router) {
        match router {
            Relevo => self.start_relevo(),
            Keepalived => self.start_keepalived(),
        }
    }

    fn start_relevo(&mut self) {
        // One that was killed may not be dead yet.
        self.relevo.end().unwrap();
        self.relevo.start().unwrap();
    }

    fn start_keepalived(&mut self) {
        self.wait_for_keepalived();
        let path = self.directory.path();
        let log = File::options().append(true).create(true).open(self.keepalived_log()).unwrap();
        let mut command = Command::new("keepalived");
        command.args(["--vrrp", "--dont-fork", "--log-console", "--log-detail"]);
        command.arg("--use-file").arg(path.join("keepalived.conf"));
        for (option, file) in [("--pid", "keepalived.pid"), ("--vrrp_pid", "vrrp.pid")] {
            // What it leaves when it is killed would keep it from starting while the dead process is not waited for.
            let _ = std::fs::remove_file(path.join(file));
            command.arg(option).arg(path.join(file));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.keepalived_parent = Some(self.keepalived.namespace.spawn(command).unwrap());
    }

    /// Starts the router and waits until it adverts, holds the address and has announced it.
    pub(crate) fn start_as_active(&mut self, router: Router) {
        let begin = Instant::now();
        self.start(router);
        self.wait_active(router, begin);
    }

    /// Starts the router beside the other, active one, and waits until it takes part as backup.
    pub(crate) fn start_as_backup(&mut self, router: Router) {
        self.start(router);
        match router {
            Relevo => self.wait("relevo is backup", || {
                let status = self.relevo.status();
                status.is_ok_and(|status| status.node.can_take_over && !status.node.vrrp.is_empty())
            }),
            Keepalived => {
                self.wait("keepalived is backup", || self.keepalived_messages().contains("Entering BACKUP STATE"))
            }
        }
    }

    /// Waits until the router has adverted since that moment, alone holds the address, and has announced it.
    pub(crate) fn wait_active(&self, router: Router, since: Instant) {
        self.wait(&format!("{router:?} adverts, holds the address and has announced it"), || {
            let frames = self.wire.frames(since);
            let has_adverted = frames.iter().any(|frame| self.adverter(frame) == Some(router));
            let has_announced = frames.iter().any(|frame| self.is_announcement_of(frame, router));
            has_adverted && has_announced && self.watch.history().holds(router as usize)
        });
    }

    /// `kill -9` of all processes of a router, stopped before so that none can react to the end of another.
    pub(crate) fn kill(&self, router: Router) {
        let processes = self.namespace_of(router).processes().unwrap();
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for process in &processes {
                send(process.pid, signal).unwrap();
            }
        }
    }

    /// Asks a router to stop.
    pub(crate) fn terminate(&self, router: Router) {
        let parent = match router {
            Relevo => self.relevo.expect_processes().unwrap().guard,
            Keepalived => Pid::from_raw(self.keepalived_parent.as_ref().unwrap().id().try_into().unwrap()),
        };
        send(parent, Signal::SIGTERM).unwrap();
    }

    /// Waits for one that was killed.
    fn wait_for_keepalived(&mut self) {
        if let Some(mut parent) = self.keepalived_parent.take() {
            let _ = parent.wait();
        }
    }

    fn namespace_of(&self, router: Router) -> &relevo::lab::namespace::Namespace {
        match router {
            Relevo => &self.relevo.host.namespace,
            Keepalived => &self.keepalived.namespace,
        }
    }

    /// Drops what the router sends and is sent; nobody is told.
    pub(crate) fn cut_off(&self, router: Router) {
        self.port_of(router).silence().unwrap();
    }

    /// The end of that. Returns when it was.
    pub(crate) fn heal(&self, router: Router) -> Instant {
        self.port_of(router).pass().unwrap();
        Instant::now()
    }

    fn port_of(&self, router: Router) -> &relevo::lab::network::Port {
        match router {
            Relevo => &self.relevo.host.port,
            Keepalived => &self.keepalived.port,
        }
    }

    /// Does the router hold the address?
    pub(crate) fn holds(&self, router: Router) -> bool {
        self.watch.history().holds(router as usize)
    }

    /// The router's adverts since a moment: when, and with which priority.
    pub(crate) fn adverts(&self, router: Router, since: Instant) -> Vec<(Instant, u8)> {
        let priority = |said| match said {
            Said::Advert { priority, .. } => priority,
            Said::Announcement { .. } => unreachable!("it is an advert"),
        };
        let frames = self.wire.frames(since);
        let own = frames.iter().filter(|frame| self.adverter(frame) == Some(router));
        own.map(|frame| (frame.at, priority(frame.said))).collect()
    }

    /// When the router has announced the address since a moment.
    pub(crate) fn announcements(&self, router: Router, since: Instant) -> Vec<Instant> {
        let frames = self.wire.frames(since);
        frames.iter().filter(|frame| self.is_announcement_of(frame, router)).map(|frame| frame.at).collect()
    }

    /// Longest time that both routers adverted: from the first advert of the later to the last advert of the earlier, where
    /// neither fell silent for more than two intervals in between.
    pub(crate) fn longest_with_two_adverters(&self, since: Instant) -> Duration {
        let [ours, theirs] = [Relevo, Keepalived].map(|router| self.tenures(router, since));
        let overlap =
            |a: &(Instant, Instant), b: &(Instant, Instant)| a.1.min(b.1).saturating_duration_since(a.0.max(b.0));
        ours.iter().flat_map(|a| theirs.iter().map(move |b| overlap(a, b))).max().unwrap_or_default()
    }

    /// First and last advert of each time that the router was active.
    pub(crate) fn tenures(&self, router: Router, since: Instant) -> Vec<(Instant, Instant)> {
        let mut tenures: Vec<(Instant, Instant)> = Vec::new();
        for (at, _) in self.adverts(router, since).into_iter().filter(|(_, priority)| *priority > 0) {
            match tenures.last_mut() {
                Some((_, last)) if at - *last <= 2 * self.setup.interval => *last = at,
                _ => tenures.push((at, at)),
            }
        }
        tenures
    }

    fn adverter(&self, frame: &Frame) -> Option<Router> {
        let Said::Advert { source, destination, virtual_router_id, .. } = frame.said else { return None };
        let router = [Relevo, Keepalived].into_iter().find(|router| self.setup.address(*router) == source)?;
        assert_eq!(virtual_router_id, VIRTUAL_ROUTER_ID);
        let expected =
            if self.setup.unicast { self.setup.address(router.other()) } else { Ipv4Addr::new(224, 0, 0, 18) };
        assert_eq!(destination, expected, "{router:?}");
        Some(router)
    }

    fn is_announcement_of(&self, frame: &Frame, router: Router) -> bool {
        frame.said == Said::Announcement { address: FLOATING } && frame.from == mac(self.setup.address(router))
    }

    /// Waits for something that must come.
    pub(crate) fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.messages());
            sleep(Duration::from_millis(2));
        }
    }

    fn assert_no_complaint(&self) {
        let keepalived = self.keepalived_messages();
        let complains = |line: &&str| COMPLAINTS_OF_KEEPALIVED.iter().any(|word| line.to_lowercase().contains(word));
        let complaints: Vec<&str> = keepalived.lines().filter(complains).collect();
        assert!(complaints.is_empty(), "keepalived complains: {complaints:#?}\n{}", self.messages());
        let relevo = self.relevo.messages();
        let complains = |line: &&str| COMPLAINTS_OF_RELEVO.iter().any(|words| line.contains(words));
        let complaints: Vec<&str> = relevo.lines().filter(complains).collect();
        assert!(complaints.is_empty(), "relevo complains: {complaints:#?}\n{}", self.messages());
    }

    /// What both programs wrote.
    pub(crate) fn messages(&self) -> String {
        format!("--- relevo\n{}--- keepalived\n{}", self.relevo.messages(), self.keepalived_messages())
    }

    fn keepalived_messages(&self) -> String {
        std::fs::read_to_string(self.keepalived_log()).unwrap_or_default()
    }

    fn keepalived_log(&self) -> PathBuf {
        self.directory.path().join("keepalived.log")
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.kill(Keepalived);
        self.wait_for_keepalived();
    }
}

/// Of its messages about packets (vrrp.c), each has one of these in it.
const COMPLAINTS_OF_KEEPALIVED: &[&str] = &[
    "bogus",
    "invalid",
    "incorrect",
    "mismatch",
    "wrong",
    "checksum",
    "dropp",
    "ignor",
    "too short",
    "error",
    "warning",
];

const COMPLAINTS_OF_RELEVO: &[&str] = &["ignored a packet", "configured differently", " ERROR "];
