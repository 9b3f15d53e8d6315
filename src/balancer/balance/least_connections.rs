//! Least connections: the server with the fewest requests under way in proportion to its weight.

use std::sync::atomic::Ordering::Relaxed;

use crate::balancer::state::ServerShared;
use crate::config::model::Server;
use crate::status::ServerState;

/// The least loaded server that is up and not among `tried`; where several are, the one whose `turn` it is, so that idle
/// servers share evenly.
pub(super) fn least_loaded(
    configured: &[Server],
    shared: &[ServerShared],
    tried: &[usize],
    turn: u64,
) -> Option<usize> {
    let candidates = || {
        configured.iter().zip(shared).enumerate().filter_map(|(index, (server, shared))| {
            let takes_part = server.weight > 0 && shared.state() == ServerState::Up && !tried.contains(&index);
            takes_part.then(|| (index, Load { connections: shared.connections.load(Relaxed), weight: server.weight }))
        })
    };

    let mut least: Option<(usize, Load)> = None;
    let mut equals = 0;
    for (index, load) in candidates() {
        match &least {
            Some((_, lowest)) if lowest.less_than(&load) => continue,
            Some((_, lowest)) if !load.less_than(lowest) => equals += 1,
            _ => (least, equals) = (Some((index, load)), 1),
        }
    }

    let (first, lowest) = least?;
    if equals == 1 {
        return Some(first);
    }
    // Other workers count meanwhile: if fewer are equal by now, the first was right a moment ago.
    let mut equal = candidates().filter(|(_, load)| !lowest.less_than(load)).map(|(index, _)| index);
    Some(equal.nth((turn % equals) as usize).unwrap_or(first))
}

/// Requests under way, to be compared in proportion to the weight.
struct Load {
    connections: u64,
    weight: u32,
}

impl Load {
    /// `connections / weight` compared without dividing.
    fn less_than(&self, other: &Load) -> bool {
        u128::from(self.connections) * u128::from(other.weight)
            < u128::from(other.connections) * u128::from(self.weight)
    }
}
