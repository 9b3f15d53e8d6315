//! Who of a backend may be chosen, and what the choice is made from: computed when a state or a weight changes, so that a
//! request only looks it up.

use super::random::{Random, Urn};
use super::ring::{Ring, places_per_weight};
use super::{Schedule, least_connections};
use crate::config::model::{Backend, Balance, HashMethod, WhenAllDown};
use crate::status::ServerState;

/// A server as it is at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Does it take part?
    pub state: ServerState,
    /// 0: it gets only what a session brings.
    pub weight: u32,
    /// How much of its weight slow start lets it have, 1 to [`WHOLE`].
    pub tenths: u32,
}

/// All of a server's weight.
pub const WHOLE: u32 = 10;

/// A server that may be chosen, with a weight above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) server: usize,
    pub(super) weight: u32,
}

/// The servers that may be chosen, in the form that the backend's algorithm needs.
#[derive(Debug, Default)]
pub struct Plan {
    method: Method,
    /// Turns; none where the algorithm takes none.
    schedule: Schedule,
}

#[derive(Debug, Default)]
enum Method {
    #[default]
    RoundRobin,
    LeastConnections(Vec<Member>),
    First(Vec<Member>),
    Random {
        urn: Urn,
        draws: u32,
    },
    MapBased,
    Consistent(Ring),
}

/// What a choice depends on beside the plan.
pub(super) struct Circumstances<'a, Connections, Turn> {
    /// The request's.
    pub(super) key: Option<u64>,
    /// Servers that are left out.
    pub(super) tried: &'a [usize],
    /// What is under way at a server.
    pub(super) connections: Connections,
    /// Takes the next turn.
    pub(super) turn: Turn,
    pub(super) random: &'a mut Random,
}

impl Plan {
    /// For the servers as they stand. `turn` is the next that will be taken, `previous` what was followed so far.
    pub fn new(backend: &Backend, standing: &[Standing], previous: &Plan, turn: u64) -> Self {
        let eligible = eligible(backend, standing);
        let configured = |server: &usize| backend.servers.get(*server).map_or(0, |server| server.weight);
        let now = |server: &usize| standing.get(*server).map_or(0, |server| server.weight);
        let is_rising = standing.iter().any(|server| server.tenths < WHOLE);
        let rising = |server: &usize| match standing.get(*server) {
            Some(standing) if is_rising => standing.weight * standing.tenths,
            Some(standing) => standing.weight,
            None => 0,
        };
        let members = |weight: &dyn Fn(&usize) -> u32| -> Vec<Member> {
            eligible.iter().map(|server| Member { server: *server, weight: weight(server) }).collect()
        };
        let schedule = |members: &[Member]| Schedule::new(members, &previous.schedule, turn);

        let (method, schedule) = match &backend.balance {
            Balance::RoundRobin => (Method::RoundRobin, schedule(&members(&rising))),
            // Who was given a weight while he had none of his own counts once.
            Balance::StaticRoundRobin => (Method::RoundRobin, schedule(&members(&|server| configured(server).max(1)))),
            Balance::LeastConnections => (Method::LeastConnections(members(&rising)), Schedule::default()),
            Balance::First => (Method::First(members(&now)), Schedule::default()),
            Balance::Random { draws } => {
                (Method::Random { urn: Urn::new(&members(&rising)), draws: *draws }, Schedule::default())
            }
            Balance::Hash { method: HashMethod::MapBased, .. } => (Method::MapBased, schedule(&members(&now))),
            Balance::Hash { method: HashMethod::Consistent, .. } => {
                let per_weight = places_per_weight(backend.servers.iter().map(|server| server.weight));
                let places = |server: usize, standing: &Standing| {
                    let name = backend.servers.get(server).map_or("", |server| server.name.as_str());
                    let share = u64::from(standing.weight * standing.tenths);
                    (server, name, (per_weight * share / u64::from(10 * WHOLE)).max(1))
                };
                let ring = Ring::new(
                    eligible
                        .iter()
                        .filter_map(|server| standing.get(*server).map(|standing| places(*server, standing))),
                );
                (Method::Consistent(ring), schedule(&members(&rising)))
            }
        };
        Self { method, schedule }
    }

    /// The server that is next; `None` if there is none that was not tried.
    pub(super) fn choose<C: Fn(usize) -> u64, T: FnOnce() -> u64>(
        &self,
        now: Circumstances<'_, C, T>,
    ) -> Option<usize> {
        let Circumstances { key, tried, connections, turn, random } = now;
        match (&self.method, key) {
            (Method::MapBased, Some(key)) => self.schedule.of_key(key, tried),
            (Method::Consistent(ring), Some(key)) => ring.of_key(key, tried),
            (Method::RoundRobin | Method::MapBased | Method::Consistent(_), _) => {
                self.schedule.at_without(turn(), tried)
            }
            (Method::LeastConnections(members), _) => {
                least_connections::least_loaded(members, connections, tried, turn())
            }
            (Method::First(members), _) => {
                members.iter().map(|member| member.server).find(|server| !tried.contains(server))
            }
            (Method::Random { urn, draws }, _) => urn.draw(*draws, connections, tried, || random.next()),
        }
    }
}

/// Those that are up; where none is, those that stand by; where none of these is either, what the backend says.
fn eligible(backend: &Backend, standing: &[Standing]) -> Vec<usize> {
    let servers = || backend.servers.iter().zip(standing).enumerate().filter(|(_, (_, now))| now.weight > 0);
    let up = |is_backup: bool| -> Vec<usize> {
        let takes_part =
            servers().filter(|(_, (server, now))| server.backup == is_backup && now.state == ServerState::Up);
        takes_part.map(|(index, _)| index).collect()
    };

    let active = up(false);
    if !active.is_empty() {
        return active;
    }
    let mut backups = up(true);
    if !backend.all_backups {
        backups.truncate(1);
    }
    if !backups.is_empty() || backend.when_all_down == WhenAllDown::Reject {
        return backups;
    }
    let is_hoped_for = |state: ServerState| matches!(state, ServerState::Down | ServerState::Starting);
    servers().filter(|(_, (_, now))| is_hoped_for(now.state)).map(|(index, _)| index).collect()
}
