//! Which server of a backend is next.

mod least_connections;
mod round_robin;

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::balancer::state::{BackendState, Shared};
use crate::config::model::{BackendIndex, Balance};

pub use round_robin::Schedule;

/// A worker's view of all backends. Choosing takes no lock, allocates nothing and costs the same for any number of turns.
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
        let in_turn = (0..schedule.len() as u64).filter_map(|ahead| schedule.at(turn.wrapping_add(ahead)));
        in_turn.into_iter().find(|server| !tried.contains(server))
    }
}

fn current_schedule(state: &BackendState) -> (u64, Arc<Schedule>) {
    // The generation first: a schedule published after that is taken again rather than missed.
    let generation = state.generation.load(Acquire);
    (generation, state.schedule.load_full())
}
