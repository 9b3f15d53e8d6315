//! The state of a node at one moment: what all three outputs show, as plain values.

use std::time::Duration;

use crate::stats::checks::History;
use crate::stats::counters::{HistogramTotals, Totals};
use crate::stats::rates::Rate;
use crate::status::{PairStatus, ServerState};

/// A node's balancer, and what its keeper told of the pair.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The node's name.
    pub node: String,
    /// The process.
    pub pid: u32,
    /// Of the process.
    pub uptime: Duration,
    /// Worker threads.
    pub threads: usize,
    /// Client connections now, and how many there may be.
    pub connections: (u64, u64),
    /// Since the start.
    pub requests: u64,
    /// Lines of the access log that nobody took.
    pub lost_log_lines: u64,
    /// `None`: the keeper has not yet told.
    pub pair: Option<PairStatus>,
    /// Frontends, then backends, in the order of the file.
    pub proxies: Vec<Proxy>,
}

/// A frontend, or a backend with its servers.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its name.
    pub name: String,
    /// The frontend's mode; a backend's, by the frontends that lead to it.
    pub mode: &'static str,
    /// What of it is shown.
    pub kind: ProxyKind,
    /// The frontend or backend itself.
    pub own: Row,
}

/// Frontend or backend.
#[derive(Debug, Clone)]
pub enum ProxyKind {
    /// Where clients come in.
    Frontend {
        /// Where it listens.
        binds: Vec<String>,
    },
    /// Where requests go.
    Backend(Box<Backend>),
}

/// What only a backend has.
#[derive(Debug, Clone)]
pub struct Backend {
    /// `balance`, in HAProxy's word.
    pub algorithm: &'static str,
    /// The cookie that keeps sessions.
    pub cookie: Option<String>,
    /// How long responses' heads took.
    pub response: HistogramTotals,
    /// How long requests took in all.
    pub total: HistogramTotals,
    /// In the order of the file.
    pub servers: Vec<Server>,
}

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Its value in the cookie.
    pub cookie: Option<String>,
    /// Why it is in its state.
    pub reason: String,
    /// Successes and failures in a row that change its state; `None`: it is not checked.
    pub thresholds: Option<(u32, u32)>,
    /// It only serves when no other does.
    pub is_backup: bool,
    /// All else.
    pub row: Row,
}

/// What frontends, backends and servers have in common.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// A frontend is always up.
    pub state: ServerState,
    /// As it counts now.
    pub weight: u32,
    /// What was counted.
    pub totals: Totals,
    /// Sessions now.
    pub sessions: u64,
    /// The most that there may be.
    pub session_limit: Option<u64>,
    /// Requests that wait for a server, now and at most.
    pub queue: (u64, u64),
    /// Per second.
    pub rate: Rate,
    /// `None`: a frontend's.
    pub checks: Option<Health>,
}

/// Of a server or backend, in whole seconds.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Health {
    pub unchanged_for: Duration,
    pub downtime: Duration,
    pub history: History,
}

/// A server's state with what is under way: HAProxy's colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Green; without checks grey.
    Up,
    /// Yellow: so many of so many failures.
    GoingDown(u32, u32),
    /// Orange: so many of so many successes.
    GoingUp(u32, u32),
    /// Red.
    Down,
    /// Brown.
    Maintenance,
    /// Blue: only what a cookie brings.
    Drain,
    /// Not checked for the first time yet.
    Starting,
    /// Grey, and always up.
    NotChecked,
}

impl Server {
    /// Its state and where that goes.
    pub fn condition(&self) -> Condition {
        let last = self.row.checks.as_ref().and_then(|health| health.history.last);
        let (rise, fall) = self.thresholds.unwrap_or_default();
        match (self.row.state, last) {
            (ServerState::Maintenance, _) => Condition::Maintenance,
            (ServerState::Drain, _) => Condition::Drain,
            (ServerState::Starting, _) => Condition::Starting,
            (ServerState::Down, Some(check)) if check.successes > 0 => Condition::GoingUp(check.successes, rise),
            (ServerState::Down, _) => Condition::Down,
            (ServerState::Up, _) if self.thresholds.is_none() => Condition::NotChecked,
            (ServerState::Up, Some(check)) if check.failures > 0 => Condition::GoingDown(check.failures, fall),
            (ServerState::Up, _) => Condition::Up,
        }
    }

    /// Does the balancing algorithm choose it?
    pub fn is_usable(&self) -> bool {
        self.row.state == ServerState::Up && self.row.weight > 0
    }
}

impl Backend {
    /// Servers that are up: active ones and backup ones.
    pub fn usable(&self) -> (usize, usize) {
        let backup = self.servers.iter().filter(|server| server.is_usable() && server.is_backup).count();
        (self.servers.iter().filter(|server| server.is_usable()).count() - backup, backup)
    }

    /// The weight of those that are up.
    pub fn weight(&self) -> u32 {
        self.servers.iter().filter(|server| server.is_usable()).map(|server| server.row.weight).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use super::*;
    use crate::stats::checks::{Check, Checks, Outcome};
    use crate::stats::counters::{Durations, Event, Histogram, Traffic};
    use crate::status::{BalancerState, BalancerStatus, NodeStatus, PeerStatus};

    /// A node with a frontend, and a backend with a server in each state.
    pub(crate) fn example() -> Snapshot {
        let now = Instant::now();
        let check = |outcome, successes, failures| {
            Some(Check { outcome, duration: Duration::from_millis(3), successes, failures })
        };
        let ok = Outcome::Passed(Some(200));
        use ServerState::{Down, Drain, Maintenance, Up};
        let servers = [
            ("up", Up, check(ok, 0, 0), "status 200"),
            ("falling", Up, check(Outcome::WrongStatus(503), 0, 1), "status 503, expected 200-399 (1 of 3 failures)"),
            ("rising", Down, check(ok, 1, 0), "status 200 (1 of 2 successes)"),
            ("down", Down, check(Outcome::NotConnected, 0, 0), "connection refused"),
            ("upkeep", Maintenance, check(ok, 0, 0), "set by an operator"),
            ("drained", Drain, check(ok, 0, 0), "status 200"),
            ("plain", Up, None, "not checked"),
        ];
        let servers = servers.into_iter().enumerate().map(|(index, (name, state, last, reason))| {
            let checks = Checks::new(Up, now);
            checks.changed(state, now);
            last.into_iter().for_each(|check| checks.checked(check));
            Server {
                name: name.to_owned(),
                address: format!("192.0.2.{}:80", 21 + index),
                cookie: Some(name.to_owned()),
                reason: reason.to_owned(),
                thresholds: last.map(|_| (2, 3)),
                is_backup: false,
                row: Row {
                    state,
                    weight: if state == Drain { 0 } else { 10 },
                    totals: traffic(1_000_003 * (index as u64 + 1)),
                    sessions: 3,
                    session_limit: (index == 0).then_some(200),
                    checks: Some(Health {
                        unchanged_for: Duration::from_secs(86_400 * index as u64 + 42),
                        downtime: Duration::from_secs(75 * index as u64),
                        history: checks.history(),
                    }),
                    ..Row::default()
                },
            }
        });
        let durations = Histogram::default();
        durations.add(Duration::from_millis(7));
        durations.add(Duration::from_secs(70));
        let durations = HistogramTotals::of(std::iter::once(&durations));
        let history = Checks::new(Up, now).history();
        let health = Health { unchanged_for: Duration::from_secs(3_700), downtime: Duration::ZERO, history };
        let backend = Backend {
            algorithm: "roundrobin",
            cookie: Some("SESSION".to_owned()),
            response: durations.clone(),
            total: durations,
            servers: servers.collect(),
        };
        let own = Row { state: Up, totals: traffic(28_000_084), sessions: 21, checks: Some(health), ..Row::default() };
        let web = ProxyKind::Frontend { binds: vec!["0.0.0.0:80".to_owned()] };
        let front = Row { session_limit: Some(20_000), checks: None, ..own.clone() };
        let balancer = BalancerStatus { state: BalancerState::Serving, ..BalancerStatus::default() };
        let node = |name: &str, state| NodeStatus {
            node: name.to_owned(),
            balancer: balancer.clone(),
            can_take_over: true,
            vrrp: vec![relevo_ha::RouterStatus {
                name: "main".to_owned(),
                state,
                addresses: vec!["192.0.2.20/24".to_owned()],
                priority: 200,
                ..relevo_ha::RouterStatus::default()
            }],
            ..NodeStatus::default()
        };
        let peer = PeerStatus {
            name: "lb2".to_owned(),
            connected: true,
            config_matches: true,
            status: node("lb2", relevo_ha::State::Backup),
            ..PeerStatus::default()
        };
        Snapshot {
            node: "lb1".to_owned(),
            pid: 4711,
            uptime: Duration::from_secs(93_784),
            threads: 2,
            connections: (21, 20_000),
            requests: 28_000_084,
            lost_log_lines: 0,
            pair: Some(PairStatus { node: node("lb1", relevo_ha::State::Active), peers: vec![peer] }),
            proxies: vec![
                Proxy { name: "web".to_owned(), mode: "http", kind: web, own: front },
                Proxy { name: "app".to_owned(), mode: "http", kind: ProxyKind::Backend(Box::new(backend)), own },
            ],
        }
    }

    fn traffic(requests: u64) -> Totals {
        let traffic = Traffic::default();
        traffic.session(17);
        for (event, number) in [
            (Event::Session, requests - 1),
            (Event::Request, requests),
            (Event::Response2xx, requests - 30),
            (Event::Response4xx, 20),
            (Event::Response5xx, 10),
            (Event::BytesIn, 300 * requests),
            (Event::BytesOut, 15_000 * requests),
            (Event::Retry, 2),
            (Event::Redispatch, 1),
            (Event::ConnectError, 4),
        ] {
            traffic.add(event, number);
        }
        let ms = |millis| Some(Duration::from_millis(millis));
        traffic.took(&Durations([ms(0), ms(1), ms(12), ms(20)]));
        Totals::of(std::iter::once(&traffic))
    }
}
