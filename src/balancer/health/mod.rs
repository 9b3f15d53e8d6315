//! Checks of the servers: who gets traffic, decided by what they answer.
//!
//! A server that starts is unproven: its first check says whether it is up or down. After that `fall` failures in a row take
//! it down and `rise` successes in a row bring it back; while such a row is under way the checks come at a quarter of the
//! interval, at most a second apart.

mod probe;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::balancer::state::Shared;
use crate::config::model::{BackendIndex, HealthCheck};
use crate::status::ServerState;

/// Check every server with `check = true`, on the control thread; never ends.
pub async fn watch(shared: Arc<Shared>) {
    let mut checks = JoinSet::new();
    for (backend, config) in shared.config.backends.iter().enumerate() {
        for (server, _) in config.servers.iter().enumerate().filter(|(_, server)| server.check) {
            checks.spawn(watch_server(shared.clone(), BackendIndex(backend), server));
        }
    }
    while checks.join_next().await.is_some() {}
    std::future::pending().await
}

/// Until the process ends, or at once if there is no such server.
async fn watch_server(shared: Arc<Shared>, backend: BackendIndex, index: usize) {
    let Some(place) = shared.server(backend, index) else { return };
    let (health, state) = (&place.backend.health, place.state);
    let mut chance = Chance::new((&shared.config.node, &place.backend.name, &place.server.name));
    let mut row = Row::default();

    let checked: usize = shared.config.backends.iter().map(|backend| backend.servers.len()).sum();
    sleep(first_delay(checked).mul_f64(chance.fraction())).await;
    loop {
        let Some(address) = state.address.load_full() else {
            state.address_changed.notified().await;
            continue;
        };

        let began = Instant::now();
        let outcome = probe::probe(health, place.server, *address).await;
        if state.address.load_full() != Some(address) {
            row = Row::default();
            continue;
        }

        let after = row.count(state.state(), outcome.is_ok(), health);
        let reason = outcome.unwrap_or_else(|failure| failure);
        shared.set_state(backend, index, after, &format!("{reason}{}", row.progress(health)));

        // A few percent sooner or later, so that the checks of many servers and both nodes do not fall into step.
        let pause = row.pause(health).mul_f64(0.97 + 0.06 * chance.fraction());
        tokio::select! {
            () = sleep_until(began + pause) => {}
            () = state.address_changed.notified() => row = Row::default(),
        }
    }
}

/// Results in a row that speak against the server's present state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Row {
    successes: u32,
    failures: u32,
}

impl Row {
    /// Take in one result; the state after it.
    fn count(&mut self, state: ServerState, success: bool, health: &HealthCheck) -> ServerState {
        let (after, complete) = match (state, success) {
            (ServerState::Starting, true) => (ServerState::Up, true),
            (ServerState::Starting, false) => (ServerState::Down, true),
            (ServerState::Down, true) => {
                self.successes += 1;
                (ServerState::Up, self.successes >= health.rise)
            }
            (ServerState::Up, false) => {
                self.failures += 1;
                (ServerState::Down, self.failures >= health.fall)
            }
            // It confirms the state, or the state was set by someone whom checks do not overrule.
            _ => (state, true),
        };
        if !complete {
            return state;
        }
        *self = Self::default();
        after
    }

    fn under_way(self) -> bool {
        self != Self::default()
    }

    fn pause(self, health: &HealthCheck) -> Duration {
        if self.under_way() { (health.interval / 4).min(Duration::from_secs(1)) } else { health.interval }
    }

    /// How far the row has come, to be read after the last result.
    fn progress(self, health: &HealthCheck) -> String {
        match self {
            Self { successes: 0, failures: 0 } => String::new(),
            Self { successes: 0, failures } => format!(" ({failures} of {} failures)", health.fall),
            Self { successes, .. } => format!(" ({successes} of {} successes)", health.rise),
        }
    }
}

/// The longest that a first check waits: a few servers are checked all at once, many spread out.
fn first_delay(servers: usize) -> Duration {
    if servers <= 32 { Duration::ZERO } else { Duration::from_millis(servers as u64).min(Duration::from_millis(250)) }
}

/// Numbers that look random and are the same in every run.
struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    fn new(name: impl Hash) -> Self {
        Self { seed: hash(name), drawn: 0 }
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.drawn += 1;
        hash((self.seed, self.drawn)) as f64 / u64::MAX as f64
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
