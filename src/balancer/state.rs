//! What the threads of the balancer share: atomics, one cache line each for a server and a backend. What each worker counts
//! by itself is here as well, so that the statistics find it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, Semaphore};
use tracing::{error, info, warn};

use crate::balancer::balance::Schedule;
use crate::balancer::rules::{self, rate_limit::RateLimiter};
use crate::config::model::{self, BackendIndex, ServerAddress};
use crate::stats::checks::Checks;
use crate::stats::counters::Counters;
use crate::stats::rates::Rates;
use crate::status::{BackendStatus, PairStatus, ServerState, ServerStatus};

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
    /// When the process started.
    pub started: Instant,
    /// By index of the worker: what it counts.
    pub counters: Vec<Counters>,
    /// For the statistics alone.
    pub statistics: Statistics,
}

/// What is kept for nobody but those who look at the statistics.
pub struct Statistics {
    /// Are they shown anywhere?
    pub are_shown: bool,
    /// The pair, as the keeper last told.
    pub pair: ArcSwapOption<PairStatus>,
    /// Sessions and requests per second.
    pub rates: Mutex<Rates>,
    /// Lines of the access log that nobody took.
    pub lost_log_lines: AtomicU64,
    /// One page at a time is made: passwords take time to be checked, and guessing them is to take no more than one core.
    pub turn: Semaphore,
}

/// A worker's sign of life.
#[repr(align(128))]
#[derive(Default)]
pub struct Beat(pub AtomicU64);

/// A frontend's part.
#[repr(align(128))]
pub struct FrontendState {
    /// Client connections open now.
    pub connections: AtomicU64,
    /// By index of the rule: its limit, if it is one.
    pub rate_limits: Box<[Option<RateLimiter>]>,
}

impl FrontendState {
    fn new(config: &model::Frontend) -> Self {
        Self { connections: AtomicU64::new(0), rate_limits: rules::rate_limits(&config.rules) }
    }
}

/// A backend's part.
#[repr(align(128))]
pub struct BackendState {
    /// The next turn, taken by all workers.
    pub turn: AtomicU64,
    /// The next turn among retries, which are no turns of their own.
    pub retry_turn: AtomicU64,
    /// Grows whenever a server of this backend goes up or down: what workers derived from the states is then stale.
    pub generation: AtomicU64,
    /// Requests or TCP connections under way.
    pub connections: AtomicU64,
    /// Who serves which turn, for the servers that are up at this generation.
    pub schedule: ArcSwap<Schedule>,
    /// When it lost its last server, and got one again.
    pub checks: Checks,
    /// By index of the server.
    pub servers: Vec<ServerShared>,
}

/// A server's part.
#[repr(align(128))]
pub struct ServerShared {
    /// A [`ServerState`] as a number. Read it with [`ServerShared::state`], change it with [`Shared::set_state`].
    state: AtomicU8,
    /// Requests or TCP connections under way.
    pub connections: AtomicU64,
    /// Since the start.
    pub requests: AtomicU64,
    /// Where it is; `None` while its name does not resolve.
    pub address: ArcSwapOption<SocketAddr>,
    /// Told when `address` changed: whoever checks the server does so at once.
    pub address_changed: Notify,
    /// What its checks found and how long it was down. Never locked on a request's way, and nor is `reason`.
    pub checks: Checks,
    /// The last check's result, in words.
    reason: Mutex<Arc<str>>,
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
        let backends = config.backends.iter().map(BackendState::new).collect();
        let frontends = config.frontends.iter().map(FrontendState::new).collect();
        let beats = (0..config.threads).map(|_| Beat::default()).collect();
        let servers = || config.backends.iter().map(|backend| backend.servers.len());
        let counters = (0..config.threads).map(|_| Counters::new(config.frontends.len(), servers())).collect();
        let statistics = Statistics {
            are_shown: config.frontends.iter().any(|frontend| frontend.statistics.is_some()),
            pair: ArcSwapOption::empty(),
            rates: Mutex::default(),
            lost_log_lines: AtomicU64::new(0),
            turn: Semaphore::new(1),
        };
        Arc::new(Self {
            config,
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            frontends,
            backends,
            beats,
            held: ArcSwap::default(),
            started: Instant::now(),
            counters,
            statistics,
        })
    }

    /// All about one server; `None` if there is no such server.
    pub fn server(&self, backend: BackendIndex, server: usize) -> Option<Place<'_>> {
        let (backend, backend_state) = (self.config.backends.get(backend.0)?, self.backends.get(backend.0)?);
        let (server, state) = (backend.servers.get(server)?, backend_state.servers.get(server)?);
        Some(Place { backend, server, backend_state, state })
    }

    /// Put a server into a state, for a reason in words ("connection refused").
    ///
    /// A change is logged, with its cause, and reaches every worker with its next choice; the same state again only takes
    /// the new reason. Says whether the state changed.
    pub fn set_state(&self, backend: BackendIndex, server: usize, state: ServerState, reason: &str) -> bool {
        let Some(place) = self.server(backend, server) else { return false };
        *place.state.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.into();
        let before = place.state.state.swap(state as u8, AcqRel);
        if before == state as u8 {
            return false;
        }
        place.backend_state.reschedule(place.backend);
        let now = Instant::now();
        place.state.checks.changed(state, now);
        place.backend_state.checks.changed(place.backend_state.state(), now);

        let (backend, server) = (&place.backend.name, &place.server.name);
        match state {
            ServerState::Down => warn!("server {backend}/{server} is down: {reason}"),
            _ => info!("server {backend}/{server} is {}: {reason}", word(state)),
        }
        if state == ServerState::Down && place.backend_state.state() == ServerState::Down {
            error!("backend {backend} has no server left: all are down");
        }
        true
    }

    /// What `relevo status` shows of the backends.
    pub fn report(&self) -> Vec<BackendStatus> {
        let backends = self.config.backends.iter().zip(&self.backends);
        let report = |(config, shared): (&model::Backend, &BackendState)| BackendStatus {
            name: config.name.clone(),
            servers: config.servers.iter().zip(&shared.servers).map(|(config, shared)| shared.report(config)).collect(),
        };
        backends.map(report).collect()
    }
}

impl BackendState {
    fn new(config: &model::Backend) -> Self {
        let state = Self {
            turn: AtomicU64::new(0),
            retry_turn: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            schedule: ArcSwap::default(),
            checks: Checks::new(ServerState::Starting, Instant::now()),
            servers: config.servers.iter().map(ServerShared::new).collect(),
        };
        state.reschedule(config);
        state.checks.changed(state.state(), Instant::now());
        state
    }

    /// Up while one of its servers is.
    pub fn state(&self) -> ServerState {
        let any = |wanted| self.servers.iter().any(|server| server.state() == wanted);
        match (any(ServerState::Up), any(ServerState::Starting)) {
            (true, _) => ServerState::Up,
            (false, true) => ServerState::Starting,
            (false, false) => ServerState::Down,
        }
    }

    /// Publish who serves which turn from now on.
    fn reschedule(&self, config: &model::Backend) {
        let with_weight =
            config.servers.iter().map(|server| server.weight).enumerate().filter(|(_, weight)| *weight > 0);
        let is_up = |index: usize| self.servers.get(index).is_some_and(|server| server.state() == ServerState::Up);
        // Again with the states of that moment, should two threads do this at once.
        self.schedule.rcu(|previous| {
            let up: Vec<_> = with_weight.clone().filter(|(index, _)| is_up(*index)).collect();
            Schedule::new(&up, previous, self.turn.load(Relaxed))
        });
        self.generation.fetch_add(1, Release);
    }
}

impl ServerShared {
    fn new(config: &model::Server) -> Self {
        let (state, reason) = match (&config.address, config.check) {
            (ServerAddress::Name { .. }, _) => (ServerState::Starting, "its name is being resolved"),
            (ServerAddress::Socket(_), true) => (ServerState::Starting, "not checked yet"),
            (ServerAddress::Socket(_), false) => (ServerState::Up, NOT_CHECKED),
        };
        let address = match &config.address {
            ServerAddress::Socket(address) => Some(Arc::new(*address)),
            ServerAddress::Name { .. } => None,
        };
        Self {
            state: AtomicU8::new(state as u8),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            address: ArcSwapOption::new(address),
            address_changed: Notify::new(),
            checks: Checks::new(state, Instant::now()),
            reason: Mutex::new(reason.into()),
        }
    }

    /// Does it get traffic? A drained server (weight 0) is up, and gets only what a cookie brings.
    pub fn state(&self) -> ServerState {
        STATES.into_iter().find(|state| *state as u8 == self.state.load(Acquire)).unwrap_or_default()
    }

    pub(super) fn report(&self, config: &model::Server) -> ServerStatus {
        let address = match (&config.address, self.address.load_full()) {
            (_, Some(address)) => address.to_string(),
            (address, None) => address.to_string(),
        };
        let state = match self.state() {
            ServerState::Up if config.weight == 0 => ServerState::Drain,
            state => state,
        };
        ServerStatus {
            name: config.name.clone(),
            address,
            state,
            reason: ServerStatus::reason_from(&self.reason.lock().unwrap_or_else(PoisonError::into_inner)),
            weight: config.weight,
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
        }
    }
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
pub(crate) mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::config::model::{AccessLog, Backend, Balance, Balancer, HealthCheck, Probe, Server, ServerTimeouts};

    /// A server on loopback that is not checked.
    pub(crate) fn server(name: &str, weight: u32) -> Server {
        Server {
            name: name.into(),
            address: ServerAddress::Socket((Ipv4Addr::LOCALHOST, 9).into()),
            weight,
            cookie: name.into(),
            check: false,
            source: None,
            source_is_virtual: false,
        }
    }

    /// A configuration of one backend, `app`.
    pub(crate) fn one_backend(balance: Balance, servers: Vec<Server>) -> Balancer {
        let second = Duration::from_secs(1);
        let app = Backend {
            name: "app".into(),
            balance,
            cookie: None,
            health: HealthCheck { probe: Probe::Tcp, interval: second, timeout: second, rise: 2, fall: 3 },
            retries: 3,
            redispatch: true,
            timeouts: ServerTimeouts { connect: second, server: second, queue: second, tunnel: second },
            servers,
        };
        Balancer {
            node: "lb1".into(),
            threads: 2,
            max_connections: 100,
            access_log: AccessLog::Off,
            frontends: Vec::new(),
            backends: vec![app],
        }
    }

    /// Each server's state as it is reported, with its reason.
    pub(crate) fn states(shared: &Shared) -> Vec<(ServerState, String)> {
        shared
            .report()
            .into_iter()
            .flat_map(|backend| backend.servers)
            .map(|server| (server.state, server.reason))
            .collect()
    }

    /// Look until it is so; nobody waits longer than 10 s.
    pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
        let look = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), look).await.expect("it never came to be so");
    }

    #[test]
    fn servers_that_are_checked_or_named_begin_without_traffic() {
        let named = ServerAddress::Name { host: "web.example".into(), port: 80 };
        let servers = vec![
            server("unchecked", 1),
            Server { check: true, ..server("checked", 1) },
            Server { address: named, ..server("named", 1) },
            server("drained", 0),
        ];
        let shared = Shared::new(one_backend(Balance::RoundRobin, servers));

        let report = &shared.report()[0];
        let rows: Vec<_> = report.servers.iter().map(|server| (server.address.as_str(), server.state)).collect();
        let expected = [
            ("127.0.0.1:9", ServerState::Up),
            ("127.0.0.1:9", ServerState::Starting),
            ("web.example:80", ServerState::Starting),
            ("127.0.0.1:9", ServerState::Drain),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_change_of_state_is_a_new_generation_and_a_new_reason_alone_is_not() {
        let shared = Shared::new(one_backend(Balance::RoundRobin, vec![server("a", 1), server("b", 1)]));
        let app = BackendIndex(0);
        let generation = || shared.backends[0].generation.load(Relaxed);

        let before = generation();
        assert!(shared.set_state(app, 1, ServerState::Down, "connection refused"));
        assert_eq!(generation(), before + 1);
        assert!(!shared.set_state(app, 1, ServerState::Down, "no answer within 2s"));
        assert_eq!(generation(), before + 1);
        assert_eq!(states(&shared)[1], (ServerState::Down, "no answer within 2s".to_owned()));
        assert!(!shared.set_state(app, 2, ServerState::Up, "there is no such server"));
        assert!(!shared.set_state(BackendIndex(1), 0, ServerState::Up, "there is no such backend"));
    }

    #[test]
    fn a_change_is_one_sentence_in_the_log_and_so_is_the_end_of_a_backend() {
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || log.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false);
        tracing::subscriber::with_default(subscriber.finish(), || {
            let shared = Shared::new(one_backend(Balance::RoundRobin, vec![server("a", 1), server("b", 1)]));
            let set = |server, state, reason| shared.set_state(BackendIndex(0), server, state, reason);
            set(0, ServerState::Up, "status 200");
            set(0, ServerState::Up, "status 500, expected 200-399 (1 of 3 failures)");
            set(0, ServerState::Down, "status 500, expected 200-399");
            set(1, ServerState::Down, "connection refused");
            set(1, ServerState::Down, "no answer within 2s");
            set(1, ServerState::Up, "status 200");
        });
        let expected = " WARN server app/a is down: status 500, expected 200-399\n \
            WARN server app/b is down: connection refused\n\
            ERROR backend app has no server left: all are down\n \
            INFO server app/b is up: status 200\n";
        assert_eq!(String::from_utf8_lossy(&written.0.lock().unwrap()), expected);
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
