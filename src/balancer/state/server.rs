//! A server's part of what the threads share.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::facts::{AgentReport, Facts, Health};
use crate::balancer::balance::plan::{Standing, WHOLE};
use crate::balancer::health::Progress;
use crate::balancer::queue::Slots;
use crate::config::model::{self, ServerAddress};
use crate::stats::checks::Checks;
use crate::status::{ServerState, ServerStatus};

/// A server's part.
#[repr(align(128))]
pub struct ServerShared {
    /// A [`ServerState`] as a number. Read it with [`ServerShared::state`]; it follows from the facts.
    pub(super) state: AtomicU8,
    /// So does this. How much of it slow start lets the server have is in `tenths`.
    pub(super) weight: AtomicU32,
    pub(super) tenths: AtomicU32,
    /// Errors of the traffic in a row, where they are counted.
    pub errors: AtomicU32,
    /// Requests or TCP connections under way.
    pub connections: Slots,
    /// How many there may be, by the newest configuration.
    pub(super) most: AtomicU64,
    /// Since the start.
    pub requests: AtomicU64,
    /// The last round of checks that it has been checked in.
    pub checked: AtomicU64,
    /// Where it is; `None` while its name does not resolve.
    pub address: ArcSwapOption<SocketAddr>,
    /// Told when `address` changed: whoever checks the server does so at once.
    pub address_changed: Notify,
    /// Told when its traffic took it down: the next check is at the fast interval.
    pub marked_down: Notify,
    /// Told when people end its maintenance.
    pub(super) returned: Notify,
    /// What its checks found and how long it was down. Never locked on a request's way, and nor are the two below; all of them
    /// are elsewhere, so that the rest stays on one line.
    pub checks: Checks,
    /// How far its checks have come: whoever checks it next goes on from there.
    pub(super) progress: Box<Mutex<Progress>>,
    /// What is known of it.
    pub(super) facts: Box<Mutex<Facts>>,
}

impl ServerShared {
    pub(super) fn new(config: &model::Server) -> Self {
        let (health, reason) = match (&config.address, config.check) {
            (ServerAddress::Name { .. }, _) => (Health::Starting, "its name is being resolved"),
            (ServerAddress::Socket(_), true) => (Health::Starting, "not checked yet"),
            (ServerAddress::Socket(_), false) => (Health::Up, NOT_CHECKED),
        };
        let facts = Facts::new(health, reason, config.weight);
        let address = match &config.address {
            ServerAddress::Socket(address) => Some(Arc::new(*address)),
            ServerAddress::Name { .. } => None,
        };
        Self {
            state: AtomicU8::new(facts.state() as u8),
            weight: AtomicU32::new(facts.weight()),
            tenths: AtomicU32::new(WHOLE),
            errors: AtomicU32::new(0),
            connections: Slots::default(),
            most: AtomicU64::new(most(config)),
            requests: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            address: ArcSwapOption::new(address),
            address_changed: Notify::new(),
            marked_down: Notify::new(),
            returned: Notify::new(),
            checks: Checks::new(facts.state(), Instant::now()),
            progress: Box::default(),
            facts: Box::new(Mutex::new(facts)),
        }
    }

    /// Does it get traffic? A drained server (weight 0) is up, and gets only what a cookie brings.
    pub fn state(&self) -> ServerState {
        STATES.into_iter().find(|state| *state as u8 == self.state.load(Acquire)).unwrap_or_default()
    }

    /// How many requests or TCP connections there may be at once.
    pub fn most(&self) -> u64 {
        self.most.load(Relaxed)
    }

    /// Does it serve the sessions that are at it?
    pub fn keeps_sessions(&self) -> bool {
        matches!(self.state(), ServerState::Up | ServerState::Drain)
    }

    /// Its weight now; 0: it gets only what a session brings.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// How much of it slow start lets it have, 1 to [`WHOLE`].
    pub fn tenths(&self) -> u32 {
        self.tenths.load(Relaxed)
    }

    /// What checks, the resolver and the traffic say, whatever its agent or an operator wants.
    pub fn health(&self) -> Health {
        self.facts().health
    }

    /// The same, but for one that is unproven here and that others know as up: one failure is not enough to contradict them.
    pub fn presumed_health(&self) -> Health {
        let facts = self.facts();
        match facts.hearsay {
            Some((Health::Up, _)) if facts.health == Health::Starting => Health::Up,
            _ => facts.health,
        }
    }

    /// Is it its agent, and that alone, that ends new sessions?
    pub fn is_out_by_agent(&self) -> bool {
        self.facts().are_out_by_agent()
    }

    /// What its agent said last.
    pub fn agent(&self) -> AgentReport {
        self.facts().agent.clone()
    }

    /// Does its agent call it down?
    pub fn is_down_to_agent(&self) -> bool {
        self.facts().agent.down.is_some()
    }

    /// How far its checks have come.
    pub fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They have come further.
    pub fn set_progress(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { state: self.state(), weight: self.weight(), tenths: self.tenths() }
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::balancer) fn report(&self, config: &model::Server) -> ServerStatus {
        let address = match (&config.address, self.address.load_full()) {
            (_, Some(address)) => address.to_string(),
            (address, None) => address.to_string(),
        };
        let state = match self.state() {
            ServerState::Up if self.weight() == 0 => ServerState::Drain,
            state => state,
        };
        let facts = self.facts();
        ServerStatus {
            name: config.name.clone(),
            address,
            backup: config.backup,
            state,
            reason: ServerStatus::reason_from(&facts.reason()),
            admin: facts.operator,
            weight: self.weight(),
            configured_weight: config.weight,
            connections: self.connections.count(),
            max_connections: config.max_connections,
            queue: 0,
            requests: self.requests.load(Relaxed),
        }
    }
}

/// A server's limit; where it has none there is no such number.
pub(super) fn most(config: &model::Server) -> u64 {
    config.max_connections.map_or(u64::MAX, u64::from)
}

/// The reason of a server without checks.
pub const NOT_CHECKED: &str = "not checked";

const STATES: [ServerState; 5] =
    [ServerState::Starting, ServerState::Up, ServerState::Down, ServerState::Drain, ServerState::Maintenance];
