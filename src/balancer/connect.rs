//! From a backend to a connection: which server, from which address, and what happens when it cannot be had.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use tokio::net::{TcpSocket, TcpStream};

use crate::balancer::admission::{self, Look, Wish};
use crate::balancer::health::observation::{Seen, observe};
use crate::balancer::session::{Late, Session, UnderWay};
use crate::balancer::state::Shared;
use crate::config::model::{BackendIndex, Server};
use crate::stats::counters::Event;

/// Longest pause before the server that just failed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The attempts to reach a server of one backend for one request or TCP connection.
pub struct Attempts<'session> {
    session: &'session Session,
    backend: BackendIndex,
    /// What hashing chooses by.
    key: Option<u64>,
    server: usize,
    /// Counts it at the server.
    pub under_way: UnderWay,
    tried: Vec<usize>,
    /// Failed connections so far.
    pub retries: u32,
    /// It goes to another server than it went to at first.
    pub redispatched: bool,
}

/// No connection, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// No server is up.
    NoServer,
    /// All servers that would do are full, and so is the queue.
    QueueFull,
    /// None of them became free in time.
    QueueTimeout,
    /// The last attempt was refused or failed otherwise.
    Failed,
    /// The last attempt took too long.
    Timeout,
}

impl Unreachable {
    /// Who ended it and when, for the log.
    pub fn termination(self) -> [u8; 2] {
        *match self {
            Self::NoServer | Self::Failed => b"SC",
            Self::Timeout => b"sC",
            Self::QueueFull => b"SQ",
            Self::QueueTimeout => b"sQ",
        }
    }
}

impl<'session> Attempts<'session> {
    /// Takes the server that a session is kept at, where it may have it, or the backend's next one, by `key` where it hashes.
    /// Waits for one where all that would do are full.
    ///
    /// # Errors
    /// When no server is up, or none becomes free.
    pub async fn begin(
        session: &'session Session,
        backend: BackendIndex,
        kept: Option<usize>,
        key: Option<u64>,
    ) -> Result<Self, Unreachable> {
        let worker = &session.worker;
        let (server, under_way) = admission::enter(session, Wish { backend, kept, key, tried: &[] }).await?;
        if kept != Some(server) {
            worker.counters().backends[backend.0].traffic.count(Event::Balanced);
            under_way.traffic().count(Event::Balanced);
        }
        Ok(Self { session, backend, key, server, under_way, tried: Vec::new(), retries: 0, redispatched: false })
    }

    /// The server whose turn it is.
    pub fn server(&self) -> usize {
        self.server
    }

    /// A connection to a server, after as many attempts as the backend allows.
    ///
    /// # Errors
    /// When none of them succeeded.
    pub async fn connect(&mut self) -> Result<Connected, Unreachable> {
        loop {
            let shared = &self.session.worker.shared;
            let timeout = self.session.backend(self.backend).timeouts.connect;
            let attempt = connect(shared, self.backend, self.server);
            let failure = match self.session.server_within(timeout, attempt).await {
                Ok(Ok(connected)) => {
                    self.observe(Seen::Connected);
                    return Ok(connected);
                }
                Ok(Err(error)) => {
                    self.observe(Seen::NotConnected(&error));
                    tracing::debug!(server = %self.name(), %error, "a connection failed");
                    Unreachable::Failed
                }
                Err(Late) => {
                    self.observe(Seen::ConnectTimeout);
                    Unreachable::Timeout
                }
            };
            self.failed(failure).await?;
        }
    }

    /// Tells of what became of the attempt, where anybody wants to know.
    pub fn observe(&self, seen: Seen<'_>) {
        observe(&self.session.worker.shared, self.backend, self.server, seen);
    }

    /// A connection has failed: whose turn is it now?
    ///
    /// # Errors
    /// When no further attempt may be made.
    pub async fn failed(&mut self, failure: Unreachable) -> Result<(), Unreachable> {
        let backend = self.session.backend(self.backend);
        if self.retries >= backend.retries {
            return Err(failure);
        }
        self.retries += 1;
        self.tried.push(self.server);
        let worker = &self.session.worker;
        let backend_traffic = &worker.counters().backends[self.backend.0].traffic;
        let wish = Wish { backend: self.backend, kept: None, key: self.key, tried: &self.tried };
        let other = if backend.redispatch { admission::look(self.session, wish, &[]) } else { Look::Nobody(failure) };
        if !matches!(other, Look::Nobody(_)) {
            // As in HAProxy: counted where it should have gone, as the one or the other.
            backend_traffic.count(Event::Redispatch);
            self.under_way.traffic().count(Event::Redispatch);
            self.redispatched = true;
        }
        match other {
            Look::In(other, under_way) => (self.server, self.under_way) = (other, under_way),
            Look::Full(place) => {
                self.under_way.end();
                (self.server, self.under_way) = admission::wait(self.session, wish, place).await?;
            }
            // The same server at once would most likely fail the same way.
            Look::Nobody(_) => {
                backend_traffic.count(Event::Retry);
                self.under_way.traffic().count(Event::Retry);
                tokio::time::sleep(backend.timeouts.connect.min(LONGEST_PAUSE)).await;
            }
        }
        Ok(())
    }

    fn name(&self) -> impl fmt::Display {
        let backend = self.session.backend(self.backend);
        format!("{}/{}", backend.name, backend.servers[self.server].name)
    }
}

/// A new connection to a server.
pub struct Connected {
    /// The connection.
    pub stream: TcpStream,
    /// Between which addresses.
    pub way: Way,
}

/// What a connection to a server was made with; one that was kept is good only while this is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    to: SocketAddr,
    from: Option<IpAddr>,
}

impl Way {
    /// How a server is reached now; `None` while its name does not resolve.
    pub fn to(shared: &Shared, backend: BackendIndex, server: usize) -> Option<Self> {
        let to = **shared.backends[backend.0].servers[server].address.load().as_ref()?;
        Some(Self { to, from: source(shared, &shared.config.backends[backend.0].servers[server]) })
    }
}

/// The address that traffic comes from (design rule 7: a virtual one only while this node holds it).
fn source(shared: &Shared, server: &Server) -> Option<IpAddr> {
    let source = server.source?;
    (!server.source_is_virtual || shared.held.load().contains(&source)).then_some(source)
}

async fn connect(shared: &Shared, backend: BackendIndex, server: usize) -> io::Result<Connected> {
    let way = Way::to(shared, backend, server)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the server's name does not resolve"))?;
    let stream = match way.from {
        None => TcpStream::connect(way.to).await?,
        Some(source) => {
            let socket = if way.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // The port is chosen at connect: many connections to different servers may then share one.
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(way.to).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(Connected { stream, way })
}
