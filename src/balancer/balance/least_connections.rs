//! Least connections: the server with the fewest requests under way in proportion to its weight.

use super::plan::Member;

/// The least loaded member that is not among `tried`; where several are, the one whose `turn` it is, so that idle servers
/// share evenly. `connections` tells of each server what is under way.
pub(super) fn least_loaded(
    members: &[Member],
    connections: impl Fn(usize) -> u64,
    tried: &[usize],
    turn: u64,
) -> Option<usize> {
    let candidates = || {
        let untried = members.iter().filter(|member| !tried.contains(&member.server));
        untried.map(|member| (member.server, Load { connections: connections(member.server), weight: member.weight }))
    };

    let mut least: Option<(usize, Load)> = None;
    let mut equals = 0;
    for (server, load) in candidates() {
        match &least {
            Some((_, lowest)) if lowest.less_than(&load) => continue,
            Some((_, lowest)) if !load.less_than(lowest) => equals += 1,
            _ => (least, equals) = (Some((server, load)), 1),
        }
    }

    let (first, lowest) = least?;
    if equals == 1 {
        return Some(first);
    }
    // Other workers count meanwhile: if fewer are equal by now, the first was right a moment ago.
    let mut equal = candidates().filter(|(_, load)| !lowest.less_than(load)).map(|(server, _)| server);
    Some(equal.nth((turn % equals) as usize).unwrap_or(first))
}

/// Requests under way, to be compared in proportion to the weight.
pub(super) struct Load {
    pub(super) connections: u64,
    pub(super) weight: u32,
}

impl Load {
    /// `connections / weight` compared without dividing.
    pub(super) fn less_than(&self, other: &Load) -> bool {
        u128::from(self.connections) * u128::from(other.weight)
            < u128::from(other.connections) * u128::from(self.weight)
    }
}
