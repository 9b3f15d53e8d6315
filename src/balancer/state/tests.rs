//! How servers change, and what other parts test theirs with.

use std::net::Ipv4Addr;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use super::*;
use crate::balancer::balance::plan::WHOLE;
use crate::config::model::{
    AccessLog, Backend, Balance, Balancer, ConnectionMode, ErrorPages, HealthCheck, Retry, Reuse, Server,
    ServerAddress, ServerTimeouts, WhenAllDown,
};

/// A server on loopback that is not checked.
pub(crate) fn server(name: &str, weight: u32) -> Server {
    Server {
        name: name.into(),
        address: ServerAddress::Socket((Ipv4Addr::LOCALHOST, 9).into()),
        weight,
        max_connections: None,
        max_queue: None,
        cookie: name.into(),
        backup: false,
        check: false,
        check_address: None,
        check_port: None,
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
        slow_start: None,
        all_backups: false,
        when_all_down: WhenAllDown::Reject,
        cookie: None,
        stick: None,
        health: HealthCheck::every(second),
        agent: None,
        retries: 3,
        redispatch: true,
        max_queue: None,
        retry: Retry::default(),
        reuse: Reuse::default(),
        connection: ConnectionMode::default(),
        tcp_keep_alive: None,
        errors: ErrorPages::new(),
        timeouts: ServerTimeouts { connect: second, server: second, queue: second, tunnel: second },
        servers,
    };
    Balancer {
        node: "lb1".into(),
        threads: 2,
        max_connections: 100,
        idle_connections: 100,
        hard_stop_after: Duration::from_secs(3600),
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
    assert!(shared.set_health(app, 1, Health::Down, "connection refused"));
    assert_eq!(generation(), before + 1);
    assert!(!shared.set_health(app, 1, Health::Down, "no answer within 2s"));
    assert_eq!(generation(), before + 1);
    assert_eq!(states(&shared)[1], (ServerState::Down, "no answer within 2s".to_owned()));
    assert!(!shared.set_health(app, 2, Health::Up, "there is no such server"));
    assert!(!shared.set_health(BackendIndex(1), 0, Health::Up, "there is no such backend"));
}

#[test]
fn a_change_is_one_sentence_in_the_log_and_so_is_the_end_of_a_backend() {
    let log = Log::of(|| {
        let shared = Shared::new(one_backend(Balance::RoundRobin, vec![server("a", 1), server("b", 1)]));
        let set = |server, health, reason| shared.set_health(BackendIndex(0), server, health, reason);
        set(0, Health::Up, "status 200");
        set(0, Health::Up, "status 500, expected 200-399 (1 of 3 failures)");
        set(0, Health::Down, "status 500, expected 200-399");
        set(1, Health::Down, "connection refused");
        set(1, Health::Down, "no answer within 2s");
        set(1, Health::Up, "status 200");
        shared.set_weight(BackendIndex(0), 1, Some(5));
        shared.set_admin(BackendIndex(0), 1, Admin::Drain, "an operator asks for it");
    });
    let expected = " WARN server app/a is down: status 500, expected 200-399\n \
        WARN server app/b is down: connection refused\n\
        ERROR backend app has no server left: all are down\n \
        INFO server app/b is up: status 200\n \
        INFO backend app has a server again: b\n \
        INFO server app/b is drained: an operator asks for it\n\
        ERROR backend app has no server left: none is up\n";
    assert_eq!(log, expected);
}

#[test]
fn what_takes_the_place_of_a_configuration_has_what_was_known() {
    let app = BackendIndex(0);
    let checked = |name: &str| Server { check: true, ..server(name, 10) };
    let elsewhere = |name: &str| {
        let address = ServerAddress::Socket((Ipv4Addr::LOCALHOST, 10).into());
        Server { address, ..server(name, 10) }
    };
    let old = Shared::new(one_backend(Balance::RoundRobin, ["a", "b", "c", "d", "e"].map(checked).to_vec()));
    old.set_health(app, 0, Health::Up, "status 200");
    old.set_health(app, 1, Health::Down, "connection refused");
    old.set_admin(app, 2, Admin::Drain, "an operator");
    old.set_health(app, 2, Health::Up, "status 200");
    old.set_weight(app, 3, Some(77));
    old.set_admin(app, 3, Admin::Maintenance, "an operator");
    old.backends[0].servers[3].requests.store(5, Relaxed);
    old.set_health(app, 4, Health::Down, "connection refused");

    // Other places, another weight, one at another address, one that is no longer checked, one that is new.
    let servers = vec![
        Server { check: true, ..elsewhere("d") },
        Server { weight: 20, ..checked("b") },
        Server { weight: 20, ..checked("a") },
        checked("c"),
        server("e", 10),
        checked("f"),
    ];
    let new = old.succeeded_by(one_backend(Balance::LeastConnections, servers));
    let rows: Vec<_> = new.report()[0].servers.iter().map(|it| (it.name.clone(), it.state, it.weight)).collect();
    use ServerState::{Down, Drain, Maintenance, Starting, Up};
    let expected = [("d", Maintenance, 77), ("b", Down, 20), ("a", Up, 20), ("c", Drain, 10), ("e", Up, 10)];
    let expected = expected.map(|(name, state, weight)| (name.to_owned(), state, weight));
    assert_eq!(rows[..5], expected);
    assert_eq!(rows[5], ("f".to_owned(), Starting, 10));
    assert_eq!(new.report()[0].servers[0].requests, 5);
    assert_eq!(new.place_of(&old, app, 0), Some((app, 2)));
    assert_eq!(new.place_of(&old, app, 3), None, "at another address it is another server");

    // What is found out now is so under both, and so is who may be chosen.
    let generation = |shared: &Shared| shared.backends[0].generation.load(Relaxed);
    let before = (generation(&old), generation(&new));
    assert!(new.set_health(app, 1, Health::Up, "status 200"));
    assert_eq!((generation(&old), generation(&new)), (before.0 + 1, before.1 + 1));
    assert_eq!(states(&old)[1], (Up, "status 200".to_owned()));

    assert_eq!(new.old_configurations().count, 1);
    drop(old);
    assert_eq!(new.old_configurations().count, 0);
    assert_eq!(new.old_configurations().oldest_s, 0.0);
}

/// Whoever changes a server while the next configuration is made may not know of that one yet.
#[test]
fn a_server_that_changes_while_a_configuration_is_made_has_changed_under_it() {
    let app = BackendIndex(0);
    let checked = |name| Server { check: true, ..server(name, 1) };
    let config = || one_backend(Balance::RoundRobin, vec![checked("a"), checked("b")]);
    let mut newest = Shared::new(config());
    for round in 0..2000 {
        let old = newest.clone();
        let health = if round % 2 == 0 { Health::Down } else { Health::Up };
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                old.set_health(app, 0, health, "its traffic");
            });
            both.wait();
            newest = old.succeeded_by(config());
        });
        let is_chosen = newest.backends[0].plan.load().takes(0);
        assert_eq!(is_chosen, health == Health::Up, "round {round}");
    }
}

/// A wish is heeded under each configuration, the old one first, while the next is made; only the newest one's servers are raised.
#[tokio::test]
async fn slow_start_is_told_of_under_every_configuration() {
    let app = BackendIndex(0);
    let config = || {
        let mut config = one_backend(Balance::RoundRobin, vec![server("a", 1), server("b", 1)]);
        config.backends[0].slow_start = Some(Duration::from_secs(10));
        config
    };
    let old = Shared::new(config());
    old.set_admin(app, 0, Admin::Maintenance, "an operator");
    let new = old.succeeded_by(config());
    old.set_admin(app, 0, Admin::Ready, "an operator");
    assert_eq!(new.backends[0].servers[0].tenths(), 1);
    let told = tokio::time::timeout(Duration::from_secs(10), new.backends[0].came_back.notified()).await;
    assert!(told.is_ok(), "nobody raises it");
}

#[test]
fn a_check_does_not_undo_what_the_traffic_has_said_meanwhile() {
    let app = BackendIndex(0);
    let shared = Shared::new(one_backend(Balance::RoundRobin, vec![Server { check: true, ..server("a", 1) }]));
    shared.conclude(app, 0, [Health::Starting, Health::Up], "status 200");
    assert_eq!(states(&shared)[0].0, ServerState::Up);
    shared.set_health(app, 0, Health::Down, "its traffic");
    shared.conclude(app, 0, [Health::Up, Health::Up], "status 200");
    assert_eq!(states(&shared), [(ServerState::Down, "its traffic".to_owned())]);
}

/// It has not had all of its weight yet.
#[test]
fn a_server_that_is_drained_while_it_rises_begins_again() {
    let app = BackendIndex(0);
    let mut config = one_backend(Balance::RoundRobin, vec![server("a", 1)]);
    config.backends[0].slow_start = Some(Duration::from_secs(10));
    let shared = Shared::new(config);
    let tenths = || shared.backends[0].servers[0].tenths();
    shared.set_health(app, 0, Health::Down, "connection refused");
    shared.set_health(app, 0, Health::Up, "connection accepted");
    shared.raise(app, Duration::from_secs(10), Instant::now() + Duration::from_secs(5));
    assert_eq!(tenths(), 5);
    shared.set_admin(app, 0, Admin::Drain, "an operator");
    shared.set_admin(app, 0, Admin::Ready, "an operator");
    assert_eq!(tenths(), 1);
    assert!(!shared.raise(app, Duration::from_secs(10), Instant::now() + Duration::from_secs(20)));
    shared.set_admin(app, 0, Admin::Drain, "an operator");
    shared.set_admin(app, 0, Admin::Ready, "an operator");
    assert_eq!(tenths(), WHOLE);
}

/// Whoever takes its last server, and under whatever configuration.
#[test]
fn a_backend_says_once_that_it_has_no_server_and_once_that_it_has_one() {
    let app = BackendIndex(0);
    let config = || one_backend(Balance::RoundRobin, vec![server("a", 1), server("b", 1)]);
    let log = Log::of(|| {
        let old = Shared::new(config());
        let new = old.succeeded_by(config());
        old.set_health(app, 0, Health::Down, "its traffic");
        old.set_weight(app, 1, Some(0));
        new.set_admin(app, 1, Admin::Maintenance, "an operator");
        new.set_admin(app, 1, Admin::Ready, "an operator");
        new.set_health(app, 0, Health::Up, "connection accepted");
    });
    let expected = " WARN server app/a is down: its traffic\n\
        ERROR backend app has no server left: none is up\n \
        INFO server app/b is in maintenance: an operator\n \
        INFO server app/b is up: its weight is 0; not checked\n \
        INFO server app/a is up: connection accepted\n \
        INFO backend app has a server again: a\n";
    assert_eq!(log, expected);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// What is logged meanwhile.
    fn of(work: impl FnOnce()) -> String {
        let log = Self::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || log.clone()).without_time();
        tracing::subscriber::with_default(subscriber.with_target(false).with_ansi(false).finish(), work);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
