//! The peer links: how keepers see each other's state at once, and each other's death within milliseconds.
//!
//! Every keeper dials each peer, and the connection it dialled is how it watches that peer ([`watch`]); on the connections
//! it accepts it tells its own state ([`serve`]). So there are two connections between two nodes, and neither waits for
//! the other. Both are encrypted and authenticated with the key the nodes share ([`channel`]).

mod channel;
mod liveness;
mod message;
mod objection;
mod retry;
mod serve;
mod socket;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::message::Goodbye;
use self::watch::Excuse;
use crate::config::key::Key;
use crate::process::wishes::{StampedWish, Wishes};
use crate::status::{NodeStatus, PeerStatus};

/// Longest time a goodbye may take.
const FAREWELL: Duration = Duration::from_millis(5);

/// What the links need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// The others, by name.
    pub peers: BTreeMap<String, SocketAddr>,
    /// The same on every node.
    pub key: Key,
    /// Of everything that must be equal on both nodes.
    pub config_hash: String,
    /// This node's own address, which it dials from: that of `peering.listen`.
    pub source: IpAddr,
    /// The links' sockets sit here and above, higher than all others (design rule 1); the limit of open files must
    /// leave room for about a hundred more.
    pub first_descriptor: RawFd,
}

/// What happened to a peer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PeerEvent {
    /// Its keeper's process is gone.
    Gone {
        /// Its name.
        peer: String,
        /// What it last told; without virtual routers if it died before it told anything.
        last: Box<NodeStatus>,
    },
    /// It was active and let go.
    Released {
        /// Its name.
        peer: String,
        /// Of which virtual router.
        virtual_router_id: u8,
        /// The source address of its adverts.
        own_address: Option<Ipv4Addr>,
        /// In words.
        reason: String,
    },
    /// It knows what people want of servers.
    Wishes(Vec<StampedWish>),
    /// Its balancer tells ours of sessions.
    Sessions(String),
}

/// What the peers are told.
pub struct Local {
    /// The state of this node.
    pub status: tokio::sync::watch::Receiver<Arc<NodeStatus>>,
    /// What people want of servers.
    pub(super) wishes: tokio::sync::watch::Receiver<Arc<Wishes>>,
    /// Sessions, as our balancer tells them. A link that is too slow for them leaves some out.
    pub sessions: broadcast::Sender<Arc<str>>,
}

/// Batches of sessions that wait for a slow link.
const SESSION_BATCHES: usize = 8;

/// What goes into [`Local::sessions`].
pub(super) fn sessions() -> broadcast::Sender<Arc<str>> {
    broadcast::Sender::new(SESSION_BATCHES)
}

/// The running links; dropped, they close without a goodbye.
pub struct Peering {
    identity: Arc<Identity>,
    peers: Arc<tokio::sync::watch::Sender<Vec<PeerStatus>>>,
    /// Kept so that `events` never ends.
    _sender: mpsc::Sender<PeerEvent>,
    events: mpsc::Receiver<PeerEvent>,
    farewell: tokio::sync::watch::Sender<Option<Goodbye>>,
    _tasks: JoinSet<()>,
}

/// Starts the links on the current runtime.
///
/// # Errors
/// When the runtime cannot take the listener.
pub fn start(settings: Settings, listener: std::net::TcpListener, local: Local) -> io::Result<Peering> {
    let identity = Arc::new(Identity::new(&settings));
    let peers = settings.peers.keys().map(|name| never_linked(name)).collect();
    let peers = Arc::new(tokio::sync::watch::Sender::new(peers));
    let (sender, events) = mpsc::channel(64);
    let (farewell, farewell_receiver) = tokio::sync::watch::channel(None);
    let listener = socket::listener(listener, identity.first_descriptor)?;

    let mut tasks = JoinSet::new();
    tasks.spawn(serve::Serve { identity: identity.clone(), local, farewell: farewell_receiver }.run(listener));
    for (index, (name, address)) in settings.peers.into_iter().enumerate() {
        let (identity, peers, events) = (identity.clone(), peers.clone(), sender.clone());
        let excuse = Excuse::Starts(Instant::now() + watch::START);
        let (was_linked, logged) = (false, Vec::new());
        tasks.spawn(watch::Watch { identity, name, address, index, peers, events, excuse, was_linked, logged }.run());
    }
    Ok(Peering { identity, peers, _sender: sender, events, farewell, _tasks: tasks })
}

impl Peering {
    /// The peers' states, in the order of their names.
    pub fn peers(&self) -> tokio::sync::watch::Receiver<Vec<PeerStatus>> {
        self.peers.subscribe()
    }

    /// This node runs another configuration from now on.
    pub fn set_config_hash(&self, hash: &str) {
        hash.clone_into(&mut self.identity.config_hash.lock().unwrap_or_else(PoisonError::into_inner));
        self.peers.send_modify(|peers| {
            for peer in peers.iter_mut().filter(|peer| peer.connected) {
                peer.config_matches = peer.status.config_hash == hash;
            }
        });
    }

    /// This node has taken over: of a peer that was active nothing is known until it speaks again.
    pub(super) fn took_over(&self) {
        self.peers.send_if_modified(|peers| {
            let mut doubted = false;
            for peer in peers.iter_mut().filter(|peer| peer.connected && liveness::is_active(&peer.status)) {
                doubted |= !std::mem::replace(&mut peer.outdated, true);
                peer.status.can_take_over = false;
                "it has said nothing since this node took over".clone_into(&mut peer.status.cannot_take_over_because);
            }
            doubted
        });
    }

    /// The next thing that happens to a peer. Cancel safe.
    pub(super) async fn next_event(&mut self) -> PeerEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Accepts no more, tells every peer the latest state, `reason` and whether somebody asked for it, and closes its link: they
    /// then see no death. Takes 5 ms at most: who does not listen now will notice.
    pub async fn goodbye(&self, reason: &str, is_planned: bool) {
        self.farewell.send_replace(Some(Goodbye { reason: reason.to_owned(), is_planned }));
        let _ = timeout(FAREWELL, self.farewell.closed()).await;
    }
}

/// This process as its peers know it.
struct Identity {
    node: String,
    instance: String,
    /// A reload changes it.
    config_hash: Mutex<String>,
    key: Key,
    source: IpAddr,
    first_descriptor: RawFd,
    /// By name, where they are.
    peers: BTreeMap<String, IpAddr>,
}

impl Identity {
    fn new(settings: &Settings) -> Identity {
        let random = RandomState::new();
        Identity {
            node: settings.node.clone(),
            instance: format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1)),
            config_hash: Mutex::new(settings.config_hash.clone()),
            key: settings.key.clone(),
            source: settings.source,
            first_descriptor: settings.first_descriptor,
            peers: settings.peers.iter().map(|(name, address)| (name.clone(), address.ip())).collect(),
        }
    }

    fn hello(&self) -> message::Hello {
        message::Hello {
            protocol: message::PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            instance: self.instance.clone(),
            config_hash: self.config_hash(),
        }
    }

    /// Is the peer of this name at the first of these addresses, as far as is known here, and not at the second?
    fn expects(&self, name: &str, first: IpAddr, second: IpAddr) -> bool {
        self.peers.get(name).is_some_and(|configured| *configured == first && *configured != second)
    }

    fn config_hash(&self) -> String {
        self.config_hash.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn never_linked(name: &str) -> PeerStatus {
    let mut peer = PeerStatus { name: name.to_owned(), ..PeerStatus::default() };
    peer.status.node = name.to_owned();
    watch::lost(&mut peer, "it was not reached yet");
    peer
}
