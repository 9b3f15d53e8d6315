//! The state of a node and its peers as `relevo status --json` prints it and as keepers tell it each other.
//!
//! Fields may be added, none renamed: scripts read them, and a peer one version apart does too (unknown fields are
//! ignored, absent ones have a default).

mod rivalry;

use serde::{Deserialize, Serialize};

pub use self::rivalry::{Rivalry, rivalries};
use crate::wish::Admin;

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// Relevo's version.
    pub version: String,
    /// Since the keeper started.
    pub uptime_s: f64,
    /// When the configuration it follows was read, RFC 3339; what was written to the file since is not in force.
    pub configured: String,
    /// Of everything that must be equal on both nodes.
    pub config_hash: String,
    /// Its virtual routers.
    pub vrrp: Vec<relevo_ha::RouterStatus>,
    /// Its balancer.
    pub balancer: BalancerStatus,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
    /// What does not work because this host lacks an address of its configuration, in a sentence each.
    pub foreign_addresses: Vec<String>,
    /// What of the file on disk is not what runs, in a sentence: the next start would do what it says.
    pub file_differs: Option<String>,
    /// Could it take over now? Its own view: it serves, its links are up.
    pub can_take_over: bool,
    /// Why not; empty if it can.
    pub cannot_take_over_because: String,
}

/// What `relevo status` shows: this node and, beside it, every peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PairStatus {
    /// The node that was asked.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// The others.
    pub peers: Vec<PeerStatus>,
}

/// A peer as this node knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// Its name in our configuration.
    pub name: String,
    /// Is the peer link up?
    pub connected: bool,
    /// The last failure of the link; empty if it is up.
    pub link_error: String,
    /// Its keeper has ended: it said goodbye, or its link ended and nothing listens there since. Where none was ever met this is
    /// false, since its address may be wrong.
    pub gone: bool,
    /// Why it stopped, if it said so when it was last heard; empty while the link is up.
    pub goodbye: String,
    /// It was active when it last told its state, and this node has taken over since.
    pub outdated: bool,
    /// Do both run the same configuration?
    pub config_matches: bool,
    /// What it last told, `can_take_over` turned false where the link is down.
    #[serde(flatten)]
    pub status: NodeStatus,
}

/// The process that carries traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalancerStatus {
    /// What it is doing.
    pub state: BalancerState,
    /// Of the process; 0 if there is none.
    pub pid: u32,
    /// Client connections open now.
    pub connections: u64,
    /// Requests (TCP mode: connections) since it started.
    pub requests: u64,
    /// What goes on under configurations that were since reloaded.
    pub old_configurations: OldConfigurations,
}

/// Configurations that another has taken the place of, and that something still goes on under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OldConfigurations {
    /// How many there are.
    pub count: usize,
    /// Seconds since the oldest of them was replaced; 0 where there is none.
    pub oldest_s: f64,
}

/// `balancer.state`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BalancerState {
    /// Started, not yet serving.
    #[default]
    Starting,
    /// Accepting connections.
    Serving,
    /// Died or was ended; a new one starts at once or after a pause.
    Down,
}

impl std::fmt::Display for BalancerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BalancerState::Starting => "starting",
            BalancerState::Serving => "serving",
            BalancerState::Down => "down",
        })
    }
}

/// A backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Requests that wait for any of its servers.
    pub queue: u64,
    /// Sessions in its stick table, expired ones too.
    pub sessions: u64,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// A server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// As written, or as resolved.
    pub address: String,
    /// Does it serve only while no other server does?
    pub backup: bool,
    /// Does it get traffic?
    pub state: ServerState,
    /// Why it is in this state: the last check's result, in words.
    pub reason: String,
    /// What people want of it.
    pub admin: Admin,
    /// As configured, or as people or its agent have changed it.
    pub weight: u32,
    /// As configured.
    pub configured_weight: u32,
    /// Open now.
    pub connections: u64,
    /// How many there may be.
    pub max_connections: Option<u32>,
    /// Requests that wait for this server alone.
    pub queue: u64,
    /// Since the balancer started.
    pub requests: u64,
}

impl ServerStatus {
    /// Longest address and longest reason, in characters.
    pub const LONGEST_TEXT: usize = 500;

    /// One line for [`ServerStatus::reason`], whatever a resolver or a long list of expected statuses made of it.
    pub fn reason_from(text: &str) -> String {
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        plain.take(Self::LONGEST_TEXT).collect()
    }
}

/// `servers.state`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "HAProxy's words")]
pub enum ServerState {
    #[default]
    Starting,
    Up,
    Down,
    Drain,
    Maintenance,
}

impl ServerState {
    /// What a server is, in a sentence.
    pub fn in_a_sentence(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drained",
            Self::Maintenance => "in maintenance",
        }
    }
}
