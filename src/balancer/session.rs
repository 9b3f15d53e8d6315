//! A client's connection: who it is, what it counts, and how long it waits for either side.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::balancer::admission::Queued;
use crate::balancer::clock::{self, Deadline, Millis, NEVER};
use crate::balancer::listener::Listening;
use crate::balancer::room::Places;
use crate::balancer::worker::{Thread, Worker};
use crate::config::model::{Backend, BackendIndex, Frontend};
use crate::stats::counters::{Event, Traffic};

/// One client's connection, for as long as it is open.
pub struct Session {
    /// Who serves it.
    pub worker: Rc<Worker>,
    /// The index of its frontend.
    pub frontend: usize,
    /// Where it came in.
    listening: Rc<Listening>,
    /// Where the client is.
    pub client: SocketAddr,
    /// The port that it connected to.
    pub destination_port: u16,
    /// When it was accepted.
    pub accepted: Instant,
    /// How its request under way has waited for a server.
    pub queued: Queued,
    places: Places,
    deadline: Rc<Deadline>,
    client_until: Cell<Millis>,
    server_until: Cell<Millis>,
}

/// Why a connection is closed as soon as it is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOpened {
    /// No frontend listens there any more.
    NobodyListens,
    /// There are as many of its source as there may be.
    TooMany {
        /// The frontend's name.
        frontend: String,
        /// So many.
        most: u32,
    },
}

/// It took longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

impl Session {
    /// Counts a connection that was just accepted and has its places.
    ///
    /// # Errors
    /// When it is to be closed.
    pub fn open(
        thread: &Thread,
        listening: &Rc<Listening>,
        mut places: Places,
        client: SocketAddr,
        destination_port: u16,
    ) -> Result<Self, NotOpened> {
        let newest = thread.newest().zip(listening.frontend.get());
        let (worker, frontend) = newest.ok_or(NotOpened::NobodyListens)?;
        let state = worker.shared.frontends.get(frontend).ok_or(NotOpened::NobodyListens)?;
        // There may have come another configuration while it waited for a place.
        places.move_to(&state.connections, None, client.ip());
        let traffic = &worker.counters().frontends[frontend];
        if let Some(sources) = &state.sources
            && !places.enter_source(sources, client.ip())
        {
            traffic.count(Event::DeniedConnection);
            let frontend = worker.shared.config.frontends[frontend].name.clone();
            return Err(NotOpened::TooMany { frontend, most: sources.most() });
        }
        traffic.session(state.connections.count());
        worker.connections.set(worker.connections.get() + 1);
        Ok(Self {
            worker,
            frontend,
            places,
            listening: listening.clone(),
            client,
            destination_port,
            accepted: clock::now(),
            queued: Queued::default(),
            deadline: Deadline::new(),
            client_until: Cell::new(NEVER),
            server_until: Cell::new(NEVER),
        })
    }

    /// Is there a newer configuration that its next request is to be served under?
    pub fn is_outdated(&self) -> bool {
        self.worker.is_old() && self.successor().is_some()
    }

    /// Its frontend is not there any more, so that it ends with the request that is under way, or the next one.
    pub fn is_left_behind(&self) -> bool {
        self.worker.is_old() && self.successor().is_none()
    }

    /// Is it not to wait for another request?
    pub fn is_to_end(&self) -> bool {
        self.worker.is_stopping.get() || self.worker.is_over()
    }

    /// Goes over to the newest configuration, where that still serves such connections, and gives the one before.
    pub fn renew(&mut self) -> Option<Rc<Worker>> {
        if !self.worker.is_old() {
            return None;
        }
        let (worker, frontend) = self.successor()?;
        let before = std::mem::replace(&mut self.worker, worker);
        self.frontend = frontend;
        if let Some(state) = self.worker.shared.frontends.get(frontend) {
            self.places.move_to(&state.connections, state.sources.as_ref(), self.client.ip());
        }
        Some(before)
    }

    fn successor(&self) -> Option<(Rc<Worker>, usize)> {
        let (worker, frontend) = (self.worker.newest()?, self.listening.frontend.get()?);
        let mode = worker.shared.config.frontends.get(frontend)?.mode;
        (mode == self.frontend().mode).then_some((worker, frontend))
    }

    /// Its frontend's configuration.
    pub fn frontend(&self) -> &Frontend {
        &self.worker.shared.config.frontends[self.frontend]
    }

    /// A backend's configuration.
    pub fn backend(&self, backend: BackendIndex) -> &Backend {
        &self.worker.shared.config.backends[backend.0]
    }

    /// The scheme that the client used.
    pub fn scheme(&self) -> &'static str {
        "http"
    }

    /// The task to wake when either side is late.
    pub fn set_waker(&self, waker: &Waker) {
        self.deadline.set_waker(waker);
        if self.deadline.take_fired() {
            self.arm_again();
        }
    }

    /// From now on the client is waited for, until the time it gives.
    pub fn await_client(&self, timeout: Duration) -> Millis {
        let until = self.worker.clock.after(timeout);
        self.await_client_until(until);
        until
    }

    /// The same, until a time that is known.
    pub fn await_client_until(&self, until: Millis) {
        self.client_until.set(until);
        self.arm();
    }

    /// The same, unless it is waited for already.
    pub fn still_await_client(&self, timeout: Duration) {
        if self.client_until.get() == NEVER {
            self.await_client(timeout);
        }
    }

    /// The client did what it was waited for.
    pub fn client_came(&self) {
        self.client_until.set(NEVER);
    }

    /// From now on the server is waited for.
    pub fn await_server(&self, timeout: Duration) {
        self.server_until.set(self.worker.clock.after(timeout));
        self.arm();
    }

    /// The same, unless it is waited for already.
    pub fn still_await_server(&self, timeout: Duration) {
        if self.server_until.get() == NEVER {
            self.await_server(timeout);
        }
    }

    /// The server did what it was waited for.
    pub fn server_came(&self) {
        self.server_until.set(NEVER);
    }

    /// Has the client been waited for too long?
    pub fn client_is_late(&self) -> bool {
        self.is_past(self.client_until.get())
    }

    /// Has the server been waited for too long?
    pub fn server_is_late(&self) -> bool {
        self.is_past(self.server_until.get())
    }

    /// What the server's side gives within the time it has.
    pub async fn server_within<F: Future>(&self, timeout: Duration, future: F) -> Result<F::Output, Late> {
        let mut future = pin!(future);
        self.await_server(timeout);
        let result = poll_fn(|context| {
            self.set_waker(context.waker());
            match future.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending if self.server_is_late() => Poll::Ready(Err(Late)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        self.server_came();
        result
    }

    fn is_past(&self, until: Millis) -> bool {
        until != NEVER && self.worker.clock.millis() >= until
    }

    /// It was woken for one time, which may not count any more: the other is still to come.
    fn arm_again(&self) {
        let times = [self.client_until.get(), self.server_until.get()];
        let until = times.into_iter().filter(|until| !self.is_past(*until)).min().unwrap_or(NEVER);
        self.worker.clock.set(&self.deadline, until);
    }

    fn arm(&self) {
        self.worker.clock.set(&self.deadline, self.client_until.get().min(self.server_until.get()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.clock.forget(&self.deadline);
        self.worker.connections.set(self.worker.connections.get() - 1);
    }
}

/// Counts a request or a TCP connection as under way at a backend or a server, for as long as it is.
pub struct UnderWay {
    worker: Rc<Worker>,
    backend: BackendIndex,
    server: Option<usize>,
    is_over: bool,
}

impl UnderWay {
    /// At a backend.
    pub fn at_backend(worker: &Rc<Worker>, backend: BackendIndex) -> Self {
        let now = worker.shared.backends[backend.0].connections.fetch_add(1, Relaxed) + 1;
        Self::counted(worker, backend, None, now)
    }

    /// At a server, whatever its limit.
    pub fn at_server(worker: &Rc<Worker>, backend: BackendIndex, server: usize) -> Self {
        let now = worker.shared.backends[backend.0].servers[server].connections.take();
        Self::counted(worker, backend, Some(server), now)
    }

    /// At a server that has room for it, and nobody who waits; `None` if it has not.
    pub fn at_server_below(worker: &Rc<Worker>, backend: BackendIndex, server: usize, most: u64) -> Option<Self> {
        let now = worker.shared.backends[backend.0].servers[server].connections.take_below(most)?;
        Some(Self::counted(worker, backend, Some(server), now))
    }

    /// At a server of which a slot has been taken for it.
    pub fn with_slot(worker: &Rc<Worker>, backend: BackendIndex, server: usize) -> Self {
        let now = worker.shared.backends[backend.0].servers[server].connections.count();
        Self::counted(worker, backend, Some(server), now)
    }

    fn counted(worker: &Rc<Worker>, backend: BackendIndex, server: Option<usize>, now: u64) -> Self {
        let under_way = Self { worker: worker.clone(), backend, server, is_over: false };
        under_way.traffic().session(now);
        under_way
    }

    /// It no longer counts. Whoever waits for its place gets it.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let backend = &self.worker.shared.backends[self.backend.0];
        match self.server {
            None => drop(backend.connections.fetch_sub(1, Relaxed)),
            Some(server) => self.worker.shared.give_back(self.backend, server),
        }
    }

    /// Where its events are counted.
    pub fn traffic(&self) -> &Traffic {
        let backend = &self.worker.counters().backends[self.backend.0];
        self.server.map_or(&backend.traffic, |server| &backend.servers[server])
    }

    /// The server was reached, on a kept connection or a new one: it counts as a request of its own.
    pub fn reached(&self, is_reused: bool) {
        self.traffic().count(if is_reused { Event::Reuse } else { Event::Connect });
        if let Some(server) = self.server {
            self.worker.shared.backends[self.backend.0].servers[server].requests.fetch_add(1, Relaxed);
        }
    }

    /// How many there are now, this one included.
    pub fn count(&self) -> u64 {
        let backend = &self.worker.shared.backends[self.backend.0];
        match self.server {
            Some(server) => backend.servers[server].connections.count(),
            None => backend.connections.load(Relaxed),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.end();
    }
}
