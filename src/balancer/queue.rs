//! Who waits for a server, where servers take only so many requests at once.
//!
//! A server's [`Slots`] are one word: how many are under way, and a mark of each queue in which somebody waits for one of them.
//! Who finds room and no mark takes a slot with one atomic operation, whichever thread it is on; who leaves gives it back with
//! one. The rest happens under the queue's lock: a newcomer who finds none joins a line, of its server or of the whole backend,
//! and sets the mark; who leaves and sees a mark hands the slot to whoever came first of those it suits.
//!
//! No wake-up is lost. The mark and the number change together, so of a server that is full when somebody joins, every later
//! leaver sees the mark; and it cannot look into the lines before the newcomer, who holds the lock, stands in one. The mark
//! goes only under the lock, when nobody waits. Nor is a slot lost: one that was handed to somebody who is gone before it
//! knew goes to the next.

mod lines;
mod slots;

use std::cell::Cell;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::config::model;

use lines::{Line, Lines, Told, Waiter};
pub use slots::Slots;

/// The servers of a backend as they are now.
pub trait Servers {
    /// A server's; `None` if there is no such server.
    fn slots(&self, server: usize) -> Option<&Slots>;
    /// How many there may be at once, by the newest configuration.
    fn most(&self, server: usize) -> u64;
    /// May it be given to somebody new?
    fn takes_new(&self, server: usize) -> bool;
    /// Does it serve the sessions that are at it?
    fn keeps_sessions(&self, server: usize) -> bool;
    /// A slot of it may be free that this queue has nobody for: there may be others who wait for it, under another configuration.
    fn has_room(&self, server: usize);
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Any server that takes somebody new.
    Any,
    /// This server alone.
    At {
        /// Its index.
        server: usize,
        /// A session is kept there; else it is where a key belongs.
        is_session: bool,
    },
}

/// When somebody came, among all who wait for servers of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(u64);

/// What somebody who waits is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is its turn: a slot of this server is taken for it.
    Turn(usize),
    /// The servers have changed: it is to choose again, and keeps its rank.
    Again,
}

/// What becomes of somebody who joins a line.
pub enum Joined<'a, S: Servers> {
    /// There is nothing to wait for.
    At(Verdict),
    /// It may not wait: the line is as long as it may be.
    Full,
    /// It waits.
    Waits(Waiting<'a, S>),
}

/// The lines of one backend that has a server with a limit.
pub struct Queue {
    /// By index of the server.
    limits: Box<[Limit]>,
    /// Of those who wait for any server.
    most: Option<u32>,
    lines: Mutex<Lines>,
}

/// A server's limits.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// There is one to the requests at once.
    is_limited: bool,
    /// Requests that wait for this server.
    waiting: Option<u32>,
}

/// How many wait, now and at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lengths {
    /// For any server.
    pub any: (u64, u64),
    /// By index of the server: for it alone.
    pub own: Vec<(u64, u64)>,
}

impl Queue {
    /// For a backend; `None` if none of its servers has a limit.
    pub fn new(config: &model::Backend) -> Option<Box<Self>> {
        let limit =
            |server: &model::Server| Limit { is_limited: server.max_connections.is_some(), waiting: server.max_queue };
        let limits: Box<[_]> = config.servers.iter().map(limit).collect();
        if !limits.iter().any(|limit| limit.is_limited) {
            return None;
        }
        let own = limits.iter().map(|_| Line::default()).collect();
        let lines = Lines { own, marked: limits.iter().map(|_| false).collect(), ..Lines::default() };
        Some(Box::new(Self { limits, most: config.max_queue, lines: Mutex::new(lines) }))
    }

    /// Has this server a limit?
    pub fn limits(&self, server: usize) -> bool {
        self.limits.get(server).is_some_and(|limit| limit.is_limited)
    }

    /// Takes a slot, or stands in line. `tried` are servers that failed; who was told to choose again has a rank already. Where
    /// it waits, `position` grows by one and those of its line who have their turn before it: as HAProxy counts that.
    pub fn join<'a, S: Servers>(
        &'a self,
        servers: &'a S,
        place: Place,
        tried: &[usize],
        rank: Option<Rank>,
        position: &'a Cell<u64>,
    ) -> Joined<'a, S> {
        let mut lines = self.lines();
        let is_session = matches!(place, Place::At { is_session: true, .. });
        let mut waiter = Waiter { tried: tried.into(), is_session, ..Waiter::default() };
        if !self.may_wait(servers, place, &waiter) {
            return Joined::At(Verdict::Again);
        }
        let rank = rank.unwrap_or_else(|| {
            lines.next += 1;
            Rank(lines.next)
        });
        let Some(line) = lines.line(place) else { return Joined::At(Verdict::Again) };
        let ahead = line.waiting.len();
        waiter.came_after = line.served;
        line.waiting.insert(rank, waiter);
        for server in self.places(place) {
            lines.mark(servers, server, true);
        }

        let mut awake = Vec::new();
        for server in self.places(place) {
            self.hand_out(&mut lines, servers, server, &mut awake);
        }
        let most = match place {
            Place::Any => self.most,
            Place::At { server, .. } => self.limits.get(server).and_then(|limit| limit.waiting),
        };
        let joined = if let Some(told) = lines.told.remove(&rank) {
            Joined::At(told.verdict)
        } else if most.is_some_and(|most| ahead >= most as usize) {
            lines.line(place).and_then(|line| line.waiting.remove(&rank));
            Joined::Full
        } else {
            lines.line(place).into_iter().for_each(Line::note_length);
            Joined::Waits(Waiting { queue: self, servers, place, rank, position, is_over: false })
        };
        self.settle(&mut lines, servers);
        drop(lines);
        awake.into_iter().for_each(Waker::wake);
        joined
    }

    /// A slot of this server has been given back while somebody waited for it.
    pub fn has_room(&self, servers: &impl Servers, server: usize) {
        let mut awake = Vec::new();
        let mut lines = self.lines();
        self.hand_out(&mut lines, servers, server, &mut awake);
        self.settle(&mut lines, servers);
        drop(lines);
        awake.into_iter().for_each(Waker::wake);
    }

    /// Servers have changed: whoever waits for what will not come is to choose again, and who can be served is.
    pub fn reconsider(&self, servers: &impl Servers) {
        let mut awake = Vec::new();
        let mut lines = self.lines();
        for server in 0..self.limits.len() {
            self.hand_out(&mut lines, servers, server, &mut awake);
        }
        let own = (0..self.limits.len()).map(|server| Place::At { server, is_session: false });
        for place in own.chain([Place::Any]) {
            let Some(line) = lines.line(place) else { continue };
            let in_vain = line.waiting.iter().filter(|(_, waiter)| !self.may_wait(servers, place, waiter));
            for rank in in_vain.map(|(rank, _)| *rank).collect::<Vec<_>>() {
                lines.tell(place, rank, Verdict::Again, &mut awake);
            }
        }
        self.settle(&mut lines, servers);
        drop(lines);
        awake.into_iter().for_each(Waker::wake);
    }

    /// How many wait.
    pub fn lengths(&self) -> Lengths {
        let lines = self.lines();
        let of = |line: &Line| (line.waiting.len() as u64, line.longest);
        Lengths { any: of(&lines.any), own: lines.own.iter().map(of).collect() }
    }

    /// Is there anything to wait for? Not for a server that is away, nor for any where one without a limit is there.
    fn may_wait(&self, servers: &impl Servers, place: Place, waiter: &Waiter) -> bool {
        match place {
            Place::At { server, .. } => {
                let serves = servers.takes_new(server) || waiter.is_session && servers.keeps_sessions(server);
                serves && self.limits(server)
            }
            Place::Any => {
                let suits = |server: &usize| servers.takes_new(*server) && !waiter.tried.contains(server);
                let mut suitable = (0..self.limits.len()).filter(suits).peekable();
                suitable.peek().is_some() && suitable.all(|server| self.limits(server))
            }
        }
    }

    /// The servers whose slots are waited for.
    fn places(&self, place: Place) -> impl Iterator<Item = usize> {
        let servers = match place {
            Place::Any => 0..self.limits.len(),
            Place::At { server, .. } => server..server + 1,
        };
        servers.filter(|server| self.limits(*server))
    }

    /// Gives the slots of a server that are free to those who came first.
    fn hand_out(&self, lines: &mut Lines, servers: &impl Servers, server: usize, awake: &mut Vec<Waker>) {
        let Some(slots) = servers.slots(server).filter(|_| self.limits(server)) else { return };
        let most = servers.most(server);
        while slots.count() < most
            && let Some((place, rank)) = lines.first(servers, server)
            && slots.hand_over(most)
        {
            lines.tell(place, rank, Verdict::Turn(server), awake);
        }
    }

    /// Takes the mark from servers that nobody waits for.
    fn settle(&self, lines: &mut Lines, servers: &impl Servers) {
        if !lines.any.waiting.is_empty() {
            return;
        }
        for server in 0..self.limits.len() {
            if lines.own.get(server).is_some_and(|line| line.waiting.is_empty()) {
                lines.mark(servers, server, false);
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody in a line; dropped, it has left. Ready when it is told something.
pub struct Waiting<'a, S: Servers> {
    queue: &'a Queue,
    servers: &'a S,
    place: Place,
    rank: Rank,
    position: &'a Cell<u64>,
    is_over: bool,
}

impl<S: Servers> Waiting<'_, S> {
    /// When it came.
    pub fn rank(&self) -> Rank {
        self.rank
    }
}

impl<S: Servers> Future for Waiting<'_, S> {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        let mut lines = self.queue.lines();
        let told = lines.told.remove(&self.rank);
        if let Some(told) = told {
            drop(lines);
            self.is_over = true;
            self.position.update(|position| position + told.position);
            return Poll::Ready(told.verdict);
        }
        let (place, rank) = (self.place, self.rank);
        if let Some(waiter) = lines.line(place).and_then(|line| line.waiting.get_mut(&rank)) {
            match &mut waiter.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl<S: Servers> Drop for Waiting<'_, S> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut awake = Vec::new();
        let mut lines = self.queue.lines();
        if let Some(line) = lines.line(self.place)
            && let Some(waiter) = line.waiting.remove(&self.rank)
        {
            self.position.update(|position| position + line.position(&waiter));
        }
        let mut has_room = None;
        if let Some(Told { verdict: Verdict::Turn(server), .. }) = lines.told.remove(&self.rank)
            && let Some(slots) = self.servers.slots(server)
        {
            has_room = slots.give_back().then_some(server);
            self.queue.hand_out(&mut lines, self.servers, server, &mut awake);
        }
        self.queue.settle(&mut lines, self.servers);
        drop(lines);
        awake.into_iter().for_each(Waker::wake);
        has_room.into_iter().for_each(|server| self.servers.has_room(server));
    }
}

#[cfg(test)]
mod tests;
