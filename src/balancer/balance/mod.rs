//! Which server of a backend is next.

mod least_connections;
mod round_robin;

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::balancer::state::{BackendState, Shared};
use crate::config::model::{BackendIndex, Balance};

pub use round_robin::Schedule;

/// A worker's view of all backends. Choosing takes no lock, allocates nothing.
pub struct Chooser {
    shared: Arc<Shared>,
    /// By index of the backend: its schedule, and the generation it was taken at.
    schedules: Vec<(u64, Arc<Schedule>)>,
}

impl Chooser {
    /// One for each worker.
    pub fn new(shared: Arc<Shared>) -> Self {
        let schedules = shared.backends.iter().map(current_schedule).collect();
        Self { shared, schedules }
    }

    /// A server that is up, has a weight above 0 and is not among `tried`; `None` if there is no such server.
    ///
    /// All workers take their turns from one counter. A retry is no turn: what the failed server should have had is spread
    /// over the others, and everybody's next turn stays where it was.
    pub fn choose(&mut self, backend: BackendIndex, tried: &[usize]) -> Option<usize> {
        let state = self.shared.backends.get(backend.0)?;
        let turns = if tried.is_empty() { &state.turn } else { &state.retry_turn };
        let turn = turns.fetch_add(1, Relaxed);

        let configured = self.shared.config.backends.get(backend.0)?;
        if configured.balance == Balance::LeastConnections {
            return least_connections::least_loaded(&configured.servers, &state.servers, tried, turn);
        }

        let (generation, schedule) = self.schedules.get_mut(backend.0)?;
        if *generation != state.generation.load(Acquire) {
            (*generation, *schedule) = current_schedule(state);
        }
        if tried.is_empty() {
            return schedule.at(turn);
        }
        let mut in_turn = (0..schedule.len() as u64).filter_map(|ahead| schedule.at(turn.wrapping_add(ahead)));
        in_turn.find(|server| !tried.contains(server))
    }
}

fn current_schedule(state: &BackendState) -> (u64, Arc<Schedule>) {
    // The generation first: a schedule published after that is taken again rather than missed.
    let generation = state.generation.load(Acquire);
    (generation, state.schedule.load_full())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::balancer::state::tests::{one_backend, server};
    use crate::status::ServerState;

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
        let choices: Vec<_> = (0..1000_usize).map(|n| workers[n * n % 7 % 3].choose(APP, &[]).unwrap()).collect();
        assert!(choices.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn workers_at_the_same_time_keep_to_the_weights_exactly() {
        let shared = shared(Balance::RoundRobin, &[60, 45]);
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let mut worker = Chooser::new(shared.clone());
                std::thread::spawn(move || (0..1050).filter_map(|_| worker.choose(APP, &[])).collect::<Vec<_>>())
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
            let mut choices = |n: usize| share((0..n).filter_map(|_| worker.choose(APP, &[])));

            assert_eq!(choices(30), BTreeMap::from([(0, 10), (2, 10), (3, 10)]));
            shared.set_state(APP, 2, ServerState::Down, "connection refused");
            assert_eq!(choices(20), BTreeMap::from([(0, 10), (3, 10)]));
            shared.set_state(APP, 2, ServerState::Starting, "its address changed");
            shared.set_state(APP, 0, ServerState::Maintenance, "an operator");
            assert_eq!(choices(20), BTreeMap::from([(3, 20)]));
            shared.set_state(APP, 3, ServerState::Down, "connection refused");
            assert_eq!(choices(20), BTreeMap::new());
            shared.set_state(APP, 2, ServerState::Up, "connection accepted");
            assert_eq!(choices(20), BTreeMap::from([(2, 20)]));
            assert_eq!(worker.choose(BackendIndex(7), &[]), None);
        }
    }

    #[test]
    fn a_retry_goes_elsewhere_and_leaves_everybodys_turn() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections] {
            let shared = shared(balance, &[1, 1, 1]);
            let mut worker = Chooser::new(shared);
            let (mut first, mut retried) = (Vec::new(), Vec::new());
            for _ in 0..300 {
                let server = worker.choose(APP, &[]).unwrap();
                first.push(server);
                if server == 1 {
                    retried.push(worker.choose(APP, &[1]).unwrap());
                }
            }
            assert_eq!(share(first), BTreeMap::from([(0, 100), (1, 100), (2, 100)]));
            let retried = share(retried);
            assert!(retried.keys().eq([&0, &2]) && retried.values().all(|n| (30..=70).contains(n)), "{retried:?}");
            assert_eq!(worker.choose(APP, &[0, 1]), Some(2));
            assert_eq!(worker.choose(APP, &[2, 0, 1]), None);
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
                state.connections.store(*connections, SeqCst);
            }
            let mut worker = Chooser::new(shared);
            let share = share((0..10 * expected.len()).filter_map(|_| worker.choose(APP, &[])));
            assert_eq!(share, expected.iter().map(|server| (*server, 10)).collect(), "{servers:?}");
        }
    }
}
