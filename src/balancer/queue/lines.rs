//! The lines of a backend: who waits, for what, since when.

use std::collections::{BTreeMap, HashMap};
use std::task::Waker;

use super::{Place, Rank, Servers, Verdict};

#[derive(Default)]
pub(super) struct Lines {
    pub(super) next: u64,
    pub(super) any: Line,
    /// By index of the server: those who wait for it alone.
    pub(super) own: Box<[Line]>,
    /// By index of the server: whether its slots have this queue's mark.
    pub(super) marked: Box<[bool]>,
    /// Who was told and has not yet heard it.
    pub(super) told: HashMap<Rank, Told>,
}

pub(super) struct Told {
    pub(super) verdict: Verdict,
    pub(super) position: u64,
}

#[derive(Default)]
pub(super) struct Line {
    pub(super) waiting: BTreeMap<Rank, Waiter>,
    pub(super) longest: u64,
    /// Who had their turn.
    pub(super) served: u64,
}

#[derive(Default)]
pub(super) struct Waiter {
    /// Servers that failed it.
    pub(super) tried: Box<[usize]>,
    pub(super) is_session: bool,
    /// How many the line had served when it came.
    pub(super) came_after: u64,
    pub(super) waker: Option<Waker>,
}

impl Lines {
    pub(super) fn line(&mut self, place: Place) -> Option<&mut Line> {
        match place {
            Place::Any => Some(&mut self.any),
            Place::At { server, .. } => self.own.get_mut(server),
        }
    }

    pub(super) fn mark(&mut self, servers: &impl Servers, server: usize, is_awaited: bool) {
        let (Some(marked), Some(slots)) = (self.marked.get_mut(server), servers.slots(server)) else { return };
        match (std::mem::replace(marked, is_awaited), is_awaited) {
            (false, true) => slots.mark(),
            (true, false) => slots.unmark(),
            _ => {}
        }
    }

    /// Who is next of those that this server suits.
    pub(super) fn first(&self, servers: &impl Servers, server: usize) -> Option<(Place, Rank)> {
        let own = self.own.get(server).and_then(|line| line.waiting.first_key_value()).map(|(rank, _)| *rank);
        let suits = |(_, waiter): &(&Rank, &Waiter)| !waiter.tried.contains(&server);
        let any = if servers.takes_new(server) { self.any.waiting.iter().find(suits) } else { None };
        let own = own.map(|rank| (rank, Place::At { server, is_session: false }));
        let any = any.map(|(rank, _)| (*rank, Place::Any));
        own.into_iter().chain(any).min_by_key(|(rank, _)| *rank).map(|(rank, place)| (place, rank))
    }

    pub(super) fn tell(&mut self, place: Place, rank: Rank, verdict: Verdict, awake: &mut Vec<Waker>) {
        let Some(line) = self.line(place) else { return };
        let Some(waiter) = line.waiting.remove(&rank) else { return };
        let position = line.position(&waiter);
        line.served += u64::from(matches!(verdict, Verdict::Turn(_)));
        self.told.insert(rank, Told { verdict, position });
        awake.extend(waiter.waker);
    }
}

impl Line {
    /// The first is 1. Who has left without a turn is nobody's predecessor.
    pub(super) fn position(&self, waiter: &Waiter) -> u64 {
        self.served - waiter.came_after + 1
    }

    pub(super) fn note_length(&mut self) {
        self.longest = self.longest.max(self.waiting.len() as u64);
    }
}
