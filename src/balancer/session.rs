//! A client's connection: who it is, what it counts, and how long it waits for either side.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::balancer::clock::{self, Deadline, Millis, NEVER};
use crate::balancer::listener::Listening;
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
    deadline: Rc<Deadline>,
    client_until: Cell<Millis>,
    server_until: Cell<Millis>,
}

/// It took longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

impl Session {
    /// Counts a connection that was just accepted. `None`: nobody listens there any more.
    pub fn open(thread: &Thread, listening: &Rc<Listening>, client: SocketAddr, destination_port: u16) -> Option<Self> {
        let (worker, frontend) = (thread.newest()?, listening.frontend.get()?);
        let before = worker.shared.frontends.get(frontend)?.connections.fetch_add(1, Relaxed);
        worker.counters().frontends[frontend].session(before + 1);
        worker.shared.connections.fetch_add(1, Relaxed);
        worker.connections.set(worker.connections.get() + 1);
        Some(Self {
            worker,
            frontend,
            listening: listening.clone(),
            client,
            destination_port,
            accepted: clock::now(),
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

    /// Goes over to the newest configuration, where that still serves such connections.
    pub fn renew(&mut self) {
        if !self.worker.is_old() {
            return;
        }
        if let Some((worker, frontend)) = self.successor() {
            self.leave_frontend();
            (self.worker, self.frontend) = (worker, frontend);
            if let Some(state) = self.worker.shared.frontends.get(frontend) {
                state.connections.fetch_add(1, Relaxed);
            }
        }
    }

    fn successor(&self) -> Option<(Rc<Worker>, usize)> {
        let (worker, frontend) = (self.worker.newest()?, self.listening.frontend.get()?);
        let mode = worker.shared.config.frontends.get(frontend)?.mode;
        (mode == self.frontend().mode).then_some((worker, frontend))
    }

    fn leave_frontend(&self) {
        if let Some(state) = self.worker.shared.frontends.get(self.frontend) {
            state.connections.fetch_sub(1, Relaxed);
        }
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

    fn arm(&self) {
        self.worker.clock.set(&self.deadline, self.client_until.get().min(self.server_until.get()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.deadline.forget();
        self.worker.shared.connections.fetch_sub(1, Relaxed);
        self.worker.connections.set(self.worker.connections.get() - 1);
        self.leave_frontend();
    }
}

/// Counts a request or a TCP connection as under way at a backend or a server, for as long as it is.
pub struct UnderWay {
    worker: Rc<Worker>,
    backend: BackendIndex,
    server: Option<usize>,
}

impl UnderWay {
    /// At a backend.
    pub fn at_backend(worker: &Rc<Worker>, backend: BackendIndex) -> Self {
        Self::begin(Self { worker: worker.clone(), backend, server: None })
    }

    /// At a server.
    pub fn at_server(worker: &Rc<Worker>, backend: BackendIndex, server: usize) -> Self {
        Self::begin(Self { worker: worker.clone(), backend, server: Some(server) })
    }

    fn begin(under_way: Self) -> Self {
        let before = under_way.counter().fetch_add(1, Relaxed);
        under_way.traffic().session(before + 1);
        under_way
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
        self.counter().load(Relaxed)
    }

    fn counter(&self) -> &AtomicU64 {
        let backend = &self.worker.shared.backends[self.backend.0];
        match self.server {
            Some(server) => &backend.servers[server].connections,
            None => &backend.connections,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Relaxed);
    }
}
