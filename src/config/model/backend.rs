//! `[backends.NAME]`: servers, how one of them is chosen, how they are checked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConnectionMode, CookiePersistence, ErrorPages, Retry, Reuse, ServerTimeouts, Stick, TcpKeepAlive};

/// `[backends.NAME]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backend {
    /// Unique among the backends.
    pub name: String,
    /// Which server is next.
    pub balance: Balance,
    /// Sessions kept by a cookie.
    pub cookie: Option<CookiePersistence>,
    /// Sessions kept by a table.
    pub stick: Option<Stick>,
    /// How long a server that was down takes to have its whole weight again.
    pub slow_start: Option<Duration>,
    /// Where only backup servers are up, all of them serve, not the first alone.
    pub all_backups: bool,
    /// What becomes of a request when no server is up.
    pub when_all_down: WhenAllDown,
    /// How its servers are checked (those with `check = true`).
    pub health: HealthCheck,
    /// What its servers say of themselves.
    pub agent: Option<Agent>,
    /// Further attempts after a failure.
    pub retries: u32,
    /// A retry goes to another server; a session whose server is down goes to another.
    pub redispatch: bool,
    /// Requests that wait for any server at once.
    pub max_queue: Option<u32>,
    /// Which failures that is for.
    pub retry: Retry,
    /// Which requests share connections to servers.
    pub reuse: Reuse,
    /// What becomes of connections after a response.
    pub connection: ConnectionMode,
    /// Before those of the frontend.
    pub errors: ErrorPages,
    /// Its own, or the defaults of the file.
    pub timeouts: ServerTimeouts,
    /// Of its servers' connections.
    pub tcp_keep_alive: Option<TcpKeepAlive>,
    /// At least one.
    pub servers: Vec<Server>,
}

/// `balance`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth, weighted, the turn shared by all workers.
    RoundRobin,
    /// The same by the configured weights alone, whatever weight a server has been given since.
    StaticRoundRobin,
    /// The fewest connections in proportion to the weight.
    LeastConnections,
    /// The first that is up, in the order of the file.
    First,
    /// The least loaded of some that are drawn by weight.
    Random {
        /// How many are drawn, at least one.
        draws: u32,
    },
    /// The one that a request's key belongs to; a request without a key is a round robin's.
    Hash {
        /// What the key is.
        key: HashKey,
        /// How keys belong to servers.
        method: HashMethod,
    },
}

impl Balance {
    /// Does a server that slow start raises get less meanwhile?
    pub fn heeds_slow_start(&self) -> bool {
        match self {
            Self::RoundRobin | Self::LeastConnections | Self::Random { .. } => true,
            Self::StaticRoundRobin | Self::First => false,
            Self::Hash { method, .. } => *method == HashMethod::Consistent,
        }
    }
}

/// What of a request decides about its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The client's address.
    Source,
    /// The path.
    Uri {
        /// With the query.
        whole: bool,
        /// Only so many bytes from its beginning.
        length: Option<u32>,
        /// Only so many directories from its beginning.
        depth: Option<u32>,
    },
    /// This header's first value. The name is in lower case.
    Header(String),
    /// The value of this parameter of the query.
    Parameter(String),
}

/// `balance.hash`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashMethod {
    /// Exactly by weight; nearly every key moves when a server comes or goes.
    MapBased,
    /// About by weight; when a server goes only its own keys move.
    Consistent,
}

/// `when_all_down`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenAllDown {
    /// 503 at once; in mode `"tcp"` the connection is closed.
    Reject,
    /// The checks may be wrong: each server that nobody has taken out is tried.
    TryAll,
}

/// `health`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Where, if not at the server's own port.
    pub port: Option<u16>,
    /// Between two checks.
    pub interval: Duration,
    /// The same while a change of state is under way.
    pub fast_interval: Duration,
    /// The same while the server is down.
    pub down_interval: Duration,
    /// By how many percent an interval is sooner or later at random.
    pub spread: u32,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Successes until a server that was down is up. A server that starts is unproven and needs one.
    pub rise: u32,
    /// Failures until a server that was up is down.
    pub fall: u32,
    /// Which errors of the traffic itself are counted.
    pub observe: Observe,
    /// So many of them in a row take a server down.
    pub error_limit: u32,
    /// A connection that is refused takes a server down at once.
    pub refused_marks_down: bool,
}

impl HealthCheck {
    /// Can what becomes of the traffic take a server down?
    pub fn heeds_traffic(&self) -> bool {
        self.refused_marks_down || self.observe != Observe::Off
    }

    /// A connection every so often, all else as it is where nothing is written.
    pub fn every(interval: Duration) -> Self {
        Self {
            probe: Probe::Tcp,
            port: None,
            interval,
            fast_interval: (interval / 4).min(Duration::from_secs(1)),
            down_interval: interval,
            spread: 3,
            timeout: interval,
            rise: 2,
            fall: 3,
            observe: Observe::Off,
            error_limit: 10,
            refused_marks_down: false,
        }
    }
}

/// `health.observe`: what of the traffic itself speaks against a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observe {
    /// Nothing.
    Off,
    /// Connections that fail.
    Layer4,
    /// These, answers that do not come, and answers that tell of an error of the server.
    Layer7,
}

/// `agent`: each server is asked at this port how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// TCP port.
    pub port: u16,
    /// Between two questions; an answer may take as long.
    pub interval: Duration,
    /// Sent before the answer is read.
    pub send: String,
}

/// What a check asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// That a connection is accepted.
    Tcp,
    /// That a request is answered as expected.
    Http {
        /// `HEAD`, `GET`, `OPTIONS` …
        method: String,
        /// With its query.
        path: String,
        /// The Host header; default: the server's address as it was written.
        host: Option<String>,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// Inclusive ranges of statuses.
        expect: Vec<(u16, u16)>,
        /// A text in the body.
        expect_body: Option<String>,
    },
}

/// `[[backends.NAME.servers]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Unique in its backend.
    pub name: String,
    /// Where it is.
    pub address: ServerAddress,
    /// 0–256; 0: no new sessions, only those that a cookie brings.
    pub weight: u32,
    /// Requests (TCP mode: connections) under way at once.
    pub max_connections: Option<u32>,
    /// Requests that wait for this server alone at once.
    pub max_queue: Option<u32>,
    /// Its value in the persistence cookie; default: its name.
    pub cookie: String,
    /// It serves only where no other is up.
    pub backup: bool,
    /// Checked; without checks it is always up.
    pub check: bool,
    /// Where checks go, if not to its own address.
    pub check_address: Option<IpAddr>,
    /// The same of its port, before that of `health`.
    pub check_port: Option<u16>,
    /// The address that connections come from. Where it is a virtual address, checks use the node's own and traffic uses
    /// it only while the node is active (rule 7).
    pub source: Option<IpAddr>,
    /// Whether `source` is one of the node's virtual addresses.
    pub source_is_virtual: bool,
}

/// An address, or a name to be resolved again as its time to live runs out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerAddress {
    /// An IPv4 or IPv6 address.
    Socket(SocketAddr),
    /// A host name.
    Name {
        /// As written.
        host: String,
        /// TCP port.
        port: u16,
    },
}

/// As it was written.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}
