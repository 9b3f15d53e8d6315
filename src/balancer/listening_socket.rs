//! A listening socket that hands out connections the runtime does not watch yet, as its own would do at once.

use std::io;
use std::net::{self, SocketAddr};

use mio::net::TcpListener;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::balancer::keep_alive::{self, SystemKeepAlive};
use crate::balancer::readiness;
use crate::config::model::TcpKeepAlive;

/// A listening socket.
pub struct ListeningSocket {
    listener: AsyncFd<TcpListener>,
    keep_alive: SystemKeepAlive,
}

impl ListeningSocket {
    /// Of the runtime that calls this.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it: what goes out is whole, there is nothing to wait for.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let keep_alive = SystemKeepAlive::of(&SockRef::from(&listener))?;
        Ok(Self { listener: readiness::listener(TcpListener::from_std(listener))?, keep_alive })
    }

    /// Do its clients ask, and are answered? What they ask first is then acknowledged together with the answer: a segment less
    /// for each connection (tcp(7), TCP_QUICKACK; HAProxy's tcp-smart-accept). The system waits 40 ms for that: whoever finds
    /// that more is to come first has it acknowledge at once.
    ///
    /// # Errors
    /// When the system does not take the option.
    pub fn expect_requests(&self, are_expected: bool) -> io::Result<()> {
        SockRef::from(self.listener.get_ref()).set_tcp_quickack(!are_expected)
    }

    /// Whether the connections that it accepts from now on ask if their client is still there: they inherit that.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn keep_alive(&self, wanted: Option<TcpKeepAlive>) -> io::Result<()> {
        keep_alive::set(&SockRef::from(self.listener.get_ref()), self.keep_alive, wanted)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.get_ref().local_addr()
    }

    /// The next connection, which does not block, and whom it comes from.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn accept(&self) -> io::Result<(net::TcpStream, SocketAddr)> {
        let (stream, client) = self.listener.async_io(Interest::READABLE, TcpListener::accept).await?;
        Ok((stream.into(), client))
    }
}
