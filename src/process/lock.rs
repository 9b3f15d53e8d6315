//! The right to the virtual addresses of this network namespace: an instance removes every address that another left behind,
//! so there is one at a time.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::{Instant, sleep};

/// A unix socket that has no file: its name is the network namespace's own, and free again when the last process that has
/// the socket is dead. Nobody can connect to it.
const NAME: &str = "\0relevo";

/// A process that was killed takes a moment to close what it had.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the virtual addresses are not ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another instance has them.
    #[error(
        "another relevo is running and looks after the virtual addresses of this network namespace (it has the socket \
         @relevo: `ss -xap` names its process); end it first, or run this one in a network namespace of its own or \
         without [vrrp]"
    )]
    Taken,
    /// No socket is to be had.
    #[error("the right to the virtual addresses cannot be had: {0}")]
    Socket(#[from] io::Error),
}

/// Takes the right, which lasts until the descriptor and its copies are closed. Waits for one that is just being given up.
///
/// # Errors
/// Somebody else has it.
pub async fn take() -> Result<OwnedFd, Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        match try_take() {
            Err(Error::Taken) if Instant::now() < end => sleep(Duration::from_millis(10)).await,
            taken => return taken,
        }
    }
}

/// The same without waiting.
///
/// # Errors
/// Somebody else has it.
pub fn try_take() -> Result<OwnedFd, Error> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match socket.bind(&SockAddr::unix(NAME)?) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Error::Taken),
        Err(error) => Err(error.into()),
    }
}
