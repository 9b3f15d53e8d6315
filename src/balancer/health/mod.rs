//! Checks of the servers: who gets traffic, decided by what they answer (here and in `probe.rs`), by what they say of
//! themselves (`agent.rs`) and by what becomes of the traffic (`observation.rs`).
//!
//! A server that starts is unproven: its first check says whether it is up or down, unless others know it as up (the peer, the
//! balancer before). After that `fall` failures in a row take it down and `rise` successes in a row bring it back; while such a row
//! is under way the checks come at the fast interval.

mod agent;
mod chance;
pub mod observation;
mod probe;
mod row;
mod way;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::chance::{Chance, first_delay};
use self::probe::Failure;
pub use self::row::Progress;
use self::row::Row;
use crate::balancer::state::Shared;
use crate::config::model::{BackendIndex, Probe};
use crate::stats::checks::{Check, Outcome};
use crate::status::ServerState;

/// Check every server with `check = true` and ask every agent, on the control thread; never ends.
pub async fn watch(shared: Arc<Shared>) {
    let mut checks = JoinSet::new();
    for (backend, config) in shared.config.backends.iter().enumerate() {
        let backend = BackendIndex(backend);
        for (index, server) in config.servers.iter().enumerate() {
            if server.check {
                checks.spawn(watch_server(shared.clone(), backend, index));
            }
            if config.agent.is_some() {
                checks.spawn(agent::watch_agent(shared.clone(), backend, index));
            }
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

/// Goes on from where the checks of an earlier configuration have left off. Never ends, or at once if there is no such server.
async fn watch_server(shared: Arc<Shared>, backend: BackendIndex, index: usize) {
    let Some(place) = shared.server(backend, index) else { return };
    let (health, state) = (&place.backend.health, place.state);
    let mut chance = Chance::new((&shared.config.node, &place.backend.name, &place.server.name));
    let Progress { mut row, due } = state.progress();
    // Many are checked at the same moment then: where a check is not in its turn, the next is at any time of the interval.
    let mut is_in_turn = due.is_some();
    // It may be checked more often by now, as all others are.
    let servers: usize = shared.config.backends.iter().map(|backend| backend.servers.len()).sum();
    let mut rounds = shared.check_round.subscribe();
    if state.checked.load(Relaxed) < *rounds.borrow() {
        rounds.mark_changed();
    }
    let mut due = match due {
        None => Instant::now() + chance.part(first_delay(servers)),
        Some(due) if due > Instant::now() + health.interval => Instant::now() + chance.part(health.interval),
        Some(due) => due,
    };
    loop {
        tokio::select! {
            () = sleep_until(due) => {}
            () = state.address_changed.notified() => (row, is_in_turn) = (Row::default(), false),
            () = state.returns() => (row, is_in_turn) = (Row::default(), false),
            Ok(()) = rounds.changed() => {
                due = due.min(Instant::now() + chance.part(first_delay(servers)));
                is_in_turn = false;
                continue;
            }
            // The traffic took it down: what follows is a row of successes, or none.
            () = state.marked_down.notified() => {
                (row, due) = (Row::default(), due.min(Instant::now() + health.fast_interval));
                state.set_progress(Progress { row, due: Some(due) });
                continue;
            }
        }
        if state.end_of_maintenance().await {
            row = Row::default();
        }
        let Some(address) = state.address.load_full() else {
            state.address_changed.notified().await;
            continue;
        };

        let (began, round) = (Instant::now(), *rounds.borrow());
        let outcome = probe::probe(health, place.server, *address).await;
        let outcome =
            outcome.map_err(|failure| match way::is_cut_off(&shared.cut_off.load(), place.server, *address) {
                true => Failure::Node("the way to them is cut off: their interface carries nothing".to_owned()),
                false => failure,
            });
        let outcome = match outcome {
            Err(Failure::Node(lack)) => {
                let Row { successes, failures } = row;
                let (outcome, duration) = (Outcome::NotChecked, began.elapsed());
                state.checks.checked(Check { outcome, duration, successes, failures });
                shared.not_checked(backend, index, &lack);
                due = began + health.fast_interval;
                state.set_progress(Progress { row, due: Some(due) });
                continue;
            }
            Err(Failure::Server(words)) => Err(words),
            Ok(words) => Ok(words),
        };
        if state.address.load_full() != Some(address) || state.is_in_maintenance() {
            row = Row::default();
            continue;
        }

        let before = state.health();
        let after = row.count(state.presumed_health(), outcome.is_ok(), health);
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
        shared.conclude(backend, index, [before, after], &format!("{reason}{}", row.progress(health)));

        state.checked.store(round, Relaxed);

        // A little sooner or later, so that the checks of many servers and both nodes do not fall into step.
        let pause = row.pause(after, health);
        due = began + if is_in_turn { chance.spread(pause, health.spread) } else { chance.part(pause) };
        is_in_turn = true;
        state.set_progress(Progress { row, due: Some(due) });
    }
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
    use crate::balancer::state::{Health, ServerShared};
    use crate::config::model::{Balance, HealthCheck, Server, ServerAddress};
    use crate::status::{BackendStatus, ServerStatus};

    fn health(interval: Duration) -> HealthCheck {
        let probe = Probe::Http {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            expect: vec![(200, 399)],
            expect_body: None,
        };
        HealthCheck { probe, timeout: Duration::from_secs(5), ..HealthCheck::every(interval) }
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
            shared.set_health(BackendIndex(0), server, Health::Starting, "its address changed");
            state.address_changed.notify_one();
        }
        until(|| now() == [Up, Up, Up, Up]).await;
        watching.abort();
    }

    /// One failed check after a start is not enough against the word of others: a server that a burst of clients keeps busy would be
    /// down at once.
    #[tokio::test]
    async fn a_server_that_others_know_as_up_falls_as_any_other() {
        for (told, expected) in [
            (ServerState::Up, &["1 of 3 failures", "2 of 3 failures", ""][..]),
            (ServerState::Drain, &["1 of 3 failures", "2 of 3 failures", ""]),
            (ServerState::Down, &[""]),
            (ServerState::Starting, &[""]),
        ] {
            let (address, status) = web_server().await;
            status.store(503, SeqCst);
            let shared = shared(vec![checked(address)], Duration::from_millis(100));
            let server =
                ServerStatus { name: "a".into(), address: address.to_string(), state: told, ..Default::default() };
            let backend = BackendStatus { name: "app".into(), servers: vec![server], ..Default::default() };
            shared.believe(&[backend], "lb2");
            let watching = tokio::spawn(watch(shared.clone()));
            for progress in expected {
                let (state, words) = match *progress {
                    "" => (ServerState::Down, "status 503, expected 200-399".to_owned()),
                    progress => (ServerState::Up, format!("status 503, expected 200-399 ({progress})")),
                };
                until(|| states(&shared) == [(state, words.clone())]).await;
            }
            watching.abort();
        }
    }

    #[tokio::test]
    async fn the_next_check_is_sooner_or_later_than_that_of_another_server() {
        let (address, _) = web_server().await;
        let servers = ["a", "b", "c"].map(|name| Server { name: name.into(), ..checked(address) });
        let hour = Duration::from_secs(3600);
        let mut config = one_backend(Balance::RoundRobin, servers.to_vec());
        config.backends[0].health = HealthCheck { spread: 50, ..health(hour) };
        let shared = Shared::new(config);
        let watching = tokio::spawn(watch(shared.clone()));
        until(|| states(&shared).iter().all(|(state, _)| *state == ServerState::Up)).await;
        watching.abort();
        let due = |server: &Arc<ServerShared>| server.progress().due.unwrap() - Instant::now();
        let mut dues: Vec<_> = shared.backends[0].servers.iter().map(due).collect();
        assert!(dues.iter().all(|due| *due <= hour), "{dues:?}");
        dues.sort();
        assert!(dues.windows(2).all(|two| two[1] - two[0] > Duration::from_secs(60)), "{dues:?}");
        // From then on.
        let mut chance = Chance::new("a");
        let intervals: Vec<_> = (0..100).map(|_| chance.spread(hour, 50)).collect();
        assert!(intervals.iter().all(|interval| (hour / 2..=hour * 3 / 2).contains(interval)), "{intervals:?}");
    }
}
