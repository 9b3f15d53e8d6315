//! Which server of a backend is next.
//!
//! What depends on the servers alone is computed when one of them changes (`plan.rs`) and shared by all workers; a choice
//! looks it up. The parts are pure: the servers' standing, the turn, the key of a request and random numbers are handed in.

pub mod key;
mod least_connections;
pub mod plan;
mod random;
mod ring;
mod round_robin;
pub mod slow_start;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::balancer::state::{BackendState, Shared};
use crate::config::model::BackendIndex;

use plan::{Circumstances, Plan};
use random::Random;
use round_robin::Schedule;

/// A worker's view of all backends. Choosing takes no lock, allocates nothing.
pub struct Chooser {
    shared: Arc<Shared>,
    /// By index of the backend: its plan, and the generation it was taken at.
    plans: Vec<(u64, Arc<Plan>)>,
    random: Random,
}

impl Chooser {
    /// One for each worker.
    pub fn new(shared: Arc<Shared>) -> Self {
        let plans = shared.backends.iter().map(current_plan).collect();
        Self { shared, plans, random: Random::new(RandomState::new().hash_one(())) }
    }

    /// A server that may be chosen and is not among `tried`; `None` if there is no such server. `key` is the request's, where
    /// the backend hashes one.
    ///
    /// All workers take their turns from one counter. A retry is no turn: what the failed server should have had is spread
    /// over the others, and everybody's next turn stays where it was.
    pub fn choose(&mut self, backend: BackendIndex, key: Option<u64>, tried: &[usize]) -> Option<usize> {
        let state = self.shared.backends.get(backend.0)?;
        let (generation, plan) = self.plans.get_mut(backend.0)?;
        if *generation != state.generation.load(Acquire) {
            (*generation, *plan) = current_plan(state);
        }
        let turns = if tried.is_empty() { &state.turn } else { &state.retry_turn };
        plan.choose(Circumstances {
            key,
            tried,
            connections: |server: usize| match state.servers.get(server) {
                Some(server) => server.connections.count(),
                None => u64::MAX,
            },
            turn: || turns.fetch_add(1, Relaxed),
            random: &mut self.random,
        })
    }
}

fn current_plan(state: &BackendState) -> (u64, Arc<Plan>) {
    // The generation first: a plan published after that is taken again rather than missed.
    let generation = state.generation.load(Acquire);
    (generation, state.plan.load_full())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::balancer::state::tests::{one_backend, server};
    use crate::balancer::state::{Admin, Health};
    use crate::config::model::{Backend, Balance, Balancer, HashKey, HashMethod, Server, WhenAllDown};

    const APP: BackendIndex = BackendIndex(0);

    fn shared(balance: Balance, weights: &[u32]) -> Arc<Shared> {
        let servers = weights.iter().enumerate().map(|(index, weight)| server(&format!("s{index}"), *weight)).collect();
        Shared::new(one_backend(balance, servers))
    }

    fn share(choices: impl IntoIterator<Item = usize>) -> BTreeMap<usize, usize> {
        let mut share = BTreeMap::new();
        choices.into_iter().for_each(|server| *share.entry(server).or_default() += 1);
        share
    }

    #[test]
    fn a_thousand_requests_over_several_workers_alternate() {
        let shared = shared(Balance::RoundRobin, &[1, 1]);
        let mut workers: Vec<_> = (0..3).map(|_| Chooser::new(shared.clone())).collect();
        // Whichever worker a connection comes to.
        let choices: Vec<_> = (0..1000_usize).map(|n| workers[n * n % 7 % 3].choose(APP, None, &[]).unwrap()).collect();
        assert!(choices.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn workers_at_the_same_time_keep_to_the_weights_exactly() {
        let shared = shared(Balance::RoundRobin, &[60, 45]);
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let mut worker = Chooser::new(shared.clone());
                std::thread::spawn(move || (0..1050).filter_map(|_| worker.choose(APP, None, &[])).collect::<Vec<_>>())
            })
            .collect();
        let choices = workers.into_iter().flat_map(|worker| worker.join().unwrap());
        assert_eq!(share(choices), BTreeMap::from([(0, 2400), (1, 1800)]));
    }

    #[test]
    fn only_servers_that_are_up_and_have_a_weight_are_chosen() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections] {
            let shared = shared(balance, &[1, 0, 1, 1]);
            let mut worker = Chooser::new(shared.clone());
            let mut choices = |n: usize| share((0..n).filter_map(|_| worker.choose(APP, None, &[])));

            assert_eq!(choices(30), BTreeMap::from([(0, 10), (2, 10), (3, 10)]));
            shared.set_health(APP, 2, Health::Down, "connection refused");
            assert_eq!(choices(20), BTreeMap::from([(0, 10), (3, 10)]));
            shared.set_health(APP, 2, Health::Starting, "its address changed");
            shared.set_admin(APP, 0, Admin::Maintenance, "an operator");
            assert_eq!(choices(20), BTreeMap::from([(3, 20)]));
            shared.set_health(APP, 3, Health::Down, "connection refused");
            assert_eq!(choices(20), BTreeMap::new());
            shared.set_health(APP, 2, Health::Up, "connection accepted");
            assert_eq!(choices(20), BTreeMap::from([(2, 20)]));
            assert_eq!(worker.choose(BackendIndex(7), None, &[]), None);
        }
    }

    #[test]
    fn a_retry_goes_elsewhere_and_leaves_everybodys_turn() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections] {
            let shared = shared(balance, &[1, 1, 1]);
            let mut worker = Chooser::new(shared);
            let (mut first, mut retried) = (Vec::new(), Vec::new());
            for _ in 0..300 {
                let server = worker.choose(APP, None, &[]).unwrap();
                first.push(server);
                if server == 1 {
                    retried.push(worker.choose(APP, None, &[1]).unwrap());
                }
            }
            assert_eq!(share(first), BTreeMap::from([(0, 100), (1, 100), (2, 100)]));
            let retried = share(retried);
            assert!(retried.keys().eq([&0, &2]) && retried.values().all(|n| (30..=70).contains(n)), "{retried:?}");
            assert_eq!(worker.choose(APP, None, &[0, 1]), Some(2));
            assert_eq!(worker.choose(APP, None, &[2, 0, 1]), None);
        }
    }

    #[test]
    fn fewest_connections_in_proportion_to_the_weight() {
        /// Weight and connections of each server; who may be chosen.
        type Row = (&'static [(u32, u64)], &'static [usize]);
        let rows: &[Row] = &[
            (&[(1, 3), (1, 2), (1, 4)], &[1]),
            (&[(1, 2), (1, 2), (1, 4)], &[0, 1]),
            (&[(60, 4), (45, 3)], &[0, 1]),
            (&[(60, 4), (45, 4)], &[0]),
            (&[(60, 5), (45, 3)], &[1]),
            (&[(256, u64::MAX), (255, u64::MAX)], &[0]),
            (&[(0, 0), (1, 9)], &[1]),
        ];
        for (servers, expected) in rows {
            let weights: Vec<_> = servers.iter().map(|(weight, _)| *weight).collect();
            let shared = shared(Balance::LeastConnections, &weights);
            for (state, (_, connections)) in shared.backends[0].servers.iter().zip(*servers) {
                state.connections.set(*connections);
            }
            let mut worker = Chooser::new(shared);
            let share = share((0..10 * expected.len()).filter_map(|_| worker.choose(APP, None, &[])));
            assert_eq!(share, expected.iter().map(|server| (*server, 10)).collect(), "{servers:?}");
        }
    }

    /// A backend of servers with these weights, changed as told.
    fn backend(balance: Balance, weights: &[u32], change: impl FnOnce(&mut Backend)) -> Arc<Shared> {
        let servers: Vec<Server> =
            weights.iter().enumerate().map(|(index, weight)| server(&format!("s{index}"), *weight)).collect();
        let mut config: Balancer = one_backend(balance, servers);
        change(&mut config.backends[0]);
        Shared::new(config)
    }

    fn hash(method: HashMethod) -> Balance {
        Balance::Hash { key: HashKey::Source, method }
    }

    fn shares_of(shared: &Arc<Shared>, choices: u64) -> BTreeMap<usize, usize> {
        let mut worker = Chooser::new(shared.clone());
        share((0..choices).filter_map(|number| worker.choose(APP, Some(key::of_bytes(&number.to_be_bytes())), &[])))
    }

    #[test]
    fn a_weight_that_changes_is_the_share_from_then_on() {
        let weighted = [
            (Balance::RoundRobin, 0.0),
            (Balance::Random { draws: 1 }, 0.02),
            (hash(HashMethod::MapBased), 0.02),
            (hash(HashMethod::Consistent), 0.1),
        ];
        for (balance, tolerance) in weighted {
            let shared = backend(balance.clone(), &[1, 1], |_| {});
            shared.set_weight(APP, 0, Some(3));
            let first = shares_of(&shared, 10_000).get(&0).copied().unwrap_or_default() as f64 / 10_000.0;
            assert!((first - 0.75).abs() <= tolerance, "{balance:?}: {first}");
            shared.set_weight(APP, 0, Some(0));
            assert_eq!(shares_of(&shared, 100), BTreeMap::from([(1, 100)]), "{balance:?}");
            shared.set_weight(APP, 0, None);
            assert!(shares_of(&shared, 1000).len() == 2, "{balance:?}");
        }
    }

    #[test]
    fn least_connections_share_by_a_weight_that_changes() {
        let shared = backend(Balance::LeastConnections, &[1, 1], |_| {});
        let mut worker = Chooser::new(shared.clone());
        let servers = &shared.backends[0].servers;
        for (weight, expected) in [(3, [30, 10]), (0, [30, 20]), (1, [30, 30])] {
            shared.set_weight(APP, 0, Some(weight));
            let count = || servers.iter().map(|server| server.connections.count()).collect::<Vec<_>>();
            while count().iter().sum::<u64>() < expected.iter().sum() {
                let server = worker.choose(APP, None, &[]).unwrap();
                servers[server].connections.take();
            }
            assert_eq!(count(), expected, "with the weight {weight}");
        }
    }

    #[test]
    fn the_static_round_robin_and_first_do_not_look_at_new_weights() {
        let shared = backend(Balance::StaticRoundRobin, &[3, 1], |_| {});
        shared.set_weight(APP, 1, Some(200));
        assert_eq!(shares_of(&shared, 40), BTreeMap::from([(0, 30), (1, 10)]));
        shared.set_weight(APP, 1, Some(0));
        assert_eq!(shares_of(&shared, 40), BTreeMap::from([(0, 40)]), "but no weight is no weight");

        let shared = backend(Balance::First, &[1, 200], |_| {});
        assert_eq!(shares_of(&shared, 40), BTreeMap::from([(0, 40)]));
        shared.set_health(APP, 0, Health::Down, "connection refused");
        assert_eq!(shares_of(&shared, 40), BTreeMap::from([(1, 40)]));
        assert_eq!(Chooser::new(shared).choose(APP, None, &[1]), None);
    }

    #[test]
    fn a_key_stays_at_its_server_and_requests_without_one_take_turns() {
        for method in [HashMethod::MapBased, HashMethod::Consistent] {
            let shared = backend(hash(method), &[1, 1, 1], |_| {});
            let mut workers = [Chooser::new(shared.clone()), Chooser::new(shared.clone())];
            for number in 0..100_u64 {
                let key = Some(key::of_bytes(&number.to_be_bytes()));
                let server = workers[0].choose(APP, key, &[]).unwrap();
                assert_eq!(workers[1].choose(APP, key, &[]), Some(server));
                assert_ne!(workers[1].choose(APP, key, &[server]), Some(server));
            }
            let without: Vec<_> = (0..30).filter_map(|_| workers[0].choose(APP, None, &[])).collect();
            assert_eq!(share(without), BTreeMap::from([(0, 10), (1, 10), (2, 10)]));
        }
    }

    #[test]
    fn a_map_moves_most_keys_when_a_server_goes_and_a_ring_only_its_own() {
        let moved = |method| {
            let shared = backend(hash(method), &[1; 10], |_| {});
            let owners = || -> Vec<_> {
                let mut worker = Chooser::new(shared.clone());
                (0..10_000_u64)
                    .map(|number| worker.choose(APP, Some(key::of_bytes(&number.to_be_bytes())), &[]))
                    .collect()
            };
            let before = owners();
            shared.set_health(APP, 3, Health::Down, "connection refused");
            before.iter().zip(owners()).filter(|(before, after)| *before != after).count()
        };
        assert!((8_500..9_500).contains(&moved(HashMethod::MapBased)), "{}", moved(HashMethod::MapBased));
        assert!((800..1_200).contains(&moved(HashMethod::Consistent)), "{}", moved(HashMethod::Consistent));
    }

    #[test]
    fn backups_serve_when_no_other_server_is_up() {
        for (all_backups, expected) in [(false, BTreeMap::from([(2, 20)])), (true, BTreeMap::from([(2, 10), (3, 10)]))]
        {
            let shared = backend(Balance::RoundRobin, &[1; 4], |backend| {
                backend.all_backups = all_backups;
                backend.servers.iter_mut().skip(2).for_each(|server| server.backup = true);
            });
            assert_eq!(shares_of(&shared, 20), BTreeMap::from([(0, 10), (1, 10)]));
            shared.set_health(APP, 0, Health::Down, "connection refused");
            assert_eq!(shares_of(&shared, 20), BTreeMap::from([(1, 20)]));
            shared.set_admin(APP, 1, Admin::Drain, "an operator");
            assert_eq!(shares_of(&shared, 20), expected);
            shared.set_health(APP, 2, Health::Down, "connection refused");
            assert_eq!(shares_of(&shared, 20), BTreeMap::from([(3, 20)]));
            shared.set_health(APP, 0, Health::Up, "connection accepted");
            assert_eq!(shares_of(&shared, 20), BTreeMap::from([(0, 20)]));
        }
    }

    #[test]
    fn when_all_are_down_all_are_tried_if_it_says_so_but_nobody_who_was_taken_out() {
        for (when_all_down, expected) in
            [(WhenAllDown::Reject, BTreeMap::new()), (WhenAllDown::TryAll, BTreeMap::from([(0, 10), (1, 10)]))]
        {
            let shared =
                backend(Balance::RoundRobin, &[1, 1, 1, 1, 0], |backend| backend.when_all_down = when_all_down);
            shared.set_admin(APP, 2, Admin::Maintenance, "an operator");
            shared.set_admin(APP, 3, Admin::Drain, "an operator");
            shared.set_health(APP, 1, Health::Down, "connection refused");
            assert_eq!(shares_of(&shared, 20), BTreeMap::from([(0, 20)]));
            shared.set_health(APP, 0, Health::Down, "connection refused");
            assert_eq!(shares_of(&shared, 20), expected);
        }
    }
}
