//! The socket between keeper and guard: the guard says on it what to run, each sees the other's death on it, and the guard
//! hears how the node is, who wants the configuration read again, and what people want of servers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::process::descriptor::to_high_descriptor;
use crate::process::descriptors::{Receiver, Sender, halves, renumber};
use crate::process::messages::{Charge, FromKeeper, Report, ToKeeper};
use crate::process::wishes::{StampedWish, Wishes};

/// Messages that wait for a guard that does not read: as many as there can be, for they are few.
const OUTBOX: usize = 64;
/// And reports among them.
const REPORTS: usize = 4;

/// The keeper's end.
pub(super) struct GuardLink {
    outbox: mpsc::Sender<FromKeeper>,
    receiver: Receiver,
    /// Held as long as this keeper lives.
    _lock: Vec<OwnedFd>,
}

impl GuardLink {
    /// Takes the socket from standard input, where the guard has put it, and what the guard says first. The socket goes to a
    /// descriptor not below the one that `first` chooses. What becomes of the wishes, which are given as the keeper before
    /// knew them, the guard is told. `None` if there is no guard.
    pub(super) async fn take(
        first: impl FnOnce(&Charge) -> RawFd,
    ) -> io::Result<Option<(Self, Charge, watch::Sender<Arc<Wishes>>)>> {
        let stdin = io::stdin();
        if getsockopt(&stdin.as_fd(), sockopt::SockType).is_err() {
            return Ok(None);
        }
        let stream = StdUnixStream::from(stdin.as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        stream.set_nonblocking(true)?;
        let (sender, mut receiver) = halves(UnixStream::from_std(stream)?);
        let Some((charge, lock)) = receiver.receive().await? else { return Ok(None) };
        let Some((wishes, _)) = receiver.receive::<Vec<StampedWish>>().await? else { return Ok(None) };
        let wishes = watch::Sender::new(Arc::new(wishes.into_iter().collect::<Wishes>()));
        let first = first(&charge);
        let (sender, receiver) = renumber(sender, receiver, |socket| to_high_descriptor(socket, first))?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        tokio::spawn(send(sender, messages, wishes.subscribe()));
        Ok(Some((GuardLink { outbox, receiver, _lock: lock }, charge, wishes)))
    }

    /// Says how this node is.
    pub(super) fn report(&self, report: Report) {
        // A guard that does not read now will hear the next one.
        if self.outbox.capacity() > OUTBOX - REPORTS {
            let _ = self.outbox.try_send(FromKeeper::Report(report));
        }
    }

    /// Says something else; `false` if there is no room for it.
    pub(super) fn tell(&self, message: FromKeeper) -> bool {
        self.outbox.try_send(message).is_ok()
    }

    /// What the guard says; `None` when it is dead. Cancel-safe.
    pub(super) async fn hear(&mut self) -> Option<ToKeeper> {
        self.receiver.receive().await.ok().flatten().map(|(message, _)| message)
    }
}

/// A task of its own, so that a guard that does not read holds nothing up.
async fn send(mut sender: Sender, mut messages: mpsc::Receiver<FromKeeper>, mut wishes: watch::Receiver<Arc<Wishes>>) {
    let mut told = wishes.borrow_and_update().clone();
    loop {
        let news = tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(message) => vec![message],
                None => return,
            },
            Ok(()) = wishes.changed() => {
                let now = wishes.borrow_and_update().clone();
                let news = now.news_after(&told);
                told = now;
                news.into_iter().map(FromKeeper::Wishes).collect()
            }
        };
        for message in news {
            if sender.send(&message, &[]).await.is_err() {
                return;
            }
        }
    }
}
