//! The balancer's state at one moment, for those who look at the statistics.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::balancer::balance::plan::WHOLE;
use crate::balancer::state::{ServerShared, Shared};
use crate::config::model::{self, BackendOrigin, Balance, HashKey, Mode, Origins};
use crate::stats::checks::Checks;
use crate::stats::counters::{Event, HistogramTotals, Totals};
use crate::stats::rates::Rate;
use crate::stats::snapshot::{Agent, Backend, Health, Proxy, ProxyKind, Row, Server, Snapshot};

/// Between two looks that rates are made from.
pub(super) const SAMPLING: Duration = Duration::from_secs(1);

/// Takes the totals that rates are made from, so long after the last ones.
pub(super) fn sample(shared: &Shared, passed: Duration) {
    let counts = totals(shared).map(|totals| (totals[Event::Session], totals[Event::Request]));
    shared.statistics.rates.lock().unwrap_or_else(PoisonError::into_inner).sample(counts, passed);
}

/// The rows are those of another configuration from now on.
pub(super) fn rearrange(old: &Shared, new: &Shared) {
    let old = &old.config;
    let Origins { frontends, backends } = Origins::find(&new.config, old);
    // Where the rows of each old backend begin.
    let firsts: Vec<usize> = old
        .backends
        .iter()
        .scan(old.frontends.len(), |next, backend| Some(std::mem::replace(next, *next + 1 + backend.servers.len())))
        .collect();
    let rows_of_backend = |origin: BackendOrigin| {
        let first = origin.index.and_then(|index| firsts.get(index).copied());
        let servers = origin.servers.into_iter().map(move |server| Some(first? + 1 + server?));
        std::iter::once(first).chain(servers)
    };
    let mut rates = new.statistics.rates.lock().unwrap_or_else(PoisonError::into_inner);
    rates.rearrange(frontends.into_iter().chain(backends.into_iter().flat_map(rows_of_backend)));
}

/// What all workers counted for each row: frontends, then each backend and its servers.
fn totals(shared: &Shared) -> impl Iterator<Item = Totals> {
    let workers = || shared.counters.iter();
    let frontends = (0..shared.config.frontends.len())
        .map(move |index| Totals::of(workers().map(|worker| &worker.frontends[index])));
    let backends = shared.config.backends.iter().enumerate().flat_map(move |(index, backend)| {
        let own = Totals::of(workers().map(|worker| &worker.backends[index].traffic));
        let servers = (0..backend.servers.len())
            .map(move |server| Totals::of(workers().map(|worker| &worker.backends[index].servers[server])));
        std::iter::once(own).chain(servers)
    });
    frontends.chain(backends)
}

/// All of it.
pub(super) fn snapshot(shared: &Shared) -> Snapshot {
    let now = Instant::now();
    let rates = shared.statistics.rates.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows = totals(shared).enumerate().map(|(row, totals)| (totals, rates.of(row)));
    let config = &shared.config;
    let mut proxies = Vec::new();
    for (frontend, state) in config.frontends.iter().zip(&shared.frontends) {
        let limit = frontend.max_connections.map_or(config.max_connections as u64, u64::from);
        proxies.push(Proxy {
            name: frontend.name.clone(),
            mode: word(frontend.mode),
            kind: ProxyKind::Frontend { binds: frontend.binds.iter().map(|bind| bind.address.to_string()).collect() },
            own: Row { session_limit: Some(limit), ..row(rows.next(), state.connections.count()) },
        });
    }
    let tcp = backends_of_tcp(config);
    for (index, (backend, state)) in config.backends.iter().zip(&shared.backends).enumerate() {
        let queue = state.queue_lengths();
        let queue_limit = backend.max_queue.map(u64::from);
        let own = row(rows.next(), state.connections.load(Relaxed));
        let own = Row { queue: queue.any, queue_limit, ..own };
        let eligible = state.eligible(backend);
        let servers = backend.servers.iter().zip(&state.servers).enumerate().map(|(index, (config, state))| {
            let queue = queue.own.get(index).copied().unwrap_or_default();
            let row = Row { queue, ..row(rows.next(), 0) };
            Server { is_eligible: eligible.contains(&index), ..server(backend, config, state, row, now) }
        });
        let servers: Vec<_> = servers.collect();
        let workers = || shared.counters.iter().map(move |worker| &worker.backends[index]);
        let kind = ProxyKind::Backend(Box::new(Backend {
            algorithm: algorithm(&backend.balance),
            cookie: backend.cookie.as_ref().map(|cookie| cookie.name.clone()),
            response: HistogramTotals::of(workers().map(|backend| &backend.response)),
            total: HistogramTotals::of(workers().map(|backend| &backend.total)),
            servers,
        }));
        proxies.push(Proxy {
            name: backend.name.clone(),
            mode: word(if tcp.contains(&index) { Mode::Tcp } else { Mode::Http }),
            kind,
            own: Row { state: state.state(), checks: Some(health(&state.checks, now)), ..own },
        });
    }
    Snapshot {
        node: config.node.clone(),
        pid: std::process::id(),
        uptime: now.saturating_duration_since(shared.started),
        threads: config.threads,
        connections: (shared.connections.count(), config.max_connections as u64),
        requests: shared.requests(),
        lost_log_lines: shared.statistics.lost_log_lines.load(Relaxed),
        pair: shared.statistics.pair.load_full().map(|pair| (*pair).clone()),
        proxies,
    }
}

fn row(counted: Option<(Totals, Rate)>, sessions: u64) -> Row {
    let (totals, rate) = counted.unwrap_or_default();
    Row { totals, rate, sessions, ..Row::default() }
}

fn server(backend: &model::Backend, config: &model::Server, state: &ServerShared, row: Row, now: Instant) -> Server {
    let report = state.report(config);
    let tenths = if backend.balance.heeds_slow_start() { state.tenths() } else { WHOLE };
    let agent = || Agent { says_down: state.is_down_to_agent(), takes_out: state.is_out_by_agent() };
    Server {
        name: report.name,
        address: report.address,
        cookie: backend.cookie.as_ref().map(|_| config.cookie.clone()),
        reason: report.reason,
        thresholds: config.check.then_some((backend.health.rise, backend.health.fall)),
        agent: backend.agent.as_ref().map(|_| agent()),
        is_backup: config.backup,
        is_eligible: false,
        whole_weight: report.weight,
        throttle: (tenths < WHOLE).then_some(tenths * 100 / WHOLE),
        row: Row {
            state: report.state,
            weight: (report.weight * tenths).div_ceil(WHOLE),
            sessions: report.connections,
            session_limit: config.max_connections.map(u64::from),
            queue_limit: config.max_queue.map(u64::from),
            checks: Some(health(&state.checks, now)),
            ..row
        },
    }
}

fn health(checks: &Checks, now: Instant) -> Health {
    let history = checks.history();
    Health { unchanged_for: history.unchanged_for(now), downtime: history.downtime(now), history }
}

/// The backends that frontends of mode `"tcp"` lead to.
fn backends_of_tcp(config: &model::Balancer) -> HashSet<usize> {
    let tcp = config.frontends.iter().filter(|frontend| frontend.mode == Mode::Tcp);
    tcp.flat_map(model::Frontend::backends).map(|backend| backend.0).collect()
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Http => "http",
        Mode::Tcp => "tcp",
    }
}

fn algorithm(balance: &Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "roundrobin",
        Balance::StaticRoundRobin => "static-rr",
        Balance::LeastConnections => "leastconn",
        Balance::First => "first",
        Balance::Random { .. } => "random",
        Balance::Hash { key: HashKey::Source, .. } => "source",
        Balance::Hash { key: HashKey::Uri { .. }, .. } => "uri",
        Balance::Hash { key: HashKey::Header(_), .. } => "hdr",
        Balance::Hash { key: HashKey::Parameter(_), .. } => "url_param",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::state::Health;
    use crate::balancer::state::tests::{one_backend, server};
    use crate::config::model::BackendIndex;

    #[test]
    fn a_weight_is_what_slow_start_lets_a_server_have_where_the_algorithm_heeds_it() {
        for (balance, expected) in [
            (Balance::LeastConnections, [(4, 31, Some(10)), (5, 5, None)]),
            (Balance::StaticRoundRobin, [(31, 31, None), (5, 5, None)]),
        ] {
            let mut config = one_backend(balance, vec![server("back", 31), server("there", 5)]);
            config.backends[0].slow_start = Some(Duration::from_secs(60));
            let shared = Shared::new(config);
            for health in [Health::Down, Health::Up] {
                shared.set_health(BackendIndex(0), 0, health, "");
            }
            let snapshot = snapshot(&shared);
            let ProxyKind::Backend(backend) = &snapshot.proxies[0].kind else { panic!("there is no frontend") };
            let weights: Vec<_> = backend
                .servers
                .iter()
                .map(|server| (server.row.weight, server.whole_weight, server.throttle))
                .collect();
            assert_eq!(weights, expected);
            let sum = |weight: fn(&(u32, u32, Option<u32>)) -> u32| expected.iter().map(weight).sum::<u32>();
            assert_eq!((backend.weight(), backend.whole_weight()), (sum(|it| it.0), sum(|it| it.1)));
        }
    }
}
