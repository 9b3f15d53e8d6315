//! What the threads of the balancer share: atomics, one cache line each for a server and a backend. What each worker counts
//! by itself is here as well, so that the statistics find it.

mod changes;
mod facts;
mod lasting;
mod server;
mod succession;
mod wishes;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::balancer::balance::plan::{self, Plan, Standing};
use crate::balancer::persistence::StickTable;
use crate::balancer::persistence::table::Table;
use crate::balancer::queue::{Lengths, Queue, Servers, Slots};
use crate::balancer::retry_budget::RetryBudget;
use crate::balancer::room::{Room, Sources};
use crate::balancer::rules::{self, rate_limit::RateLimiter};
use crate::config::model::{self, BackendIndex, Origins};
use crate::stats::checks::Checks;
use crate::stats::counters::Counters;
use crate::status::{BackendStatus, ServerState, ServerStatus};

pub use crate::wish::Admin;
pub use facts::{AgentReport, Health};
pub use lasting::{Lasting, Statistics, Vitals};
pub use server::{NOT_CHECKED, ServerShared};

/// One configuration and the state of what is in it, shared by the control thread and all workers.
///
/// A reload makes another one, which has the same [`ServerShared`] for each server that stays, counters and counts of
/// connections for everything that keeps its name, and what has nothing to do with a configuration ([`Lasting`], which it
/// derefs to). What began under the old one ends under it, and the last that does lets go of it.
pub struct Shared {
    /// Valid, and always the same.
    pub config: model::Balancer,
    /// By index of the frontend.
    pub frontends: Vec<FrontendState>,
    /// By index of the backend.
    pub backends: Vec<BackendState>,
    /// By index of the worker: what it counts.
    pub counters: Vec<Counters>,
    /// Are the statistics shown anywhere?
    pub shows_statistics: bool,
    lasting: Arc<Lasting>,
}

impl Deref for Shared {
    type Target = Lasting;

    fn deref(&self) -> &Lasting {
        &self.lasting
    }
}

/// A number that many threads change, on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
pub struct Count(AtomicU64);

impl Deref for Count {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        &self.0
    }
}

/// A frontend's part.
pub struct FrontendState {
    /// Client connections open now, and how many there may be.
    pub connections: Arc<Room>,
    /// By where they come from, if there is a limit to that.
    pub sources: Option<Arc<Sources>>,
    /// By index of the rule: its limit, if it is one.
    pub rate_limits: Box<[Option<Arc<RateLimiter>>]>,
}

/// A backend's part.
#[repr(align(128))]
pub struct BackendState {
    /// The next turn, taken by all workers.
    pub turn: AtomicU64,
    /// The next turn among retries, which are no turns of their own.
    pub retry_turn: AtomicU64,
    /// Grows whenever a server's state or weight changes: what workers derived from them is then stale.
    pub generation: AtomicU64,
    /// Requests or TCP connections under way.
    pub connections: Arc<Count>,
    /// Who waits for servers; `None`: none of them has a limit.
    pub queue: Option<Box<Queue>>,
    /// What servers are chosen by, for their states and weights at this generation.
    pub plan: ArcSwap<Plan>,
    /// It was said that it has no server left.
    is_empty: AtomicBool,
    /// Told when a server is up again that was not: slow start then has something to do.
    pub came_back: Notify,
    /// Sessions by what they are known by, where they are kept so.
    pub stick: Option<StickTable>,
    /// When it lost its last server, and got one again.
    pub checks: Arc<Checks>,
    /// Where requests are sent again.
    pub retry_budget: Option<Box<RetryBudget>>,
    /// By index of the server.
    pub servers: Vec<Arc<ServerShared>>,
    lasting: Arc<Lasting>,
}

/// One server: what is configured and what is so.
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Place<'a> {
    pub backend: &'a model::Backend,
    pub server: &'a model::Server,
    pub backend_state: &'a BackendState,
    pub state: &'a ServerShared,
}

impl Shared {
    /// Everything at its beginning: servers that are checked, or whose names are yet to be resolved, are `starting`; the
    /// others are up.
    pub fn new(config: model::Balancer) -> Arc<Self> {
        let (origins, lasting) = (Origins::none(&config), Arc::new(Lasting::new(config.threads)));
        let frontends = config.frontends.iter().map(FrontendState::new).collect();
        let backends = config.backends.iter().map(|backend| BackendState::new(backend, &lasting)).collect();
        let counters = (0..config.threads).map(|_| Counters::new(&origins, None)).collect();
        Self::begin(config, frontends, backends, counters, lasting)
    }

    fn begin(
        config: model::Balancer,
        frontends: Vec<FrontendState>,
        backends: Vec<BackendState>,
        counters: Vec<Counters>,
        lasting: Arc<Lasting>,
    ) -> Arc<Self> {
        let shows_statistics = config.frontends.iter().any(|frontend| frontend.statistics.is_some());
        let shared = Arc::new(Self { config, frontends, backends, counters, shows_statistics, lasting });
        shared.lasting.connections.set_most(Some(shared.config.max_connections as u64));
        shared.lasting.begins(&shared);
        // Whoever has changed a server meanwhile did not know that it is one of these.
        shared.config.backends.iter().zip(&shared.backends).for_each(|(config, state)| state.replan(config));
        // Whoever waits under an old configuration may have the room that this one gives.
        for configuration in shared.lasting.live() {
            for state in &configuration.backends {
                state.queue.iter().for_each(|queue| queue.reconsider(state));
            }
        }
        shared
    }

    /// All about one server; `None` if there is no such server.
    pub fn server(&self, backend: BackendIndex, server: usize) -> Option<Place<'_>> {
        let (backend, backend_state) = (self.config.backends.get(backend.0)?, self.backends.get(backend.0)?);
        let (server, state) = (backend.servers.get(server)?, backend_state.servers.get(server)?);
        Some(Place { backend, server, backend_state, state })
    }

    /// A request at this server is over.
    pub fn give_back(&self, backend: BackendIndex, server: usize) {
        let Some(place) = self.server(backend, server) else { return };
        if place.state.connections.give_back() {
            self.lasting.has_room(place.state);
        }
    }

    /// The last round of checks in which every server has been checked that can be.
    pub fn checked(&self) -> u64 {
        let backends = self.config.backends.iter().zip(&self.backends);
        let servers = backends.flat_map(|(config, state)| config.servers.iter().zip(&state.servers));
        let can_be = |state: &ServerShared| state.address.load().is_some() && !state.is_in_maintenance();
        let checked = servers.filter(|(config, state)| config.check && can_be(state));
        let rounds = checked.map(|(_, state)| state.checked.load(Relaxed));
        rounds.min().unwrap_or_else(|| *self.check_round.borrow())
    }

    /// What `relevo status` shows of the backends.
    pub fn report(&self) -> Vec<BackendStatus> {
        let backends = self.config.backends.iter().zip(&self.backends);
        let report = |(config, shared): (&model::Backend, &BackendState)| {
            let queue = shared.queue_lengths();
            let servers = config.servers.iter().zip(&shared.servers).enumerate();
            let server = |(index, (config, shared)): (usize, (&model::Server, &Arc<ServerShared>))| {
                let queue = queue.own.get(index).map_or(0, |(now, _)| *now);
                ServerStatus { queue, ..shared.report(config) }
            };
            BackendStatus {
                name: config.name.clone(),
                sessions: shared.stick.as_ref().map_or(0, |stick| stick.table().sessions() as u64),
                queue: queue.any.0,
                servers: servers.map(server).collect(),
            }
        };
        backends.map(report).collect()
    }
}

impl FrontendState {
    fn new(config: &model::Frontend) -> Self {
        Self {
            connections: Arc::new(Room::new(config.max_connections.map(u64::from))),
            sources: config.max_connections_per_source.map(Sources::new).map(Arc::new),
            rate_limits: rules::rate_limits(&config.rules),
        }
    }
}

impl BackendState {
    fn new(config: &model::Backend, lasting: &Arc<Lasting>) -> Self {
        let servers = config.servers.iter().map(|server| Arc::new(ServerShared::new(server))).collect();
        Self::begin(config, servers, lasting)
    }

    fn begin(config: &model::Backend, servers: Vec<Arc<ServerShared>>, lasting: &Arc<Lasting>) -> Self {
        let state = Self {
            turn: AtomicU64::new(0),
            retry_turn: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            connections: Arc::default(),
            queue: Queue::new(config),
            plan: ArcSwap::default(),
            is_empty: AtomicBool::new(false),
            came_back: Notify::new(),
            stick: config
                .stick
                .as_ref()
                .map(|stick| StickTable::new(Arc::new(Table::new(stick, Instant::now())), &config.servers)),
            checks: Arc::new(Checks::new(ServerState::Starting, Instant::now())),
            retry_budget: config.retry.repeats().then(|| Box::new(RetryBudget::new(config.retry.budget))),
            servers,
            lasting: lasting.clone(),
        };
        state.replan(config);
        state.checks.changed(|| state.state(), Instant::now());
        state.is_empty.store(state.state() == ServerState::Down, Relaxed);
        state
    }

    /// Up while one of its servers takes new sessions, be it one that stands by.
    pub fn state(&self) -> ServerState {
        let any = |wanted| self.servers.iter().any(|server| server.state() == wanted && server.weight() > 0);
        match (any(ServerState::Up), any(ServerState::Starting)) {
            (true, _) => ServerState::Up,
            (false, true) => ServerState::Starting,
            (false, false) => ServerState::Down,
        }
    }

    /// The servers that may be chosen now, by index.
    pub fn eligible(&self, config: &model::Backend) -> Vec<usize> {
        plan::eligible(config, &self.standing())
    }

    fn index_of(&self, server: &ServerShared) -> Option<usize> {
        self.servers.iter().position(|it| std::ptr::eq(&**it, server))
    }

    fn standing(&self) -> Vec<Standing> {
        self.servers.iter().map(|server| server.standing()).collect()
    }

    /// Who waits.
    pub fn queue_lengths(&self) -> Lengths {
        self.queue.as_ref().map(|queue| queue.lengths()).unwrap_or_default()
    }
}

impl Servers for BackendState {
    fn slots(&self, server: usize) -> Option<&Slots> {
        self.servers.get(server).map(|server| &server.connections)
    }

    fn most(&self, server: usize) -> u64 {
        self.servers.get(server).map_or(0, |server| server.most())
    }

    fn takes_new(&self, server: usize) -> bool {
        self.plan.load().takes(server)
    }

    fn keeps_sessions(&self, server: usize) -> bool {
        self.servers.get(server).is_some_and(|server| server.keeps_sessions())
    }

    fn has_room(&self, server: usize) {
        self.servers.get(server).into_iter().for_each(|server| self.lasting.has_room(server));
    }
}

#[cfg(test)]
pub(crate) mod tests;
