//! Random with draws: some servers are drawn by weight, the least loaded of them serves.
//!
//! Two draws are enough to keep the busiest server close to the mean (the power of two choices), without a look at all
//! servers and without the rush of all workers to the one that is least loaded at a moment.

use super::least_connections::Load;
use super::plan::Member;

/// The members with the sum of all weights up to each.
#[derive(Debug, Default)]
pub(super) struct Urn {
    members: Vec<Member>,
    sums: Vec<u64>,
}

impl Urn {
    pub(super) fn new(members: &[Member]) -> Self {
        let sums = members.iter().scan(0, |sum, member| {
            *sum += u64::from(member.weight);
            Some(*sum)
        });
        Self { members: members.to_vec(), sums: sums.collect() }
    }

    /// The least loaded of `draws` members that are not among `tried`. A further draw is always another than the best so far,
    /// where there is another; `random` gives numbers from all of `u64`.
    pub(super) fn draw(
        &self,
        draws: u32,
        connections: impl Fn(usize) -> u64,
        tried: &[usize],
        mut random: impl FnMut() -> u64,
    ) -> Option<usize> {
        let mut best: Option<(usize, Load)> = None;
        for _ in 0..draws {
            let drawn = self.place(random(), best.as_ref().map(|(place, _)| *place))?;
            let Some((place, member)) = self.untried_from(drawn, tried) else { break };
            let load = Load { connections: connections(member.server), weight: member.weight };
            if best.as_ref().is_none_or(|(_, lowest)| load.less_than(lowest)) {
                best = Some((place, load));
            }
        }
        best.and_then(|(place, _)| self.members.get(place)).map(|member| member.server)
    }

    /// One of the places, by weight, leaving out one of them; `None` if there is no member.
    fn place(&self, random: u64, left_out: Option<usize>) -> Option<usize> {
        let total = *self.sums.last()?;
        let (begin, end) = match left_out {
            Some(place) => (
                place.checked_sub(1).and_then(|before| self.sums.get(before)).copied().unwrap_or(0),
                *self.sums.get(place)?,
            ),
            None => (total, total),
        };
        let others = total - (end - begin);
        if others == 0 {
            return left_out;
        }
        // From 0 to below `others`, as even as 64 bits are.
        let drawn = ((u128::from(random) * u128::from(others)) >> 64) as u64;
        let drawn = if drawn >= begin { drawn + (end - begin) } else { drawn };
        Some(self.sums.partition_point(|sum| *sum <= drawn))
    }

    fn untried_from(&self, place: usize, tried: &[usize]) -> Option<(usize, &Member)> {
        let (before, from) = self.members.split_at_checked(place)?;
        let behind = from.iter().zip(place..);
        behind
            .chain(before.iter().zip(0..))
            .map(|(member, place)| (place, member))
            .find(|(_, member)| !tried.contains(&member.server))
    }
}

/// Numbers that look random (SplitMix64): cheap, and good enough to draw servers.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        super::key::mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWN: usize = 100_000;

    fn urn(weights: &[u32]) -> Urn {
        let members: Vec<_> =
            weights.iter().enumerate().map(|(server, weight)| Member { server, weight: *weight }).collect();
        Urn::new(&members)
    }

    /// How often each of four servers is chosen.
    fn shares(urn: &Urn, draws: u32, connections: &[u64], tried: &[usize]) -> [f64; 4] {
        let mut random = Random::new(7);
        let mut shares = [0.0; 4];
        for _ in 0..DRAWN {
            let server = urn.draw(draws, |server| connections[server], tried, || random.next()).unwrap();
            shares[server] += 1.0 / DRAWN as f64;
        }
        shares
    }

    fn assert_near(shares: [f64; 4], expected: [f64; 4]) {
        // Five standard deviations of the worst case.
        let tolerance = 5.0 * (0.25 / DRAWN as f64).sqrt();
        assert!(
            shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < tolerance),
            "{shares:?}"
        );
    }

    #[test]
    fn idle_servers_share_by_weight_whatever_the_draws() {
        for draws in [1, 2, 5] {
            assert_near(shares(&urn(&[60, 45, 10, 5]), draws, &[0; 4], &[]), [0.5, 0.375, 1.0 / 12.0, 1.0 / 24.0]);
        }
    }

    /// With two draws out of four equal servers the most loaded is chosen only if it is drawn twice, which it never is; the
    /// least loaded is chosen whenever it is drawn: with 1/4 + 3/4 · 1/3.
    #[test]
    fn of_two_drawn_the_less_loaded_serves() {
        let urn = urn(&[1; 4]);
        assert_near(shares(&urn, 2, &[3, 2, 1, 0], &[]), [0.0, 1.0 / 6.0, 1.0 / 3.0, 0.5]);
        assert_near(shares(&urn, 1, &[3, 2, 1, 0], &[]), [0.25; 4]);
        // Who was tried leaves its draws to the next in the file.
        assert_near(shares(&urn, 2, &[3, 2, 1, 0], &[3]), [1.0 / 6.0, 1.0 / 3.0, 0.5, 0.0]);
    }

    #[test]
    fn who_was_tried_is_not_chosen_and_nobody_is_where_nobody_is_left() {
        let mut random = Random::new(7);
        assert_eq!(urn(&[1, 1]).draw(2, |_| 0, &[0], || random.next()), Some(1));
        assert_eq!(urn(&[1, 1]).draw(2, |_| 0, &[0, 1], || random.next()), None);
        assert_eq!(urn(&[]).draw(2, |_| 0, &[], || random.next()), None);
        for random in [0, 1, u64::MAX] {
            assert!(urn(&[3, 1]).draw(2, |_| 0, &[], || random).is_some());
        }
    }
}
