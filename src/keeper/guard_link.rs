//! The socket between keeper and guard: the guard says on it what to run, each sees the other's death on it, and the guard
//! hears how the node is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::process::descriptor::to_high_descriptor;
use crate::process::descriptors::{Receiver, Sender, halves, renumber};
use crate::process::messages::{Charge, Report};

/// Messages that wait for a guard that does not read.
const OUTBOX: usize = 4;

/// The keeper's end.
pub(super) struct GuardLink {
    outbox: mpsc::Sender<Report>,
    receiver: Receiver,
    /// Held as long as this keeper lives.
    _lock: Vec<OwnedFd>,
}

impl GuardLink {
    /// Takes the socket from standard input, where the guard has put it, and what the guard says first. The socket goes to a
    /// descriptor not below the one that `first` chooses. `None` if there is no guard.
    pub(super) async fn take(first: impl FnOnce(&Charge) -> RawFd) -> io::Result<Option<(Self, Charge)>> {
        let stdin = io::stdin();
        if getsockopt(&stdin.as_fd(), sockopt::SockType).is_err() {
            return Ok(None);
        }
        let stream = StdUnixStream::from(stdin.as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        stream.set_nonblocking(true)?;
        let (sender, mut receiver) = halves(UnixStream::from_std(stream)?);
        let Some((charge, lock)) = receiver.receive().await? else { return Ok(None) };
        let first = first(&charge);
        let (sender, receiver) = renumber(sender, receiver, |socket| to_high_descriptor(socket, first))?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        tokio::spawn(send(sender, messages));
        Ok(Some((GuardLink { outbox, receiver, _lock: lock }, charge)))
    }

    /// Says how this node is.
    pub(super) fn report(&self, report: Report) {
        // A guard that does not read now will hear the next one.
        let _ = self.outbox.try_send(report);
    }

    /// Returns when the guard is dead. Cancel-safe.
    pub(super) async fn guard_died(&mut self) {
        while let Ok(Some(_)) = self.receiver.receive::<Charge>().await {}
    }
}

/// A task of its own, so that a guard that does not read holds nothing up.
async fn send(mut sender: Sender, mut messages: mpsc::Receiver<Report>) {
    while let Some(message) = messages.recv().await {
        if sender.send(&message, &[]).await.is_err() {
            return;
        }
    }
}
