//! The way in to a server: one is chosen that is not full, or one is waited for (`queue.rs`).
//!
//! As in HAProxy: where the balancing algorithm looks for a server it looks for one that has room, and where none has, the
//! request waits for any; where a session is kept at a server, or a key belongs to one, it waits for that one.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use crate::balancer::clock;
use crate::balancer::connect::Unreachable;
use crate::balancer::queue::{Joined, Place, Verdict};
use crate::balancer::session::{Late, Session, UnderWay};
use crate::config::model::BackendIndex;

/// What a request can be given.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// A server of this backend.
    pub backend: BackendIndex,
    /// The one that its session is kept at.
    pub kept: Option<usize>,
    /// What hashing chooses by.
    pub key: Option<u64>,
    /// Servers that failed it.
    pub tried: &'a [usize],
    /// Whose turn it is, if that has been found out.
    pub chosen: Option<usize>,
}

/// What there is for it at once.
enum Look {
    /// A server: it counts there from now on.
    In(usize, UnderWay),
    /// A line to wait in.
    Full(Place),
    /// Nothing.
    Nobody(Unreachable),
}

/// A server; waits for one where all that would do are full.
///
/// # Errors
/// When none is up, or none became free in time.
pub async fn enter(session: &Session, wish: Wish<'_>) -> Result<(usize, UnderWay), Unreachable> {
    match look(session, wish, &[]) {
        Look::In(server, under_way) => Ok((server, under_way)),
        Look::Nobody(reason) => Err(reason),
        Look::Full(place) => Box::pin(wait(session, wish, place)).await,
    }
}

/// What there is at once; the lines of servers in `shut` are as long as they may be.
fn look(session: &Session, wish: Wish<'_>, shut: &[usize]) -> Look {
    let Wish { backend, kept, key, tried, chosen } = wish;
    let worker = &session.worker;
    let state = &worker.shared.backends[backend.0];
    let take = |server: usize| match &state.queue {
        Some(queue) if queue.limits(server) => {
            UnderWay::at_server_below(worker, backend, server, state.servers[server].most())
        }
        _ => Some(UnderWay::at_server(worker, backend, server)),
    };
    let nobody = if shut.is_empty() { Unreachable::NoServer } else { Unreachable::QueueFull };

    if let Some(server) = kept {
        let keeps_sessions = state.servers.get(server).is_some_and(|server| server.keeps_sessions());
        if keeps_sessions && !shut.contains(&server) {
            let full = Look::Full(Place::At { server, is_session: true });
            return take(server).map_or(full, |under_way| Look::In(server, under_way));
        }
        if !session.backend(backend).redispatch {
            return Look::Nobody(nobody);
        }
    }

    let choose = |without: &[usize]| worker.chooser.borrow_mut().choose(backend, key, without);
    let mut passed = Vec::new();
    let first = || if shut.is_empty() { choose(tried) } else { choose(&[tried, shut].concat()) };
    let mut next = chosen.or_else(first);
    while let Some(server) = next {
        if let Some(under_way) = take(server) {
            return Look::In(server, under_way);
        }
        if key.is_some() {
            return Look::Full(Place::At { server, is_session: false });
        }
        passed.push(server);
        next = choose(&[tried, shut, &passed].concat());
    }
    if passed.is_empty() { Look::Nobody(nobody) } else { Look::Full(Place::Any) }
}

/// Stands in line until there is a server.
///
/// # Errors
/// When that takes too long, the line is too long, or none is left to wait for.
async fn wait(session: &Session, wish: Wish<'_>, place: Place) -> Result<(usize, UnderWay), Unreachable> {
    let timeout = session.backend(wish.backend).timeouts.queue;
    let stay = session.queued.stay();
    let admitted = session.server_within(timeout, stand(session, wish, place)).await;
    stay.end();
    admitted.unwrap_or_else(|Late| Err(Unreachable::QueueTimeout))
}

async fn stand(session: &Session, wish: Wish<'_>, mut place: Place) -> Result<(usize, UnderWay), Unreachable> {
    let worker = &session.worker;
    let state = &worker.shared.backends[wish.backend.0];
    let Some(queue) = &state.queue else { return Err(Unreachable::NoServer) };
    let wish = Wish { chosen: None, ..wish };
    let mut rank = None;
    let mut shut = Vec::new();
    loop {
        let verdict = match queue.join(state, place, wish.tried, rank, session.queued.waits_at(place)) {
            Joined::At(verdict) => verdict,
            Joined::Waits(waiting) => {
                rank = Some(waiting.rank());
                waiting.await
            }
            Joined::Full => match place {
                Place::Any => return Err(Unreachable::QueueFull),
                Place::At { server, .. } => {
                    shut.push(server);
                    Verdict::Again
                }
            },
        };
        if let Verdict::Turn(server) = verdict {
            return Ok((server, UnderWay::with_slot(worker, wish.backend, server)));
        }
        // Whoever changes the servers may be in the middle of it.
        tokio::task::yield_now().await;
        match look(session, wish, &shut) {
            Look::In(server, under_way) => return Ok((server, under_way)),
            Look::Nobody(reason) => return Err(reason),
            Look::Full(other) => place = other,
        }
    }
}

/// A request's time in queues, as the log tells it. It takes memory from the first time on that one has to wait.
#[derive(Debug, Default)]
pub struct Queued(OnceCell<Box<Waits>>);

#[derive(Debug, Default)]
struct Waits {
    time: Cell<Duration>,
    at_server: Cell<u64>,
    at_backend: Cell<u64>,
    server: Cell<Option<usize>>,
    is_waiting: Cell<bool>,
}

impl Queued {
    /// A request begins.
    pub fn reset(&self) {
        let Some(waits) = self.0.get() else { return };
        waits.time.set(Duration::ZERO);
        waits.at_server.set(0);
        waits.at_backend.set(0);
        waits.server.set(None);
        waits.is_waiting.set(false);
    }

    /// All of it.
    pub fn time(&self) -> Duration {
        self.0.get().map_or(Duration::ZERO, |waits| waits.time.get())
    }

    /// Its positions in queues of servers, and in the backend's; 0: it did not have to wait there.
    pub fn positions(&self) -> (u64, u64) {
        self.0.get().map_or((0, 0), |waits| (waits.at_server.get(), waits.at_backend.get()))
    }

    /// The server that it waits for, or waited for in vain.
    pub fn server(&self) -> Option<usize> {
        self.0.get().and_then(|waits| waits.server.get())
    }

    /// Does it wait, or has its client left while it did?
    pub fn is_waiting(&self) -> bool {
        self.0.get().is_some_and(|waits| waits.is_waiting.get())
    }

    /// Where its position there is counted.
    fn waits_at(&self, place: Place) -> &Cell<u64> {
        let waits = self.waits();
        match place {
            Place::Any => {
                waits.server.set(None);
                &waits.at_backend
            }
            Place::At { server, .. } => {
                waits.server.set(Some(server));
                &waits.at_server
            }
        }
    }

    fn stay(&self) -> Stay<'_> {
        self.waits().is_waiting.set(true);
        Stay { waits: self.waits(), since: clock::now() }
    }

    fn waits(&self) -> &Waits {
        self.0.get_or_init(Box::default)
    }
}

/// The time counts however it ends.
struct Stay<'a> {
    waits: &'a Waits,
    since: Instant,
}

impl Stay<'_> {
    fn end(self) {
        self.waits.is_waiting.set(false);
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.waits.time.update(|time| time + clock::now().saturating_duration_since(self.since));
    }
}
