//! A listening socket that hands out connections the runtime does not watch yet, as its own would do at once.

use std::io;
use std::net::{self, SocketAddr};

use mio::net::TcpListener;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::balancer::readiness;

/// A listening socket.
pub struct ListeningSocket(AsyncFd<TcpListener>);

impl ListeningSocket {
    /// Of the runtime that calls this.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it: what goes out is whole, there is nothing to wait for.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        Ok(Self(readiness::listener(TcpListener::from_std(listener))?))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// The next connection, which does not block, and whom it comes from.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn accept(&self) -> io::Result<(net::TcpStream, SocketAddr)> {
        let (stream, client) = self.0.async_io(Interest::READABLE, TcpListener::accept).await?;
        Ok((stream.into(), client))
    }
}
