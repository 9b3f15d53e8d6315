//! Who of a backend may be chosen, and what the choice is made from: computed when a state or a weight changes, so that a
//! request only looks it up.

use super::random::{Random, Urn};
use super::ring::{MOST_PLACES, Ring, places_per_weight};
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
    /// By index of the server: may it be chosen?
    takes: Vec<bool>,
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
                    (server, name, (per_weight * share / u64::from(10 * WHOLE)).clamp(1, MOST_PLACES))
                };
                let ring = Ring::new(
                    eligible
                        .iter()
                        .filter_map(|server| standing.get(*server).map(|standing| places(*server, standing))),
                );
                (Method::Consistent(ring), schedule(&members(&rising)))
            }
        };
        let mut takes = vec![false; backend.servers.len()];
        eligible.iter().filter_map(|server| takes.get_mut(*server).map(|takes| *takes = true)).for_each(drop);
        Self { takes, method, schedule }
    }

    /// May this server be chosen?
    pub fn takes(&self, server: usize) -> bool {
        self.takes.get(server).copied().unwrap_or(false)
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
pub fn eligible(backend: &Backend, standing: &[Standing]) -> Vec<usize> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balancer::state::tests::{one_backend, server};
    use crate::config::model::{HashKey, Server};

    fn balances() -> impl Strategy<Value = Balance> {
        let hash = |method| Balance::Hash { key: HashKey::Source, method };
        prop_oneof![
            Just(Balance::RoundRobin),
            Just(Balance::StaticRoundRobin),
            Just(Balance::LeastConnections),
            Just(Balance::First),
            (1..5_u32).prop_map(|draws| Balance::Random { draws }),
            Just(hash(HashMethod::MapBased)),
            Just(hash(HashMethod::Consistent)),
        ]
    }

    fn states() -> impl Strategy<Value = ServerState> {
        use ServerState::{Down, Drain, Maintenance, Starting, Up};
        prop_oneof![3 => Just(Up), 1 => Just(Starting), 2 => Just(Down), 1 => Just(Drain), 1 => Just(Maintenance)]
    }

    fn standing() -> impl Strategy<Value = Standing> {
        let weight = prop_oneof![Just(0_u32), 1..4_u32];
        (states(), weight, 1..=WHOLE).prop_map(|(state, weight, tenths)| Standing { state, weight, tenths })
    }

    /// Who may serve, by the words of the reference.
    fn may_serve(backend: &Backend, standing: &[Standing]) -> Vec<usize> {
        let all = || 0..standing.len();
        let is_up = |server: &usize| standing[*server].state == ServerState::Up && standing[*server].weight > 0;
        let is_backup = |server: &usize| backend.servers[*server].backup;
        let active: Vec<_> = all().filter(|server| is_up(server) && !is_backup(server)).collect();
        let backups: Vec<_> = all().filter(|server| is_up(server) && is_backup(server)).collect();
        match (active.is_empty(), backups.is_empty()) {
            (false, _) => active,
            (true, false) if backend.all_backups => backups,
            (true, false) => vec![backups[0]],
            (true, true) if backend.when_all_down == WhenAllDown::Reject => Vec::new(),
            (true, true) => {
                let is_tried = |now: &Standing| matches!(now.state, ServerState::Down | ServerState::Starting);
                all().filter(|server| is_tried(&standing[*server]) && standing[*server].weight > 0).collect()
            }
        }
    }

    proptest! {
        #[test]
        fn somebody_who_may_serve_is_chosen_as_long_as_one_is_left(
            balance in balances(),
            servers in proptest::collection::vec((standing(), any::<bool>(), 0..3_u32), 0..7),
            all_backups: bool, tries_all: bool, key: Option<u64>, first_turn: u64, seed: u64,
        ) {
            let configured = servers.iter().enumerate().map(|(index, (_, backup, weight))| {
                Server { backup: *backup, ..server(&format!("s{index}"), *weight) }
            });
            let mut config = one_backend(balance, configured.collect());
            let backend = &mut config.backends[0];
            backend.all_backups = all_backups;
            backend.when_all_down = if tries_all { WhenAllDown::TryAll } else { WhenAllDown::Reject };
            let standing: Vec<_> = servers.iter().map(|(standing, ..)| *standing).collect();

            let plan = Plan::new(backend, &standing, &Plan::default(), first_turn);
            let mut left = may_serve(backend, &standing);
            let (mut tried, mut turn, mut random) = (Vec::new(), first_turn, Random::new(seed));
            while !left.is_empty() {
                let chosen = plan.choose(Circumstances {
                    key,
                    tried: &tried,
                    connections: |server: usize| server as u64 % 3,
                    turn: || { turn = turn.wrapping_add(1); turn },
                    random: &mut random,
                });
                prop_assert!(chosen.is_some_and(|server| left.contains(&server)), "{chosen:?} of {left:?}");
                left.retain(|server| Some(*server) != chosen);
                tried.extend(chosen);
            }
            let (connections, turn) = (|_| 0, || turn);
            let last = Circumstances { key, tried: &tried, connections, turn, random: &mut random };
            prop_assert_eq!(plan.choose(last), None);
        }
    }
}
