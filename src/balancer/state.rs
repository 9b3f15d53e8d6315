//! What the threads of the balancer share: atomics, one cache line each for a server and a backend. What each worker counts
//! by itself is here as well, so that the statistics find it.

mod facts;
mod lasting;
mod succession;
mod wishes;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use crate::balancer::balance::plan::{self, Plan, Standing, WHOLE};
use crate::balancer::balance::slow_start::tenths;
use crate::balancer::health::Progress;
use crate::balancer::persistence::StickTable;
use crate::balancer::persistence::table::Table;
use crate::balancer::queue::{Lengths, Queue, Servers, Slots};
use crate::balancer::retry_budget::RetryBudget;
use crate::balancer::room::{Room, Sources};
use crate::balancer::rules::{self, rate_limit::RateLimiter};
use crate::config::model::{self, BackendIndex, Origins, ServerAddress, WhenAllDown};
use crate::stats::checks::Checks;
use crate::stats::counters::Counters;
use crate::status::{BackendStatus, ServerState, ServerStatus};

pub use crate::wish::Admin;
use crate::wish::Weight;
use facts::Facts;
pub use facts::{AgentReport, Health};
pub use lasting::{Beat, Lasting, Statistics};

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
}

/// A server's part.
#[repr(align(128))]
pub struct ServerShared {
    /// A [`ServerState`] as a number. Read it with [`ServerShared::state`]; it follows from the facts.
    state: AtomicU8,
    /// So does this. How much of it slow start lets the server have is in `tenths`.
    weight: AtomicU32,
    tenths: AtomicU32,
    /// Errors of the traffic in a row, where they are counted.
    pub errors: AtomicU32,
    /// Requests or TCP connections under way.
    pub connections: Slots,
    /// How many there may be, by the newest configuration.
    most: AtomicU64,
    /// Since the start.
    pub requests: AtomicU64,
    /// Where it is; `None` while its name does not resolve.
    pub address: ArcSwapOption<SocketAddr>,
    /// Told when `address` changed: whoever checks the server does so at once.
    pub address_changed: Notify,
    /// Told when its traffic took it down: the next check is at the fast interval.
    pub marked_down: Notify,
    /// Told when people end its maintenance.
    returned: Notify,
    /// What its checks found and how long it was down. Never locked on a request's way, and nor are the two below; all of them
    /// are elsewhere, so that the rest stays on one line.
    pub checks: Checks,
    /// How far its checks have come: whoever checks it next goes on from there.
    progress: Box<Mutex<Progress>>,
    /// What is known of it.
    facts: Box<Mutex<Facts>>,
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
        let backends = config.backends.iter().map(BackendState::new).collect();
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

    /// What the checks of a server, its name or its traffic say of it, with the reason in words ("connection refused").
    ///
    /// As with all that changes a server: a change of its state is logged, with its cause, and reaches every worker with its
    /// next choice. Says whether the state changed.
    pub fn set_health(&self, backend: BackendIndex, server: usize, health: Health, reason: &str) -> bool {
        self.change(backend, server, |facts| facts.set_health(health, reason))
    }

    /// What a person wants of a server, with the reason in words.
    pub fn set_admin(&self, backend: BackendIndex, server: usize, admin: Admin, reason: &str) -> bool {
        let Some(place) = self.server(backend, server) else { return false };
        let was_in_maintenance = place.state.is_in_maintenance();
        let has_changed = self.change(backend, server, |facts| facts.set_operator(admin, reason, place.server.check));
        if was_in_maintenance {
            place.state.returned.notify_waiters();
        }
        has_changed
    }

    /// Another weight than the configured one; `None`: that one again.
    pub fn set_weight(&self, backend: BackendIndex, server: usize, weight: Option<u32>) {
        self.change(backend, server, |facts| facts.weight = weight.map_or(Weight::Default, Weight::Absolute));
    }

    /// What a server's agent says of it.
    pub fn set_agent(&self, backend: BackendIndex, server: usize, report: AgentReport) -> bool {
        self.change(backend, server, |facts| facts.agent = report)
    }

    fn change(&self, backend: BackendIndex, server: usize, change: impl FnOnce(&mut Facts)) -> bool {
        let Some(place) = self.server(backend, server) else { return false };
        let mut facts = place.state.facts();
        let before = (facts.state(), facts.weight());
        change(&mut facts);
        let after = (facts.state(), facts.weight());
        if before == after {
            return false;
        }
        let now = Instant::now();
        place.state.state.store(after.0 as u8, Release);
        place.state.weight.store(after.1, Relaxed);
        if before.0 != after.0 {
            facts.was_away |= matches!(before.0, ServerState::Down | ServerState::Maintenance);
            let rises = facts.was_away && after.0 == ServerState::Up && place.backend.slow_start.is_some();
            facts.was_away &= after.0 != ServerState::Up;
            facts.rising_since = rises.then_some(now);
            place.state.tenths.store(if rises { 1 } else { WHOLE }, Relaxed);
            place.state.errors.store(0, Relaxed);
            place.state.checks.changed(|| after.0, now);
        }
        let (reason, rises) = (facts.reason(), facts.rising_since.is_some());
        drop(facts);

        // A busy agent does so all the time: no more than a detail.
        if before.1 != after.1 {
            debug!(
                "server {}/{} has the weight {}, after {}",
                place.backend.name, place.server.name, after.1, before.1
            );
        }
        self.replan_with(&[place.state], now);
        if rises {
            place.backend_state.came_back.notify_one();
        }
        if before.0 != after.0 {
            log_state(place, after.0, &reason);
        }
        let state = place.backend_state;
        if state.is_empty.load(Relaxed) && state.state() == ServerState::Up && state.is_empty.swap(false, Relaxed) {
            info!("backend {} has a server again: {}", place.backend.name, place.server.name);
        }
        before.0 != after.0
    }

    /// Publishes what the servers of each backend that has one of these are chosen by from now on, under the old
    /// configurations that are still there as well.
    fn replan_with(&self, changed: &[&ServerShared], now: Instant) {
        let live = self.lasting.live();
        let newest = live.last().map(Arc::as_ptr);
        for shared in &live {
            for (config, state) in shared.config.backends.iter().zip(&shared.backends) {
                let has = |changed: &&ServerShared| state.servers.iter().any(|it| std::ptr::eq(&**it, *changed));
                if changed.iter().any(has) {
                    if newest == Some(Arc::as_ptr(shared)) {
                        state.checks.changed(|| state.state(), now);
                    }
                    state.replan(config);
                }
            }
        }
    }

    /// Gives servers of a backend that rise what slow start lets them have by now. Is one of them still rising?
    pub fn raise(&self, backend: BackendIndex, slow_start: Duration, now: Instant) -> bool {
        let Some(state) = self.backends.get(backend.0) else { return false };
        let (mut changed, mut is_rising) = (Vec::new(), false);
        for server in &state.servers {
            let mut facts = server.facts();
            let Some(since) = facts.rising_since else { continue };
            let tenths = tenths(now.saturating_duration_since(since), slow_start);
            if server.tenths.swap(tenths, Relaxed) != tenths {
                changed.push(&**server);
            }
            is_rising |= tenths < WHOLE;
            facts.rising_since = (tenths < WHOLE).then_some(since);
        }
        if !changed.is_empty() {
            self.replan_with(&changed, now);
        }
        is_rising
    }

    /// A request at this server is over.
    pub fn give_back(&self, backend: BackendIndex, server: usize) {
        let Some(place) = self.server(backend, server) else { return };
        if place.state.connections.give_back() {
            self.has_room(place.state);
        }
    }

    /// Whoever waits for this server may have a slot of it; first those who wait under an old configuration.
    fn has_room(&self, server: &ServerShared) {
        for shared in self.lasting.live() {
            for (state, queue) in shared.backends.iter().filter_map(|state| Some((state, state.queue.as_ref()?))) {
                if let Some(index) = state.servers.iter().position(|it| std::ptr::eq(&**it, server)) {
                    queue.has_room(state, index);
                }
            }
        }
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
    fn new(config: &model::Backend) -> Self {
        let servers = config.servers.iter().map(|server| Arc::new(ServerShared::new(server))).collect();
        Self::begin(config, servers)
    }

    fn begin(config: &model::Backend, servers: Vec<Arc<ServerShared>>) -> Self {
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

    fn standing(&self) -> Vec<Standing> {
        self.servers.iter().map(|server| server.standing()).collect()
    }

    /// Publish what servers are chosen by from now on.
    fn replan(&self, config: &model::Backend) {
        // Again with the states of that moment, should two threads do this at once.
        self.plan.rcu(|previous| Plan::new(config, &self.standing(), previous, self.turn.load(Relaxed)));
        self.generation.fetch_add(1, Release);
        self.queue.iter().for_each(|queue| queue.reconsider(self));
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
}

fn log_state(place: Place<'_>, state: ServerState, reason: &str) {
    let (backend, server) = (&place.backend.name, &place.server.name);
    match state {
        ServerState::Down => warn!("server {backend}/{server} is down: {reason}"),
        _ => info!("server {backend}/{server} is {}: {reason}", word(state)),
    }
    let is_away = !matches!(state, ServerState::Up | ServerState::Starting);
    if is_away && place.backend_state.state() == ServerState::Down {
        let are_all_down = place.backend_state.servers.iter().all(|server| server.state() == ServerState::Down);
        let how = match (are_all_down, place.backend.when_all_down) {
            (false, _) => "none is up",
            (true, WhenAllDown::Reject) => "all are down",
            (true, WhenAllDown::TryAll) => "all are down, and all are tried",
        };
        place.backend_state.is_empty.store(true, Relaxed);
        error!("backend {backend} has no server left: {how}");
    }
}

impl ServerShared {
    fn new(config: &model::Server) -> Self {
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

    fn standing(&self) -> Standing {
        Standing { state: self.state(), weight: self.weight(), tenths: self.tenths() }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self, config: &model::Server) -> ServerStatus {
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
fn most(config: &model::Server) -> u64 {
    config.max_connections.map_or(u64::MAX, u64::from)
}

/// The reason of a server without checks.
pub const NOT_CHECKED: &str = "not checked";

const STATES: [ServerState; 5] =
    [ServerState::Starting, ServerState::Up, ServerState::Down, ServerState::Drain, ServerState::Maintenance];

fn word(state: ServerState) -> &'static str {
    match state {
        ServerState::Starting => "starting",
        ServerState::Up => "up",
        ServerState::Down => "down",
        ServerState::Drain => "drained",
        ServerState::Maintenance => "in maintenance",
    }
}

#[cfg(test)]
pub(crate) mod tests;
