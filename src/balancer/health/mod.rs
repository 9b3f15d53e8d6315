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
use crate::config::model::{BackendIndex, HealthCheck, Probe};
use crate::stats::checks::{Check, Outcome};
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

/// Waits for every server's first result, but no longer than `patience`: a balancer that took connections before it would
/// answer them with 503. The wait is short and seldom, so it looks again and again instead of having each check tell it.
pub async fn first_results(shared: &Shared, patience: Duration) {
    let end = Instant::now() + patience;
    let is_unproven = || {
        let mut servers = shared.backends.iter().flat_map(|backend| &backend.servers);
        servers.any(|server| server.state() == ServerState::Starting)
    };
    while is_unproven() && Instant::now() < end {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Until the process ends, or at once if there is no such server.
async fn watch_server(shared: Arc<Shared>, backend: BackendIndex, index: usize) {
    let Some(place) = shared.server(backend, index) else { return };
    let (health, state) = (&place.backend.health, place.state);
    let mut chance = Chance::new((&shared.config.node, &place.backend.name, &place.server.name));
    let mut row = Row::default();

    let servers: usize = shared.config.backends.iter().map(|backend| backend.servers.len()).sum();
    sleep(first_delay(servers).mul_f64(chance.fraction())).await;
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
        state.checks.checked(Check {
            outcome: Outcome::from_words(
                outcome.as_deref().map_err(|failure| failure.as_str()),
                health.probe != Probe::Tcp,
            ),
            duration: began.elapsed(),
            successes: row.successes,
            failures: row.failures,
        });
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::atomic::AtomicU16;
    use std::sync::atomic::Ordering::SeqCst;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::balancer::state::tests::{one_backend, server, states, until};
    use crate::config::model::{Balance, Server, ServerAddress};

    fn health(interval: Duration) -> HealthCheck {
        let probe = Probe::Http { method: "GET".into(), path: "/".into(), host: None, expect: vec![(200, 399)] };
        HealthCheck { probe, interval, timeout: Duration::from_secs(5), rise: 2, fall: 3 }
    }

    /// A web server that answers every request with the status it is told.
    async fn web_server() -> (SocketAddr, Arc<AtomicU16>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let told = status.clone();
        let serve = async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.read(&mut [0; 1024]).await;
                let answer = format!("HTTP/1.1 {} Told\r\nContent-Length: 0\r\n\r\n", told.load(SeqCst));
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        };
        tokio::spawn(serve);
        (address, status)
    }

    fn shared(servers: Vec<Server>, interval: Duration) -> Arc<Shared> {
        let mut config = one_backend(Balance::RoundRobin, servers);
        config.backends[0].health = health(interval);
        Shared::new(config)
    }

    fn checked(address: SocketAddr) -> Server {
        Server { check: true, address: ServerAddress::Socket(address), ..server("a", 1) }
    }

    #[test]
    fn rise_and_fall() {
        use ServerState::{Down, Maintenance, Starting, Up};
        // From a state, results one after the other (+ success, - failure), the states after each.
        let rows: &[(ServerState, &str, &[ServerState])] = &[
            (Starting, "+", &[Up]),
            (Starting, "-", &[Down]),
            (Up, "---", &[Up, Up, Down]),
            (Up, "--+--+", &[Up, Up, Up, Up, Up, Up]),
            (Down, "++", &[Down, Up]),
            (Down, "+-+-++", &[Down, Down, Down, Down, Down, Up]),
            (Up, "---++---", &[Up, Up, Down, Down, Up, Up, Up, Down]),
            (Maintenance, "+-+-", &[Maintenance; 4]),
        ];
        let health = health(Duration::from_secs(2));
        for (from, results, expected) in rows {
            let mut row = Row::default();
            let states: Vec<_> = results
                .chars()
                .scan(*from, |state, result| {
                    *state = row.count(*state, result == '+', &health);
                    Some(*state)
                })
                .collect();
            assert_eq!(states, *expected, "{from:?} {results}");
        }
    }

    #[test]
    fn checks_come_faster_while_a_change_is_under_way() {
        let health = health(Duration::from_secs(2));
        let mut row = Row::default();
        assert_eq!(row.pause(&health), Duration::from_secs(2));
        row.count(ServerState::Up, false, &health);
        assert_eq!(row.pause(&health), Duration::from_millis(500));
        assert_eq!(row.progress(&health), " (1 of 3 failures)");
        assert_eq!(
            row.pause(&HealthCheck { interval: Duration::from_secs(60), ..health.clone() }),
            Duration::from_secs(1)
        );
        row.count(ServerState::Up, true, &health);
        assert_eq!(row.pause(&health), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_server_goes_down_and_comes_back_as_its_answers_change() {
        let (address, status) = web_server().await;
        let shared = shared(vec![checked(address)], Duration::from_millis(10));
        let watching = tokio::spawn(watch(shared.clone()));

        let is = |state, reason: &str| {
            let wanted = vec![(state, reason.to_owned())];
            let shared = shared.clone();
            async move { until(|| states(&shared) == wanted).await }
        };
        is(ServerState::Up, "status 200").await;
        status.store(503, SeqCst);
        is(ServerState::Down, "status 503, expected 200-399").await;
        status.store(204, SeqCst);
        is(ServerState::Up, "status 204").await;
        watching.abort();
    }

    #[tokio::test]
    async fn every_server_is_checked_at_once_at_the_start_and_at_a_new_address() {
        let (address, _) = web_server().await;
        // Bound and not listening: the port is nobody else's, and connections are refused.
        let unused = TcpSocket::new_v4().unwrap();
        unused.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let unused_address = unused.local_addr().unwrap();
        let named = ServerAddress::Name { host: "web.example".into(), port: 80 };
        let servers = vec![
            checked(address),
            checked(unused_address),
            Server { address: named, ..checked(address) },
            server("b", 1),
        ];
        let shared = shared(servers, Duration::from_secs(3600));
        let watching = tokio::spawn(watch(shared.clone()));

        let now = || states(&shared).into_iter().map(|(state, _)| state).collect::<Vec<_>>();
        use ServerState::{Down, Starting, Up};
        until(|| now() == [Up, Down, Starting, Up]).await;

        for server in [1, 2] {
            let state = &shared.backends[0].servers[server];
            state.address.store(Some(Arc::new(address)));
            shared.set_state(BackendIndex(0), server, Starting, "its address changed");
            state.address_changed.notify_one();
        }
        until(|| now() == [Up, Up, Up, Up]).await;
        watching.abort();
    }

    #[test]
    fn first_checks_of_many_servers_are_spread() {
        assert_eq!(first_delay(32), Duration::ZERO);
        assert_eq!(first_delay(1000), Duration::from_millis(250));
        let mut chance = Chance::new("lb1");
        let fractions: Vec<_> = (0..1000).map(|_| chance.fraction()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)));
        let mean = fractions.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}
