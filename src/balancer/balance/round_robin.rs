//! Smooth weighted round robin: the order in which servers take turns, computed once for a set of servers.
//!
//! Each turn every server gains its weight in credit, the one with the most credit serves and pays the sum of all
//! weights; after as many turns as the weights sum to (divided by their greatest common divisor) it all begins again.
//! So a heavy server's turns are spread out rather than bunched: 5, 1, 1 gives `a a b a c a a`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::plan::Member;

/// One period of turns. Empty when no server is up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule {
    order: Vec<u32>,
    /// The first turn that this schedule gives, and where in `order` that is.
    began: u64,
    start: u64,
    /// Who served last before it began.
    before: Option<usize>,
}

impl Schedule {
    /// The period for these servers (each once).
    ///
    /// `turn` is the next that will be taken and `previous` what was followed so far: the new period is entered where the
    /// old one would have gone on, and not with the server that served last.
    pub(super) fn new(servers: &[Member], previous: &Schedule, turn: u64) -> Self {
        let order = period(servers);
        let before = match turn == previous.began {
            true => previous.before,
            false => previous.at(turn.wrapping_sub(1)).or(previous.before),
        };

        let first_turns = first_turns(&order);
        let upcoming = (0..previous.order.len() as u64).filter_map(|ahead| previous.at(turn.wrapping_add(ahead)));
        let start = upcoming
            .filter(|server| Some(*server) != before)
            .find_map(|server| first_turns.get(&server).copied())
            .or_else(|| order.iter().position(|server| Some(*server as usize) != before))
            .unwrap_or_default();
        Self { order, began: turn, start: start as u64, before }
    }

    /// Whose turn it is; `None` if no server is up.
    pub(super) fn at(&self, turn: u64) -> Option<usize> {
        let length = (self.order.len() as u64).max(1);
        let place = (turn.wrapping_sub(self.began) % length + self.start) % length;
        self.order.get(place as usize).map(|server| *server as usize)
    }

    /// Whose turn it is, leaving out `tried`: the next one's that is not among them.
    pub(super) fn at_without(&self, turn: u64, tried: &[usize]) -> Option<usize> {
        if tried.is_empty() {
            return self.at(turn);
        }
        let mut in_turn = (0..self.order.len() as u64).filter_map(|ahead| self.at(turn.wrapping_add(ahead)));
        in_turn.find(|server| !tried.contains(server))
    }

    /// Whose key this is: the same for the same servers, whatever turn it is.
    pub(super) fn of_key(&self, key: u64, tried: &[usize]) -> Option<usize> {
        let place = (key % (self.order.len() as u64).max(1)) as usize;
        let (before, from) = self.order.split_at_checked(place)?;
        from.iter().chain(before).map(|server| *server as usize).find(|server| !tried.contains(server))
    }
}

/// Servers of one weight. They serve in turn among themselves, so only the first of them competes with the other weights.
struct Class {
    weight: i64,
    /// Server, and its credit without what it gained by the turns that have passed.
    waiting: VecDeque<(usize, i64)>,
}

fn period(servers: &[Member]) -> Vec<u32> {
    let divisor = servers.iter().fold(0, |divisor, member| greatest_common_divisor(divisor, member.weight)).max(1);
    let mut by_weight = BTreeMap::<u32, VecDeque<(usize, i64)>>::new();
    for Member { server, weight } in servers {
        by_weight.entry(weight / divisor).or_default().push_back((*server, 0));
    }
    let mut classes: Vec<Class> =
        by_weight.into_iter().map(|(weight, waiting)| Class { weight: weight.into(), waiting }).collect();
    let total: i64 = classes.iter().map(|class| class.weight * class.waiting.len() as i64).sum();

    let mut order = Vec::with_capacity(total as usize);
    for turn in 1..=total {
        let next = classes.iter_mut().max_by_key(|class| {
            let first = class.waiting.front();
            first.map(|(server, credit)| (credit + class.weight * turn, std::cmp::Reverse(*server)))
        });
        let Some(class) = next else { break };
        let Some((server, credit)) = class.waiting.pop_front() else { break };
        class.waiting.push_back((server, credit - total));
        order.push(server as u32);
    }
    order
}

/// Where each server is first in `order`.
fn first_turns(order: &[u32]) -> HashMap<usize, usize> {
    order.iter().enumerate().rev().map(|(turn, server)| (*server as usize, turn)).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(weights: &[u32]) -> Schedule {
        let servers: Vec<_> = members(weights.iter().copied().enumerate().filter(|(_, weight)| *weight > 0));
        Schedule::new(&servers, &Schedule::default(), 0)
    }

    fn members(servers: impl IntoIterator<Item = (usize, u32)>) -> Vec<Member> {
        servers.into_iter().map(|(server, weight)| Member { server, weight }).collect()
    }

    fn turns(schedule: &Schedule, turns: std::ops::Range<u64>) -> Vec<usize> {
        turns.filter_map(|turn| schedule.at(turn)).collect()
    }

    #[test]
    fn heavy_servers_are_spread_out() {
        let rows: &[(&[u32], &[usize])] = &[
            (&[], &[]),
            (&[0], &[]),
            (&[7], &[0]),
            (&[1, 1, 1], &[0, 1, 2]),
            (&[256, 0, 256], &[0, 2]),
            (&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
            (&[60, 45], &[0, 1, 0, 1, 0, 1, 0]),
        ];
        for (weights, period) in rows {
            let schedule = schedule(weights);
            assert_eq!(turns(&schedule, 0..period.len() as u64), *period, "{weights:?}");
            assert_eq!(schedule.order.len(), period.len(), "{weights:?}");
        }
    }

    #[test]
    fn the_last_turn_there_is_leads_to_an_answer() {
        let servers = members([(0, 1), (1, 2)]);
        assert!(Schedule::new(&servers, &schedule(&[1, 1]), u64::MAX).at(u64::MAX).is_some());
    }

    /// The definition at the top of the file, word by word.
    fn by_definition(weights: &[u32]) -> Vec<usize> {
        let total: i64 = weights.iter().copied().map(i64::from).sum();
        let mut credits = vec![0_i64; weights.len()];
        let mut order = Vec::new();
        for _ in 0..total {
            for (credit, weight) in credits.iter_mut().zip(weights) {
                *credit += i64::from(*weight);
            }
            let most = *credits.iter().max().unwrap();
            let next = (0..weights.len()).find(|server| weights[*server] > 0 && credits[*server] == most).unwrap();
            credits[next] -= total;
            order.push(next);
        }
        order
    }

    fn weights() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(prop_oneof![0..12_u32, Just(60), 0..=256_u32], 0..8)
    }

    proptest! {
        #[test]
        fn it_is_smooth_weighted_round_robin(weights in weights()) {
            let schedule = schedule(&weights);
            let definition = by_definition(&weights);
            prop_assert_eq!(turns(&schedule, 0..definition.len() as u64), definition);
        }

        #[test]
        fn shares_are_exact_over_any_period(weights in weights(), start in 0..u64::MAX / 2) {
            let schedule = schedule(&weights);
            let period = turns(&schedule, start..start + schedule.order.len() as u64);
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            for (server, weight) in weights.iter().enumerate() {
                let share = period.iter().filter(|other| **other == server).count() as u64;
                prop_assert_eq!(share * total, u64::from(*weight) * period.len() as u64);
            }
        }

        #[test]
        fn nobody_waits_longer_than_twice_its_even_distance(weights in weights()) {
            let schedule = schedule(&weights);
            let total: usize = weights.iter().map(|weight| *weight as usize).sum();
            let two_periods = turns(&schedule, 0..2 * schedule.order.len() as u64);
            for (server, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
                let own: Vec<_> = (0..two_periods.len()).filter(|turn| two_periods[*turn] == server).collect();
                let longest = own.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                prop_assert!(longest <= 2 * total.div_ceil(*weight as usize), "server {server} waits {longest} turns");
            }
        }

        #[test]
        fn equal_servers_never_serve_twice_in_a_row_even_as_others_come_and_go(
            sets in proptest::collection::vec((proptest::collection::vec(any::<bool>(), 6), 0..9_u64), 1..8), start: u64,
        ) {
            let (mut turn, mut current, mut last) = (start, Schedule::default(), None);
            for (up, length) in sets {
                let servers = members((0..6).filter(|server| up[*server]).map(|server| (server, 1)));
                current = Schedule::new(&servers, &current, turn);
                for _ in 0..length {
                    let next = current.at(turn);
                    prop_assert!(servers.is_empty() == next.is_none());
                    prop_assert!(servers.len() < 2 || next != last, "{next:?} twice");
                    prop_assert!(next.is_none_or(|server| up[server]));
                    (last, turn) = (next, turn.wrapping_add(1));
                }
            }
        }
    }
}
