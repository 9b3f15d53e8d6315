//! Pipes for splice(2): bytes go from socket to socket without being copied here.
//!
//! A pipe is borrowed from its worker while it holds something, so that who is quiet holds none. Who cannot have one copies.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds at most.
pub const PIPE: usize = 256 * 1024;
/// Those that wait for their next use.
const KEPT: usize = 64;
/// What one user's pipes may hold in all before the kernel makes new ones too small to be of use (pipe(7),
/// `pipe-user-pages-soft`), in pipes.
const MOST_OF_A_USER: usize = 256;

/// The pipes of a worker.
pub struct Pipes {
    /// They wait for their next use; all are empty.
    kept: RefCell<Vec<Ends>>,
    lent: Cell<usize>,
    most: usize,
}

impl Pipes {
    /// For one of so many workers.
    pub fn new(workers: usize) -> Rc<Self> {
        let most = MOST_OF_A_USER / workers.max(1);
        Rc::new(Self { kept: RefCell::default(), lent: Cell::new(0), most })
    }

    /// An empty pipe; `None`: there are enough already, or no descriptors left.
    pub fn borrow(self: &Rc<Self>) -> Option<Pipe> {
        if self.lent.get() >= self.most {
            return None;
        }
        let ends = self.kept.borrow_mut().pop().or_else(|| Ends::new().ok())?;
        self.lent.update(|lent| lent + 1);
        Some(Pipe { ends: Some(ends), filled: 0, home: self.clone() })
    }

    fn take_back(&self, ends: Option<Ends>) {
        self.lent.update(|lent| lent - 1);
        let mut kept = self.kept.borrow_mut();
        if kept.len() < KEPT {
            kept.extend(ends);
        }
    }
}

struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // One that stays as small as the kernel makes it does as well.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        Ok(Self { reader, writer })
    }
}

/// A pipe, and how much is in it. When it is dropped it goes back, or is closed where it still holds something.
pub struct Pipe {
    /// `None` only while it is dropped.
    ends: Option<Ends>,
    filled: usize,
    home: Rc<Pipes>,
}

impl Pipe {
    /// Does it hold nothing?
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes at most `most` bytes from a socket. Only an empty pipe is filled: of another one nobody knows whether it is full
    /// or the socket has nothing. 0: the socket has finished.
    pub fn poll_fill(&mut self, context: &mut Context<'_>, from: &TcpStream, most: usize) -> Poll<io::Result<usize>> {
        let Some(Ends { writer, .. }) = &self.ends else { return Poll::Ready(Ok(0)) };
        let moved = ready!(poll_move(context, from, Interest::READABLE, || move_bytes(from, writer, most.min(PIPE))));
        self.filled = *moved.as_ref().unwrap_or(&0);
        Poll::Ready(moved)
    }

    /// Gives what it holds, or a part of that, to a socket.
    pub fn poll_empty(&mut self, context: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(Ends { reader, .. }) = &self.ends else { return Poll::Ready(Ok(0)) };
        let moved = ready!(poll_move(context, to, Interest::WRITABLE, || move_bytes(reader, to, self.filled)));
        self.filled -= moved.as_ref().map_or(0, |moved| self.filled.min(*moved));
        Poll::Ready(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let ends = self.ends.take();
        self.home.take_back(ends.filter(|_| self.filled == 0));
    }
}

/// Whoever has moved much in a row goes on when the runtime has looked for events, and others have had their turn.
pub fn give_way<T>(context: &mut Context<'_>) -> Poll<T> {
    let _ = pin!(tokio::task::yield_now()).poll(context);
    Poll::Pending
}

fn poll_move(
    context: &mut Context<'_>,
    socket: &TcpStream,
    interest: Interest,
    mut step: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        match interest.is_readable() {
            true => ready!(socket.poll_read_ready(context))?,
            false => ready!(socket.poll_write_ready(context))?,
        }
        match socket.try_io(interest, &mut step) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            moved => return Poll::Ready(moved),
        }
    }
}

fn move_bytes(from: &impl AsFd, to: &impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from.as_fd(), None, to.as_fd(), None, length, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_than_a_user_may_have() {
        let pipes = Pipes::new(MOST_OF_A_USER / 2);
        let (first, second) = (pipes.borrow(), pipes.borrow());
        assert!(first.is_some() && second.is_some() && pipes.borrow().is_none());
        drop(first);
        assert!(pipes.borrow().is_some());
    }

    #[test]
    fn one_that_holds_something_does_not_come_back() {
        let pipes = Pipes::new(1);
        let mut pipe = pipes.borrow().unwrap();
        pipe.filled = 1;
        drop(pipe);
        assert!(pipes.kept.borrow().is_empty());
        drop(pipes.borrow().unwrap());
        assert_eq!((pipes.kept.borrow().len(), pipes.lent.get()), (1, 0));
    }
}
