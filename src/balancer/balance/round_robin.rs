//! Smooth weighted round robin: the order in which servers take turns, computed once for a set of servers.
//!
//! Each turn every server gains its weight in credit, the one with the most credit serves and pays the sum of all
//! weights; after as many turns as the weights sum to (divided by their greatest common divisor) it all begins again.
//! So a heavy server's turns are spread out rather than bunched: 5, 1, 1 gives `a a b a c a a`.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// One period of turns. Empty when no server is up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    order: Vec<u32>,
    /// Turn `t` is at `order[(t + phase) % order.len()]`.
    phase: u64,
}

impl Schedule {
    /// The period for these servers (index and weight above 0, each index once).
    ///
    /// `turn` is the next that will be taken and `previous` what was followed so far: the period is entered where it does
    /// not begin with the server that served last.
    pub fn new(servers: &[(usize, u32)], previous: &Schedule, turn: u64) -> Self {
        let order = period(servers);
        let length = order.len() as u64;
        if length == 0 {
            return Self::default();
        }

        let last = previous.at(turn.wrapping_sub(1));
        let first_turns = first_turns(&order);
        let upcoming = (0..previous.order.len() as u64).filter_map(|ahead| previous.at(turn.wrapping_add(ahead)));
        let start = upcoming
            .filter(|server| Some(*server) != last)
            .find_map(|server| first_turns.get(&server).copied())
            .or_else(|| order.iter().position(|server| Some(*server as usize) != last))
            .unwrap_or_default() as u64;
        Self { order, phase: (start + length - turn % length) % length }
    }

    /// Whose turn it is; `None` if no server is up.
    pub fn at(&self, turn: u64) -> Option<usize> {
        let length = self.order.len() as u64;
        let place = (turn % length.max(1) + self.phase) % length.max(1);
        self.order.get(place as usize).map(|server| *server as usize)
    }

    /// Turns in a period: 0 if no server is up.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Is no server up?
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Servers of one weight. They serve in turn among themselves, so only the first of them competes with the other weights.
struct Class {
    weight: i64,
    /// Server, and its credit without what it gained by the turns that have passed.
    waiting: VecDeque<(usize, i64)>,
}

fn period(servers: &[(usize, u32)]) -> Vec<u32> {
    let divisor = servers.iter().fold(0, |divisor, (_, weight)| greatest_common_divisor(divisor, *weight)).max(1);
    let mut by_weight = BTreeMap::<u32, VecDeque<(usize, i64)>>::new();
    for (server, weight) in servers {
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
