//! A worker's connections to servers: those that wait for their next request, and what one of them is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use crate::balancer::clock::Millis;
use crate::balancer::connect::{Connected, Way};
use crate::balancer::http::upstream::Connection;
use crate::balancer::state::Shared;
use crate::config::model::{BackendIndex, ConnectionMode, Reuse};

/// Servers close a connection that was idle for 5 s and more (nginx 75 s, Apache and Node.js 5 s): ours goes before.
const IDLE: Duration = Duration::from_secs(4);

/// What becomes of a connection to a server that has done its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is closed.
    No,
    /// It waits for its client's next request.
    ForClient,
    /// It waits for whoever comes.
    ForAll,
    /// Its server takes whatever comes on it for its client's: it waits for that one's next request, as long as there is one.
    Bound,
}

impl Keep {
    /// As it is configured.
    pub fn new(mode: ConnectionMode, reuse: Reuse) -> Self {
        match (mode, reuse) {
            (ConnectionMode::ServerClose | ConnectionMode::Close, _) => Self::No,
            (ConnectionMode::KeepAlive, Reuse::Never) => Self::ForClient,
            (ConnectionMode::KeepAlive, Reuse::Safe | Reuse::Always) => Self::ForAll,
        }
    }

    /// The same where nobody else may come.
    #[must_use]
    pub fn bound(self) -> Self {
        if self == Self::No { Self::No } else { Self::Bound }
    }
}

/// A connection to a server, and which one it is.
pub struct Upstream {
    /// The connection.
    pub connection: Connection,
    way: Way,
    backend: BackendIndex,
    server: usize,
    idle_since: Millis,
    is_reused: bool,
    /// What becomes of it.
    pub keep: Keep,
}

impl Upstream {
    /// On a new connection.
    pub fn new(connected: Connected, backend: BackendIndex, server: usize, keep: Keep) -> Box<Self> {
        let Connected { stream, way } = connected;
        let connection = Connection::new(stream);
        Box::new(Self { connection, way, backend, server, idle_since: 0, is_reused: false, keep })
    }

    /// Belongs to its server's place in another configuration from now on, if the server is there.
    pub fn moves(&mut self, from: &Shared, to: &Shared) -> bool {
        let place = to.place_of(from, self.backend, self.server);
        if let Some(place) = place {
            (self.backend, self.server) = place;
        }
        place.is_some()
    }

    /// The server that it leads to.
    pub fn place(&self) -> (BackendIndex, usize) {
        (self.backend, self.server)
    }

    /// Has it served a request before?
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Frees what it needs only while it serves; `None`: it cannot serve again.
    pub fn resting(mut self: Box<Self>, now: Millis) -> Option<Box<Self>> {
        self.idle_since = now;
        self.connection.rest().then_some(self)
    }

    /// It serves again, if it leads where a new one would.
    pub fn waking(mut self: Box<Self>, shared: &Shared, now: Millis) -> Option<Box<Self>> {
        let leads_there = Way::to(shared, self.backend, self.server) == Some(self.way);
        let may_serve = leads_there && !is_stale(&self, now) && self.connection.is_quiet();
        self.is_reused = true;
        may_serve.then_some(self)
    }
}

/// The connections that wait, by backend and server, the last that came first.
pub struct Pool {
    idle: RefCell<Vec<Vec<VecDeque<Box<Upstream>>>>>,
    /// How many there are in all.
    waiting: Cell<usize>,
    most: usize,
}

impl Pool {
    /// An empty one that keeps at most so many, whichever servers they lead to: descriptors are counted on that.
    pub fn new(shared: &Shared, most: usize) -> Self {
        let of_backend = |servers: usize| (0..servers).map(|_| VecDeque::new()).collect();
        let idle = shared.config.backends.iter().map(|backend| of_backend(backend.servers.len())).collect();
        Self { idle: RefCell::new(idle), waiting: Cell::new(0), most }
    }

    /// A connection to this server that still leads where a new one would.
    pub fn take(&self, shared: &Shared, backend: BackendIndex, server: usize, now: Millis) -> Option<Box<Upstream>> {
        let mut idle = self.idle.borrow_mut();
        let connections = &mut idle[backend.0][server];
        let way = if connections.is_empty() { None } else { Way::to(shared, backend, server) };
        while let Some(mut upstream) = connections.pop_back() {
            self.waiting.update(|waiting| waiting - 1);
            if Some(upstream.way) == way && !is_stale(&upstream, now) && upstream.connection.is_quiet() {
                upstream.is_reused = true;
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection that has done its work, if it can serve again.
    pub fn put(&self, upstream: Box<Upstream>, now: Millis) {
        let Some(upstream) = upstream.resting(now) else { return };
        let mut idle = self.idle.borrow_mut();
        let connections = &mut idle[upstream.backend.0][upstream.server];
        if self.waiting.get() < self.most {
            self.waiting.update(|waiting| waiting + 1);
        } else if connections.pop_front().is_none() {
            return;
        }
        connections.push_back(upstream);
    }

    /// All that wait; none does any more.
    pub fn drain(&self) -> Vec<Box<Upstream>> {
        self.waiting.set(0);
        self.idle.borrow_mut().iter_mut().flatten().flat_map(std::mem::take).collect()
    }

    /// One that has waited in another pool for its next request, in its order.
    pub fn take_over(&self, upstream: Box<Upstream>) {
        self.waiting.update(|waiting| waiting + 1);
        self.idle.borrow_mut()[upstream.backend.0][upstream.server].push_back(upstream);
    }

    /// Closes those that have waited too long and those that their servers have closed. Called every second or so.
    pub fn sweep(&self, now: Millis) {
        let mut waiting = 0;
        for connections in self.idle.borrow_mut().iter_mut().flatten() {
            connections.retain(|upstream| !is_stale(upstream, now) && upstream.connection.is_quiet());
            waiting += connections.len();
        }
        self.waiting.set(waiting);
    }
}

/// A client that is known by its connection would have to say again who it is: only its server ends that.
fn is_stale(upstream: &Upstream, now: Millis) -> bool {
    upstream.keep != Keep::Bound && now.saturating_sub(upstream.idle_since) >= IDLE.as_millis() as Millis
}
