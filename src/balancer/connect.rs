//! From a backend to a connection: which server, from which address, and what happens when it cannot be had.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::balancer::admission::{self, Wish};
use crate::balancer::clock;
use crate::balancer::health::observation::{Seen, observe};
use crate::balancer::keep_alive::{self, SystemKeepAlive};
use crate::balancer::lack::is_ours;
use crate::balancer::session::{Late, Session, UnderWay};
use crate::balancer::state::Shared;
use crate::config::model::{BackendIndex, Server};
use crate::stats::counters::Event;

/// The first pause before a server that has failed is tried again; each further one is three times as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest.
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
    pauses: u32,
    /// Attempts so far that failed and were followed by another.
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
    /// The last attempt failed for want of something here.
    Exhausted,
}

impl Unreachable {
    /// Who ended it and when, for the log.
    pub fn termination(self) -> [u8; 2] {
        *match self {
            Self::NoServer | Self::Failed => b"SC",
            Self::Timeout => b"sC",
            Self::QueueFull => b"SQ",
            Self::QueueTimeout => b"sQ",
            Self::Exhausted => b"RC",
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
        let (server, under_way) =
            admission::enter(session, Wish { backend, kept, key, tried: &[], chosen: None }).await?;
        if kept != Some(server) {
            worker.counters().backends[backend.0].traffic.count(Event::Balanced);
            under_way.traffic().count(Event::Balanced);
        }
        let attempts = Self {
            session,
            backend,
            key,
            server,
            under_way,
            tried: Vec::new(),
            pauses: 0,
            retries: 0,
            redispatched: false,
        };
        if let Some(budget) = &worker.shared.backends[backend.0].retry_budget {
            budget.request(attempts.second());
        }
        Ok(attempts)
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
            match self.connect_once().await {
                Ok(connected) => return Ok(connected),
                Err(failure) => self.failed(failure).await?,
            }
        }
    }

    /// A connection to the server whose turn it is.
    ///
    /// # Errors
    /// When this attempt failed.
    pub async fn connect_once(&self) -> Result<Connected, Unreachable> {
        let shared = &self.session.worker.shared;
        let timeout = self.session.backend(self.backend).timeouts.connect;
        let attempt = connect(shared, self.backend, self.server);
        match self.session.server_within(timeout, attempt).await {
            Ok(Ok(connected)) => {
                self.observe(Seen::Connected);
                Ok(connected)
            }
            Ok(Err(error)) => {
                self.observe(Seen::NotConnected(&error));
                tracing::debug!(server = %self.name(), %error, "a connection failed");
                if !is_ours(&error) {
                    return Err(Unreachable::Failed);
                }
                shared.connections_lack.make(|| {
                    tracing::warn!(%error, "connections to servers cannot be made for now, which is not theirs: {error}");
                });
                Err(Unreachable::Exhausted)
            }
            Err(Late) => {
                self.observe(Seen::ConnectTimeout);
                Err(Unreachable::Timeout)
            }
        }
    }

    /// Tells of what became of the attempt, where anybody wants to know.
    pub fn observe(&self, seen: Seen<'_>) {
        observe(&self.session.worker.shared, self.backend, self.server, seen);
    }

    /// A connection has failed, or ended before anything was sent: whose turn is it now?
    ///
    /// # Errors
    /// When no further attempt may be made.
    pub async fn failed(&mut self, failure: Unreachable) -> Result<(), Unreachable> {
        let backend = self.session.backend(self.backend);
        if !backend.retry.connection_failure || self.retries >= backend.retries {
            return Err(failure);
        }
        self.go_on(failure != Unreachable::Timeout).await
    }

    /// May a request be sent again that was sent? It is then to be done: the budget has counted it.
    pub fn may_repeat(&self) -> bool {
        if self.retries >= self.session.backend(self.backend).retries {
            return false;
        }
        let worker = &self.session.worker;
        let budget = worker.shared.backends[self.backend.0].retry_budget.as_ref();
        let may_repeat = budget.is_some_and(|budget| budget.withdraw(self.second()));
        if !may_repeat {
            worker.counters().backends[self.backend.0].traffic.count(Event::OverBudget);
            self.under_way.traffic().count(Event::OverBudget);
        }
        may_repeat
    }

    /// Another attempt: at a server that has not been tried, or else at another one than the last, or else at the same. A
    /// server that has failed is given a moment, unless time has passed already. Where the others are full it waits for them.
    ///
    /// # Errors
    /// When none of them becomes free.
    pub async fn go_on(&mut self, pauses: bool) -> Result<(), Unreachable> {
        let backend = self.session.backend(self.backend);
        let worker = &self.session.worker;
        self.retries += 1;
        self.tried.push(self.server);
        let mut is_untried = true;
        let mut other = None;
        if backend.redispatch {
            let mut chooser = worker.chooser.borrow_mut();
            other = chooser.choose(self.backend, self.key, &self.tried);
            if other.is_none() && self.tried.len() > 1 {
                is_untried = false;
                self.tried = vec![self.server];
                other = chooser.choose(self.backend, self.key, &self.tried);
            }
        }
        let event = if other.is_some() { Event::Redispatch } else { Event::Retry };
        // As in HAProxy: counted where it should have gone, as the one or the other.
        worker.counters().backends[self.backend.0].traffic.count(event);
        self.under_way.traffic().count(event);
        if pauses && (other.is_none() || !is_untried) {
            let pause = pause(self.pauses, RandomState::new().hash_one(())).min(backend.timeouts.connect);
            self.pauses += 1;
            tokio::time::sleep(pause).await;
        }
        if other.is_some() {
            self.redispatched = true;
            self.under_way.end();
            let wish = Wish { backend: self.backend, kept: None, key: self.key, tried: &self.tried, chosen: other };
            (self.server, self.under_way) = admission::enter(self.session, wish).await?;
        }
        Ok(())
    }

    /// Since the start, for the budget.
    fn second(&self) -> u64 {
        clock::now().saturating_duration_since(self.session.worker.shared.started).as_secs()
    }

    fn name(&self) -> impl fmt::Display {
        let backend = self.session.backend(self.backend);
        format!("{}/{}", backend.name, backend.servers[self.server].name)
    }
}

/// How long a server that has failed is left alone, so many pauses after the first: at random, so that those who failed
/// together do not come back together.
fn pause(earlier: u32, random: u64) -> Duration {
    let middle = FIRST_PAUSE.saturating_mul(3_u32.saturating_pow(earlier)).min(LONGEST_PAUSE);
    middle / 2 + middle.mul_f64(random as f64 / u64::MAX as f64)
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
    if let Some(wanted) = shared.config.backends[backend.0].tcp_keep_alive {
        let socket = SockRef::from(&stream);
        keep_alive::set(&socket, SystemKeepAlive::of(&socket)?, Some(wanted))?;
    }
    Ok(Connected { stream, way })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for (earlier, least, most) in [(0, 50, 150), (1, 150, 450), (2, 450, 1350), (3, 500, 1500), (99, 500, 1500)] {
            let millis = |random| pause(earlier, random).as_millis();
            assert_eq!((millis(0), millis(u64::MAX)), (least, most), "after {earlier}");
        }
    }
}
