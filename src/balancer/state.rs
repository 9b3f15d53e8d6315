//! What the threads of the balancer share: atomics, one cache line each for a server and a backend.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::config::model;

/// Shared by the control thread and all workers.
pub struct Shared {
    /// Valid, and the same for the life of the process.
    pub config: model::Balancer,
    /// Client connections open now.
    pub connections: AtomicU64,
    /// Requests (TCP mode: connections) since the start.
    pub requests: AtomicU64,
    /// By index of the frontend.
    pub frontends: Vec<FrontendState>,
    /// By index of the backend.
    pub backends: Vec<BackendState>,
    /// By index of the worker: milliseconds since the start when it last went round its loop.
    pub beats: Vec<Beat>,
    /// Virtual addresses this node holds now (rule 7).
    pub held: ArcSwap<Vec<IpAddr>>,
}

/// A worker's sign of life.
#[repr(align(128))]
#[derive(Default)]
pub struct Beat(pub AtomicU64);

/// Counters of a frontend.
#[repr(align(128))]
#[derive(Default)]
pub struct FrontendState {
    /// Client connections open now.
    pub connections: AtomicU64,
}

/// A backend's part.
#[repr(align(128))]
pub struct BackendState {
    /// The next turn of round robin, taken by all workers.
    pub turn: AtomicU64,
    /// Grows whenever a server of this backend goes up or down: what workers derived from the states is then stale.
    pub generation: AtomicU64,
    /// Requests or TCP connections under way.
    pub connections: AtomicU64,
    /// By index of the server.
    pub servers: Vec<ServerShared>,
}

/// A server's part.
#[repr(align(128))]
pub struct ServerShared {
    /// A [`crate::status::ServerState`] as a number.
    pub state: AtomicU8,
    /// Requests or TCP connections under way.
    pub connections: AtomicU64,
    /// Since the start.
    pub requests: AtomicU64,
    /// Where it is; `None` while its name does not resolve.
    pub address: ArcSwapOption<SocketAddr>,
    /// The last check's result, in words. Never locked on a request's way.
    pub reason: Mutex<Arc<str>>,
}
