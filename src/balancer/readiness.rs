//! Tells the runtime to watch a socket for something to read, and for nothing else: epoll tells of a new one at once that it
//! can be written to, which costs a round of the loop and helps nobody.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpStream;

use mio::net::TcpListener;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connection that does not block.
///
/// # Errors
/// When it cannot be watched.
pub fn connection(stream: TcpStream) -> io::Result<AsyncFd<TcpStream>> {
    // SAFETY: it owns its descriptor, open and the same until it is dropped; nobody puts another in its place.
    Ok(unsafe { AsyncFd::register_with_interest(stream, Interest::READABLE) }?)
}

/// A listening socket that does not block.
///
/// # Errors
/// When it cannot be watched.
pub fn listener(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?)
}
