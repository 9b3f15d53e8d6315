//! What guard and keeper, keeper and balancer say to each other over their socketpairs.

use serde::{Deserialize, Serialize};

use crate::config::key::Key;
use crate::config::model::{Balancer, Config, LogTarget};
use crate::process::wishes::StampedWish;
use crate::status::{BackendStatus, OldConfigurations, PairStatus};
use crate::wish::{ServerName, Wish};

/// From the guard, first, with the lock of the virtual addresses where there are any: what a keeper runs on. It was read
/// before the first keeper started, or when one was last told to reload: one that follows another that died runs what that
/// one ran, whatever is in the files by now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Charge {
    /// The whole file.
    pub config: Config,
    /// The key of the peer links, where there are any.
    pub key: Option<Key>,
}

/// From the guard, after the charge and all that is known of people's wishes ([`StampedWish`]). It is not printed, not even by a
/// debugger's format: the text has the key in it.
#[derive(Serialize, Deserialize)]
pub enum ToKeeper {
    /// Another charge, which differs in nothing that needs a restart.
    Reload {
        /// A [`Charge`] as JSON: reading a large one is not for the election's thread.
        charge: String,
    },
    /// What of the file on disk is not what runs, in a sentence.
    FileDiffers(Option<String>),
    /// What became of a wish.
    Answer {
        /// Which.
        wish: u64,
        /// For whoever asked: what has changed, or why nothing has.
        answer: Result<String, Refused>,
    },
}

/// Why a configuration is not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For a person, in one line or several.
    pub reason: String,
    /// The file is well, and something in it counts only when the node starts.
    pub needs_restart: bool,
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self { reason, needs_restart: false }
    }
}

/// To the guard.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromKeeper {
    /// How the node is.
    Report(Report),
    /// Somebody wants the file read again, and waits for the answer to this number.
    WantsReload(u64),
    /// Nobody waits for that answer any more: nothing is to become of it, unless this keeper has the charge already.
    WithdrawsReload(u64),
    /// What became of the charge that was offered last.
    Reloaded(Result<(), String>),
    /// What people want of servers, as far as it is news: for the next keeper.
    Wishes(Vec<StampedWish>),
}

/// Every [`REPORT_INTERVAL`] and whenever something changes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Has this node served?
    pub is_ready: bool,
    /// The interval was kept and every election runs; false in a report of a change.
    pub in_time: bool,
    /// What the node does, in a line.
    pub state: String,
}

/// Between two reports, and between two states that are told the peers.
pub const REPORT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// From the keeper. The first is always [`ToBalancer::Start`], which the listening sockets come with.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToBalancer {
    /// All that the balancer will ever know of the file system.
    Start(Box<Start>),
    /// The virtual addresses this node holds now (rule 7: traffic may come from them only while they are ours).
    Held(Vec<std::net::IpAddr>),
    /// Addresses of this host's interfaces that carry nothing now: a check that fails from there says nothing of its server.
    CutOff(Vec<std::net::IpAddr>),
    /// Something that was gone is back: check every server at once. Answered by [`Beat::checked`] with this number.
    CheckAgain(u64),
    /// The pair, without the backends: for the statistics, every second and at every change, where they are shown.
    Pair(Box<PairStatus>),
    /// What people want of servers; answered with [`FromBalancer::Heeded`] and this number.
    Wishes(u64, Vec<ServerWish>),
    /// What others know of servers.
    Known(Known),
    /// Sessions of a peer's stick tables, as its balancer wrote them.
    Sessions(String),
    /// A peer knows none of the sessions: it is to be told all of them.
    TellSessions,
    /// Another configuration takes the place of the one it follows; with it come listening sockets for addresses that are new.
    Reload(Box<Reload>),
    /// These targets of the log, by their places in it, opened again; their descriptors come with it.
    Log(Vec<usize>),
    /// Accept no more, finish what is under way, exit; the keeper kills what is left after its own deadline.
    Stop {
        /// What is under way may take this long: longer than the keeper waits.
        patience: std::time::Duration,
    },
}

/// What a balancer starts with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// The keeper's process: whoever finds another parent has outlived it.
    pub keeper: i32,
    /// Its part of the configuration.
    pub config: Balancer,
    /// Where its log goes.
    pub log_targets: Vec<LogTarget>,
    /// Those of them, by their places, that could be opened: behind the listening sockets, in this order.
    pub log_opened: Vec<usize>,
    /// Whom to become; `None` in restricted mode.
    pub user: Option<Identity>,
    /// Where to lock itself in; `None`: nowhere (restricted mode without the right to).
    pub chroot: Option<std::path::PathBuf>,
    /// For each listening socket that follows, in order: which frontend, which bind, which worker.
    pub listeners: Vec<ListenerPlace>,
    /// The text of /etc/resolv.conf, which a chroot does not have.
    pub resolv_conf: String,
    /// The text of /etc/hosts.
    pub hosts: String,
    /// What people want of servers.
    pub wishes: Vec<ServerWish>,
    /// What others know of servers, the best known last.
    pub known: Vec<Known>,
    /// Is there anybody to tell of sessions?
    pub has_peers: bool,
}

/// What somebody wants of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerWish {
    /// Whom it concerns.
    pub server: ServerName,
    /// What it is.
    pub wish: Wish,
    /// Where they asked for it.
    pub node: String,
}

/// What somebody else knows of servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    /// Who it is, in words.
    pub by: String,
    /// Their states there.
    pub backends: Vec<BackendStatus>,
}

/// What a balancer follows from now on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reload {
    /// Its part of the configuration, with as many workers as before.
    pub config: Balancer,
    /// For each listening socket that follows, in order. Listeners that are not among them are there already, at the address of
    /// their bind.
    pub listeners: Vec<ListenerPlace>,
    /// The text of /etc/resolv.conf, read again.
    pub resolv_conf: String,
    /// The text of /etc/hosts.
    pub hosts: String,
    /// What people want of servers: of some that are new, perhaps.
    pub wishes: Vec<ServerWish>,
}

/// A user and group by number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// Where a listening socket belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerPlace {
    /// Index in the frontends.
    pub frontend: usize,
    /// Index in its binds.
    pub bind: usize,
    /// The worker that accepts from it.
    pub worker: usize,
}

/// From the balancer.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromBalancer {
    /// Every worker accepts.
    Serving,
    /// It cannot, and ends: in words, for a log to which it has no way yet.
    Failed(String),
    /// Sent every [`BEAT_INTERVAL`] by the control thread.
    Beat(Beat),
    /// Sessions of stick tables, for the peers' balancers: [`LONGEST_BATCH`] bytes at most, and two of them at most every
    /// [`BATCH_PAUSE`].
    Sessions(String),
    /// The wishes of this number count, and a beat with what became of them went before.
    Heeded(u64),
    /// Every worker follows the configuration that was sent last, and this is its first beat; or none does, for this reason.
    Reloaded(Result<Beat, String>),
}

/// Of [`FromBalancer::Sessions`]: a keeper passes it on between two of its timers.
pub const LONGEST_BATCH: usize = 32 << 10;

/// Between two looks for sessions that the peers are to be told.
pub const BATCH_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Between two beats.
pub const BEAT_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// Of checks: every balancer's first.
pub const FIRST_ROUND: u64 = 1;

/// Sign of life, with what `relevo status` shows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Beat {
    /// For each worker: milliseconds since it last went round its loop.
    pub worker_silence_ms: Vec<u64>,
    /// Client connections open now.
    pub connections: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Servers and their states.
    pub backends: Vec<BackendStatus>,
    /// The last round of checks in which every server has been checked; the first is [`FIRST_ROUND`].
    pub checked: u64,
    /// A target of the log has gone away: the keeper can open it again.
    pub log_is_broken: bool,
    /// What goes on under configurations that were replaced.
    pub old_configurations: OldConfigurations,
}
