//! TCP's own way of finding out that the other end of a quiet connection is gone.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::config::model::TcpKeepAlive;

/// What the system has for what is not said.
#[derive(Debug, Clone, Copy)]
pub struct SystemKeepAlive {
    idle: Duration,
    interval: Duration,
    count: u32,
}

impl SystemKeepAlive {
    /// From a socket that nobody has set anything of.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn of(socket: &SockRef<'_>) -> io::Result<Self> {
        let (idle, interval) = (socket.tcp_keepalive_time()?, socket.tcp_keepalive_interval()?);
        Ok(Self { idle, interval, count: socket.tcp_keepalive_retries()? })
    }
}

/// From now on this socket, and what it accepts, asks in this way, or not at all.
///
/// # Errors
/// When the system does not take it.
pub fn set(socket: &SockRef<'_>, system: SystemKeepAlive, wanted: Option<TcpKeepAlive>) -> io::Result<()> {
    let Some(TcpKeepAlive { idle, interval, count }) = wanted else { return socket.set_keepalive(false) };
    let keep_alive = TcpKeepalive::new()
        .with_time(idle.unwrap_or(system.idle))
        .with_interval(interval.unwrap_or(system.interval))
        .with_retries(count.unwrap_or(system.count));
    socket.set_tcp_keepalive(&keep_alive)
}
