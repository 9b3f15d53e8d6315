//! Tells the runtime to watch a descriptor for something to read, and for nothing else: epoll tells of a new socket at once
//! that it can be written to, which costs a round of the loop and helps nobody.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for something to read; what is watched must not block.
///
/// # Errors
/// When it cannot be watched.
pub fn when_readable<T: AsRawFd + Into<OwnedFd>>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what can become an `OwnedFd` owns its descriptor: it is open until it is dropped, and always the same.
    Ok(unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }?)
}
