//! A worker's connections to servers: those that wait for their next request, and what one of them is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use tokio::net::TcpStream;

use crate::balancer::clock::Millis;
use crate::balancer::connect::{Connected, Way};
use crate::balancer::http::body::RequestBody;
use crate::balancer::http::socket::Socket;
use crate::balancer::state::Shared;
use crate::config::model::BackendIndex;

/// Servers close a connection that was idle for 5 s and more (nginx 75 s, Apache and Node.js 5 s): ours goes before.
const IDLE: Duration = Duration::from_secs(4);
/// Longest head of a response, and what is read at once of its body.
const BUFFER: usize = 64 * 1024;

/// A connection to a server. Whoever holds it polls it; it has no task of its own.
pub struct Upstream {
    sender: SendRequest<RequestBody>,
    /// `None`: closed.
    connection: Option<Connection<Socket, RequestBody>>,
    is_over: bool,
    way: Way,
    backend: BackendIndex,
    server: usize,
    idle_since: Millis,
    is_reused: bool,
}

impl Upstream {
    /// HTTP/1.1 on a new connection.
    ///
    /// # Errors
    /// None that hyper has today.
    pub async fn new(connected: Connected, backend: BackendIndex, server: usize) -> hyper::Result<Box<Self>> {
        let Connected { stream, way } = connected;
        let (sender, connection) = Builder::new().max_buf_size(BUFFER).handshake(Socket::new(stream)).await?;
        let (connection, is_over, is_reused) = (Some(connection), false, false);
        Ok(Box::new(Self { sender, connection, is_over, way, backend, server, idle_since: 0, is_reused }))
    }

    /// Has it served a request before?
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Hands a request over; it is sent, and its response read, while the connection is polled.
    pub fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        self.sender.try_send_request(request)
    }

    /// Does what the connection has to do. Ready: it is over.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_over
            && let Some(connection) = &mut self.connection
        {
            // Whoever awaits a response or its body is told of an error there.
            self.is_over = Pin::new(connection).poll(context).is_ready();
        }
        if self.is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Closes a connection that is over: only then does a request come back that it had not begun to send.
    pub fn close(&mut self) {
        (self.connection, self.is_over) = (None, true);
    }

    /// The socket of a connection that became another protocol, and what has come of that already; `None` if it was closed.
    pub fn into_tunnel(self) -> Option<(TcpStream, Bytes)> {
        let parts = self.connection?.into_parts();
        Some((parts.io.into_stream(), parts.read_buf))
    }

    /// Is it ready for its next request? Looks once, and leaves no waker behind.
    fn is_idle(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.sender.is_ready()
    }
}

/// The connections that wait, by backend and server, the last that came first.
pub struct Pool {
    idle: RefCell<Vec<Vec<VecDeque<Box<Upstream>>>>>,
    /// How many there are in all.
    waiting: Cell<usize>,
    most: usize,
}

impl Pool {
    /// An empty one that keeps at most so many, whichever servers they lead to: descriptors are counted on that.
    pub fn new(shared: &Shared, most: usize) -> Self {
        let of_backend = |servers: usize| (0..servers).map(|_| VecDeque::new()).collect();
        let idle = shared.config.backends.iter().map(|backend| of_backend(backend.servers.len())).collect();
        Self { idle: RefCell::new(idle), waiting: Cell::new(0), most }
    }

    /// A connection to this server that still leads where a new one would.
    pub fn take(&self, shared: &Shared, backend: BackendIndex, server: usize, now: Millis) -> Option<Box<Upstream>> {
        let mut idle = self.idle.borrow_mut();
        let connections = &mut idle[backend.0][server];
        let way = if connections.is_empty() { None } else { Way::to(shared, backend, server) };
        while let Some(mut upstream) = connections.pop_back() {
            self.waiting.update(|waiting| waiting - 1);
            if Some(upstream.way) == way && !is_stale(&upstream, now) {
                upstream.is_reused = true;
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection that has done its work, if it can serve again.
    pub fn put(&self, mut upstream: Box<Upstream>, now: Millis) {
        if !upstream.is_idle() {
            return;
        }
        upstream.idle_since = now;
        let mut idle = self.idle.borrow_mut();
        let connections = &mut idle[upstream.backend.0][upstream.server];
        if self.waiting.get() < self.most {
            self.waiting.update(|waiting| waiting + 1);
        } else if connections.pop_front().is_none() {
            return;
        }
        connections.push_back(upstream);
    }

    /// Closes those that have waited too long and those that their servers have closed. Called every second or so.
    pub fn sweep(&self, now: Millis) {
        let mut waiting = 0;
        for connections in self.idle.borrow_mut().iter_mut().flatten() {
            connections.retain_mut(|upstream| !is_stale(upstream, now) && upstream.is_idle());
            waiting += connections.len();
        }
        self.waiting.set(waiting);
    }
}

fn is_stale(upstream: &Upstream, now: Millis) -> bool {
    now.saturating_sub(upstream.idle_since) >= IDLE.as_millis() as Millis
}
