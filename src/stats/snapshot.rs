//! The state of a node at one moment: what all three outputs show, as plain values.

use std::time::Duration;

use crate::stats::checks::{Answer, Check, History};
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
    /// Lines of requests that were lost; each counts once for every target that did not get it.
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
    /// `None`: none is asked.
    pub agent: Option<Agent>,
    /// It only serves when no other does.
    pub is_backup: bool,
    /// The balancing algorithm may choose it.
    pub is_eligible: bool,
    /// As configured or changed since; that of `row` is what slow start lets it have of it.
    pub whole_weight: u32,
    /// How much of it that is, in percent; `None`: all of it.
    pub throttle: Option<u32>,
    /// All else.
    pub row: Row,
}

/// A server's agent; its last answer is with the checks.
#[derive(Debug, Clone, Copy)]
pub struct Agent {
    /// It calls the server down.
    pub says_down: bool,
    /// It alone ends new sessions.
    pub takes_out: bool,
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
    /// The most that may wait.
    pub queue_limit: Option<u64>,
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
    /// Red: its agent says so, and its checks do not.
    DownByAgent,
    /// Brown.
    Maintenance,
    /// Blue: only what a cookie brings.
    Drain,
    /// Blue: its agent wants that.
    DrainByAgent,
    /// Not checked for the first time yet.
    Starting,
    /// Grey, and always up.
    NotChecked,
}

impl Server {
    /// Its state and where that goes.
    pub fn condition(&self) -> Condition {
        let last = self.last_check();
        let (rise, fall) = self.thresholds.unwrap_or_default();
        let by_agent = self.agent.is_some_and(|agent| agent.takes_out);
        match (self.row.state, last) {
            (ServerState::Maintenance, _) => Condition::Maintenance,
            (ServerState::Drain, _) if by_agent => Condition::DrainByAgent,
            (ServerState::Drain, _) => Condition::Drain,
            (ServerState::Starting, _) => Condition::Starting,
            (ServerState::Down, _) if by_agent => Condition::DownByAgent,
            (ServerState::Down, Some(check)) if check.successes > 0 => Condition::GoingUp(check.successes, rise),
            (ServerState::Down, _) => Condition::Down,
            (ServerState::Up, _) if self.thresholds.is_none() => Condition::NotChecked,
            (ServerState::Up, Some(check)) if check.failures > 0 => Condition::GoingDown(check.failures, fall),
            (ServerState::Up, _) => Condition::Up,
        }
    }

    /// Does it take new sessions, if it is its turn?
    pub fn is_usable(&self) -> bool {
        self.row.state == ServerState::Up && self.row.weight > 0
    }

    /// `None`: it was never checked.
    pub fn last_check(&self) -> Option<Check> {
        self.row.checks.as_ref()?.history.last
    }

    /// `None`: its agent was never asked.
    pub fn last_answer(&self) -> Option<&Answer> {
        self.row.checks.as_ref()?.history.last_answer.as_ref()
    }
}

impl Backend {
    /// Servers that are up: active ones and backup ones.
    pub fn usable(&self) -> (usize, usize) {
        let backup = self.servers.iter().filter(|server| server.is_usable() && server.is_backup).count();
        (self.servers.iter().filter(|server| server.is_usable()).count() - backup, backup)
    }

    /// Servers that may be chosen now: active ones, and only without them backup ones.
    pub fn eligible(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.is_eligible)
    }

    /// Their weight.
    pub fn weight(&self) -> u32 {
        self.eligible().map(|server| server.row.weight).sum()
    }

    /// The same without regard to slow start.
    pub fn whole_weight(&self) -> u32 {
        self.eligible().map(|server| server.whole_weight).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use super::*;
    use crate::stats::checks::{Checks, Outcome};
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
            ("asleep", Down, check(ok, 0, 0), "its agent says down: night"),
            ("leaving", Drain, check(ok, 0, 0), "its agent asks for drain"),
            ("failing", Down, None, "3 errors of its traffic in a row, the last: status 500"),
            ("warming", Up, check(ok, 0, 0), "status 200"),
            ("standby", Up, check(ok, 0, 0), "status 200"),
        ];
        let servers = servers.into_iter().enumerate().map(|(index, (name, state, last, reason))| {
            let checks = Checks::new(Up, now);
            checks.changed(|| state, now);
            last.into_iter().for_each(|check| checks.checked(check));
            let agent = ["asleep", "leaving"].contains(&name).then(|| {
                let says_down = state == Down;
                checks.answered(Answer {
                    outcome: if says_down { Outcome::SaysDown } else { Outcome::Passed(None) },
                    duration: Duration::from_millis(2),
                    words: if says_down { "down # night" } else { "drain" }.into(),
                });
                Agent { says_down, takes_out: true }
            });
            if name == "failing" {
                checks.marked_down();
            }
            let weight = if name == "drained" { 0 } else { 10 };
            let (is_backup, throttle) = (name == "standby", (name == "warming").then_some(30));
            Server {
                name: name.to_owned(),
                address: format!("192.0.2.{}:80", 21 + index),
                cookie: Some(name.to_owned()),
                reason: reason.to_owned(),
                thresholds: (name != "plain").then_some((2, 3)),
                agent,
                is_backup,
                is_eligible: state == Up && !is_backup,
                whole_weight: weight,
                throttle,
                row: Row {
                    state,
                    weight: throttle.map_or(weight, |percent| weight * percent / 100),
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
