//! What the program runs on: the configuration after everything in it has been checked.
//!
//! A value of these types is valid by construction: names are unique, every reference points at something, defaults are
//! filled in. What a person writes is in `file.rs`.

mod backend;
mod condition;
mod failure;
mod keep_alive;
mod origins;
mod persistence;
mod rule;
mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use relevo_ha::VirtualRouter;
use serde::{Deserialize, Serialize};

use super::log_format::LogFormat;
pub use backend::{
    Agent, Backend, Balance, HashKey, HashMethod, HealthCheck, Observe, Probe, Server, ServerAddress, WhenAllDown,
};
pub use condition::{Condition, FieldName, HeaderTest, MethodName, NamedTest, Network, Pattern, Test, ValueTest};
pub use failure::{ConnectionMode, ErrorPage, ErrorPages, Retry, RetryBudget, Reuse};
pub use keep_alive::TcpKeepAlive;
pub use origins::{BackendOrigin, Origins};
pub use persistence::{CookieAttributes, CookieMode, CookiePersistence, InsertedCookie, SameSite, Stick, StickBy};
pub use rule::{
    Action, Destination, ForwardedFor, Forwarding, HeaderEdits, LimitKey, PrefixChange, RateLimit, RequestId, Rewrite,
    Rule,
};
pub use template::{Part, Template, TemplateError, Variable};

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// This node's name and where it is asked for its state.
    pub node: Node,
    /// What the balancer's process becomes.
    pub process: Process,
    /// What the balancer needs, and nothing else: it is sent to the unprivileged process.
    pub balancer: Balancer,
    /// Where the log goes.
    pub log_targets: Vec<LogTarget>,
    /// The virtual routers this node takes part in.
    pub virtual_routers: Vec<VirtualRouter>,
    /// The other keepers.
    pub peering: Option<Peering>,
    /// SHA-256 (hex) of everything that must be equal on both nodes.
    pub hash: String,
    /// RFC 3339: a file with a later time has been written since this was read from it. Empty if it was not read from a file.
    pub read_at: String,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Default: the host's name.
    pub name: String,
    /// Default: `/run/relevo/control.sock`.
    pub control_socket: PathBuf,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `None`: not written, the default user `relevo` if there is one.
    pub user: Option<String>,
    /// `None`: the user's own group.
    pub group: Option<String>,
    /// `None`: not written, the default `/var/lib/relevo` if it is there.
    pub chroot: Option<PathBuf>,
    /// For connections to finish when the node is told to stop.
    pub stop_timeout: Duration,
}

/// The default of `process.stop_timeout`.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// One of `log.target`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    /// Where it is.
    pub to: LogDestination,
    /// The least important lines that it gets. Requests are `info`.
    pub level: LogLevel,
    /// What syslog files them under.
    pub facility: Facility,
    /// What they are about.
    pub lines: LogLines,
}

/// Which lines a target gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLines {
    /// All.
    All,
    /// Those for requests.
    Requests,
    /// What the processes say of themselves.
    Processes,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogDestination {
    /// The standard output.
    Stdout,
    /// The standard error output.
    Stderr,
    /// systemd's journal, by its own protocol.
    Journald,
    /// The host's syslog daemon, at `/dev/log`.
    Syslog,
    /// A syslog daemon of the network.
    Udp(SocketAddr),
    /// Appended to.
    File(PathBuf),
}

/// As it was written.
impl fmt::Display for LogDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Journald => f.write_str("journald"),
            Self::Syslog => f.write_str("syslog (/dev/log)"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A syslog facility (RFC 5424 §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facility(u8);

impl Facility {
    /// The default.
    pub const DAEMON: Self = Self(3);
    /// By number.
    pub const NAMES: [&str; 24] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
        "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
    ];

    /// 0 to 23.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// By its name; the error is that there is none of that name.
impl std::str::FromStr for Facility {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::NAMES.iter().zip(0..).find(|(known, _)| **known == name).map(|(_, number)| Self(number)).ok_or(())
    }
}

/// `log.level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`: the line for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// HAProxy's line.
    HttpLog,
    /// A JSON object.
    Json,
    /// One of the user's, in HAProxy's language.
    Custom(LogFormat),
    /// None.
    Off,
}

/// `[peering]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peering {
    /// Where the other keepers reach this one.
    pub listen: SocketAddr,
    /// The file with the shared key.
    pub key_file: PathBuf,
    /// The other nodes by name.
    pub peers: BTreeMap<String, SocketAddr>,
}

/// All that the balancer's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Balancer {
    /// This node's name (for pages and logs).
    pub node: String,
    /// Worker threads.
    pub threads: usize,
    /// Client connections of the whole process.
    pub max_connections: usize,
    /// Connections to servers that wait for their next request, at most, of the whole process.
    pub idle_connections: usize,
    /// What began under a configuration may go on for so long after another has taken its place.
    pub hard_stop_after: Duration,
    /// The line for each request.
    pub access_log: AccessLog,
    /// In the order of the file.
    pub frontends: Vec<Frontend>,
    /// In the order of the file.
    pub backends: Vec<Backend>,
}

/// The default of `process.hard_stop_after`: as long as the default of `timeouts.tunnel`.
pub(super) const HARD_STOP_AFTER: Duration = Duration::from_secs(3600);

/// Descriptors beside those of connections, at the least: listeners, checks, logs, pipes of tunnels.
const OTHER_DESCRIPTORS: usize = 2048;
/// Of these, logs, pipes, and whatever is open for a moment.
const LOGS_AND_PIPES: usize = 768;

impl Balancer {
    /// So many files it has to be able to open: for each client its own connection, its server's, and one that waits in the pool.
    pub fn open_files(&self) -> u64 {
        (3 * self.max_connections + self.other_descriptors()) as u64
    }

    /// Makes do with that number of open files: a client has its own connection and its server's, and what is left, at least
    /// a sixteenth of all, is for connections that wait in the pool.
    pub fn limit_to(&mut self, open_files: u64) {
        let files = self.files_of_connections(open_files);
        let for_pool = files.min(usize::try_from(open_files / 16).unwrap_or(usize::MAX));
        self.max_connections = self.max_connections.min((files - for_pool) / 2).max(1);
        self.idle_connections = self.max_connections.min(files.saturating_sub(2 * self.max_connections));
    }

    /// The default of `process.max_connections`: 20,000, or as many as that number of open files is quite enough for.
    pub(super) fn default_connections(&self, open_files: u64) -> usize {
        (self.files_of_connections(open_files) / 3).clamp(1, 20_000)
    }

    /// What else is needed is kept back, but where there are few files no more than half of them.
    fn files_of_connections(&self, open_files: u64) -> usize {
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        open_files - self.other_descriptors().min(open_files / 2)
    }

    /// Each worker listens everywhere; each server may be checked and asked at the same moment.
    fn other_descriptors(&self) -> usize {
        let binds: usize = self.frontends.iter().map(|frontend| frontend.binds.len()).sum();
        let servers: usize = self.backends.iter().map(|backend| backend.servers.len()).sum();
        (LOGS_AND_PIPES + self.threads * binds + 2 * servers).max(OTHER_DESCRIPTORS)
    }
}

/// Where a frontend listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The wildcard, or an address (a virtual address is bound with IP_FREEBIND).
    pub address: SocketAddr,
}

/// HTTP or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Mode {
    Http,
    Tcp,
}

/// A backend's place in [`Balancer::backends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackendIndex(pub usize);

/// `[frontends.NAME]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Frontend {
    /// Unique among the frontends.
    pub name: String,
    /// At least one.
    pub binds: Vec<Bind>,
    /// HTTP or TCP.
    pub mode: Mode,
    /// In order, before routing.
    pub rules: Vec<Rule>,
    /// First match wins.
    pub routes: Vec<Route>,
    /// Where a request goes that no route matches; without one it is answered with 404 (TCP: closed).
    pub default_backend: Option<BackendIndex>,
    /// What the server is told of the client.
    pub forwarding: Option<Forwarding>,
    /// Whose word about the client is believed.
    pub trusted_proxies: Vec<Network>,
    /// Every request has one.
    pub request_id: Option<RequestId>,
    /// Client connections at once; those of the process are counted beside it.
    pub max_connections: Option<u32>,
    /// The same from one address, or from one /64 of IPv6.
    pub max_connections_per_source: Option<u32>,
    /// Its own, or the defaults of the file.
    pub timeouts: ClientTimeouts,
    /// What of its requests goes into the log.
    pub capture: Capture,
    /// Where it shows the statistics, if anywhere.
    pub statistics: Option<Statistics>,
    /// What becomes of connections after a response.
    pub connection: ConnectionMode,
    /// Of its clients' connections.
    pub tcp_keep_alive: Option<TcpKeepAlive>,
    /// Its own, and those of the file.
    pub errors: ErrorPages,
}

impl Frontend {
    /// Where its requests may go.
    pub fn backends(&self) -> impl Iterator<Item = BackendIndex> {
        self.routes.iter().map(|route| route.backend).chain(self.default_backend)
    }
}

/// `frontends.NAME.capture`: headers for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Names of the request's headers, lower case.
    pub request: Vec<String>,
    /// Names of the response's headers, lower case.
    pub response: Vec<String>,
    /// Bytes of a value; what is longer is cut.
    pub length: usize,
}

/// `[stats]`, or `frontends.NAME.stats`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Of the page: `/stats` has `/stats;csv` and `/stats/metrics` beside it, and `/` has `/;csv` and `/metrics`.
    pub path: String,
    /// What a browser says when it asks for the password.
    pub realm: String,
    /// Who may see them; empty: everybody.
    pub users: Vec<User>,
}

/// Somebody with a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique, without colon.
    pub name: String,
    /// As it was written.
    pub password: Password,
}

/// A password. It is not printed, not even by a debugger's format.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Password {
    /// Itself.
    Plain(String),
    /// Its hash, as crypt(3) makes it with SHA-256 (`$5$`) or SHA-512 (`$6$`).
    ShaCrypt(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// `[[frontends.NAME.routes]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Route {
    /// What is routed so.
    pub when: Condition,
    /// Where it goes.
    pub backend: BackendIndex,
}

/// The side of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTimeouts {
    /// Longest silence of the client while it should send or receive.
    pub client: Duration,
    /// For the whole head of a request, from its first byte (or the connection's start).
    pub http_request: Duration,
    /// For the next request to begin on a kept connection.
    pub http_keep_alive: Duration,
}

/// The side of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTimeouts {
    /// For a connection to be made.
    pub connect: Duration,
    /// Longest silence of the server while it should answer.
    pub server: Duration,
    /// For a server to become free.
    pub queue: Duration,
    /// Longest silence in both directions of a tunnel (WebSocket, TCP).
    pub tunnel: Duration,
}
