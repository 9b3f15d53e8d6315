//! Bytes both ways between a client and a server, through splice(2): they stay in the kernel.
//!
//! A direction borrows a pipe while it carries something and gives it back when it is empty, so a quiet tunnel costs two
//! sockets and no memory. Where no pipe can be had (each takes two descriptors) a buffer does the same.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::balancer::session::Session;
use crate::config::model::ServerTimeouts;

/// What one step carries at most: the size of a pipe.
const STEP: usize = 64 * 1024;
/// Pipes and buffers that wait for their next use.
const KEPT: usize = 64;
/// Steps of one direction in a row, then others have their turn.
const STEPS_IN_A_ROW: usize = 16;

/// One side, and what has been read from it already.
pub struct Side<'stream> {
    /// Its socket.
    pub stream: &'stream TcpStream,
    /// Goes to the other side first.
    pub first: Bytes,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Bytes the client sent.
    pub from_client: u64,
    /// Bytes the client was sent.
    pub to_client: u64,
    /// Who ended it and when, if it did not end well.
    pub end: Option<[u8; 2]>,
}

/// Carries bytes until both sides have finished, one of them breaks, or nothing moves for too long: `tunnel` while both
/// directions are open, then `server` or `client`, whoever still sends or receives.
pub async fn run(session: &Session, client: Side<'_>, server: Side<'_>, timeouts: ServerTimeouts) -> Ended {
    let carriers = &session.worker.carriers;
    let mut upward = Direction::new(client.stream, server.stream, client.first, carriers);
    let mut downward = Direction::new(server.stream, client.stream, server.first, carriers);
    session.client_came();
    session.await_server(timeouts.tunnel);

    let end = poll_fn(|context| {
        session.set_waker(context.waker());
        let before = upward.carried + downward.carried;
        for (direction, cause) in [(&mut upward, b'C'), (&mut downward, b'S')] {
            if let Poll::Ready(Err(failure)) = direction.poll(context) {
                let cause = if failure.is_receiver { other(cause) } else { cause };
                tracing::debug!(error = %failure.error, "a connection broke");
                return Poll::Ready(Some([cause, b'D']));
            }
        }
        if upward.is_done() && downward.is_done() {
            return Poll::Ready(None);
        }
        if session.worker.is_over() {
            return Poll::Ready(Some(*b"KD"));
        }
        if upward.carried + downward.carried > before || !session.server_is_late() {
            if upward.carried + downward.carried > before {
                session.await_server(patience(session, &upward, &downward, &timeouts));
            }
            return Poll::Pending;
        }
        Poll::Ready(Some(*if upward.is_done() { b"sD" } else { b"cD" }))
    })
    .await;
    session.server_came();
    Ended { from_client: upward.carried, to_client: downward.carried, end }
}

fn patience(session: &Session, upward: &Direction, downward: &Direction, timeouts: &ServerTimeouts) -> Duration {
    match (upward.is_done(), downward.is_done()) {
        (true, _) => timeouts.server,
        (_, true) => session.frontend().timeouts.client,
        _ => timeouts.tunnel,
    }
}

fn other(cause: u8) -> u8 {
    if cause == b'C' { b'S' } else { b'C' }
}

/// The pipes and buffers of a worker that wait for their next use. All are empty.
#[derive(Default)]
pub struct Carriers(RefCell<Vec<Carrier>>);

impl Carriers {
    fn take(&self) -> Carrier {
        self.0.borrow_mut().pop().unwrap_or_else(Carrier::new)
    }

    fn give_back(&self, carrier: Carrier) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(carrier);
        }
    }
}

/// What holds the bytes between two sockets.
enum Carrier {
    Pipe { reader: OwnedFd, writer: OwnedFd, filled: usize },
    Buffer { bytes: Box<[u8]>, filled: std::ops::Range<usize> },
}

impl Carrier {
    fn new() -> Self {
        match nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK) {
            Ok((reader, writer)) => Self::Pipe { reader, writer, filled: 0 },
            Err(_) => Self::Buffer { bytes: vec![0; STEP / 4].into(), filled: 0..0 },
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Pipe { filled, .. } => *filled == 0,
            Self::Buffer { filled, .. } => filled.is_empty(),
        }
    }

    /// Takes bytes from a socket; only an empty carrier is filled. 0: it has finished.
    fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Pipe { writer, filled, .. } => {
                *filled = from.try_io(Interest::READABLE, || move_bytes(from, writer, STEP))?;
                Ok(*filled)
            }
            Self::Buffer { bytes, filled } => {
                let length = from.try_read(bytes)?;
                *filled = 0..length;
                Ok(length)
            }
        }
    }

    /// Gives bytes to a socket.
    fn empty(&mut self, to: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Pipe { reader, filled, .. } => {
                let length = to.try_io(Interest::WRITABLE, || move_bytes(reader, to, *filled))?;
                *filled -= length.min(*filled);
                Ok(length)
            }
            Self::Buffer { bytes, filled } => {
                let length = to.try_write(bytes.get(filled.clone()).unwrap_or_default())?;
                filled.start += length;
                Ok(length)
            }
        }
    }
}

fn move_bytes(from: &impl std::os::fd::AsFd, to: &impl std::os::fd::AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from.as_fd(), None, to.as_fd(), None, length, flags)?)
}

/// One of the two directions.
struct Direction<'stream> {
    from: &'stream TcpStream,
    to: &'stream TcpStream,
    first: Bytes,
    carrier: Option<Carrier>,
    carriers: &'stream Carriers,
    carried: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has finished; what it sent is still on its way.
    Finished,
    /// The receiver was told so.
    Done,
}

/// A direction broke.
struct Broken {
    is_receiver: bool,
    error: io::Error,
}

impl<'stream> Direction<'stream> {
    fn new(from: &'stream TcpStream, to: &'stream TcpStream, first: Bytes, carriers: &'stream Carriers) -> Self {
        Self { from, to, first, carrier: None, carriers, carried: 0, state: State::Open }
    }

    fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Carries what there is. Ready: it is done or broken.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        for _ in 0..STEPS_IN_A_ROW {
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            if !self.first.is_empty() || self.carrier.as_ref().is_some_and(|carrier| !carrier.is_empty()) {
                ready!(self.poll_send(context)).map_err(|error| Broken { is_receiver: true, error })?;
            } else if self.state == State::Finished {
                // The receiver may be gone already: then it knows.
                let _ = SockRef::from(self.to).shutdown(std::net::Shutdown::Write);
                self.state = State::Done;
                self.rest();
            } else {
                ready!(self.poll_receive(context)).map_err(|error| Broken { is_receiver: false, error })?;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.to.poll_write_ready(context))?;
        let sent = match &mut self.carrier {
            _ if !self.first.is_empty() => self.to.try_write(&self.first).inspect(|sent| self.first.advance(*sent)),
            Some(carrier) => carrier.empty(self.to),
            None => return Poll::Ready(Ok(())),
        };
        match sent {
            Ok(sent) => self.carried += sent as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.from.poll_read_ready(context) {
            Poll::Ready(ready) => ready?,
            Poll::Pending => {
                self.rest();
                return Poll::Pending;
            }
        }
        match self.carrier.get_or_insert_with(|| self.carriers.take()).fill(self.from) {
            Ok(0) => self.state = State::Finished,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing is to be carried for now.
    fn rest(&mut self) {
        if let Some(carrier) = self.carrier.take() {
            self.carriers.give_back(carrier);
        }
    }
}
