//! The socket between keeper and guard: each sees the other's death on it, and the guard hears when the keeper is ready.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::process::descriptor::to_high_descriptor;

/// The keeper's end.
pub(super) struct GuardLink {
    stream: UnixStream,
}

impl GuardLink {
    /// Takes it from standard input, where the guard has put it, to a descriptor not below `first`. `None` if there is no
    /// guard.
    pub(super) fn take(first: RawFd) -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if getsockopt(&stdin.as_fd(), sockopt::SockType).is_err() {
            return Ok(None);
        }
        let socket = to_high_descriptor(stdin.as_fd().try_clone_to_owned()?, first);
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        let stream = StdUnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Some(GuardLink { stream: UnixStream::from_std(stream)? }))
    }

    /// Says that this node serves.
    pub(super) fn ready(&self) {
        // A failure means that the guard is dead, which is noticed elsewhere.
        let _ = self.stream.try_write(b"R");
    }

    /// Returns when the guard is dead. Cancel-safe.
    pub(super) async fn guard_died(&mut self) {
        let mut nothing = [0; 1];
        while matches!(self.stream.read(&mut nothing).await, Ok(1..)) {}
    }
}
