//! Bytes both ways between a client and a server.
//!
//! What comes in small pieces is read and written at once, through a buffer that all of a worker share. Where much comes in a
//! row, splice(2) moves it, and it stays in the kernel. A quiet tunnel costs two sockets and no memory.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use nix::libc::{MSG_MORE, MSG_NOSIGNAL};
use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::balancer::pipe::{PIPE, Pipe, Pipes, give_way};
use crate::balancer::session::Session;
use crate::config::model::ServerTimeouts;

/// What is read at once. Whoever has more than this goes through a pipe, as long as that is so.
const PIECE: usize = 16 * 1024;
/// Steps of one direction in a row, then others have their turn.
const STEPS_IN_A_ROW: usize = 4;

/// What the relays of a worker share.
pub struct Carriers {
    /// Its pipes; large bodies of HTTP go through them as well.
    pub pipes: Rc<Pipes>,
    /// Holds nothing from one step to the next.
    buffer: RefCell<Box<[u8]>>,
}

impl Carriers {
    /// For one of so many workers.
    pub fn new(workers: usize) -> Self {
        Self { pipes: Pipes::new(workers), buffer: RefCell::new(vec![0; PIECE].into()) }
    }
}

/// One side, and what has been read from it already.
pub struct Side<'stream> {
    /// Its socket.
    pub stream: &'stream mut TcpStream,
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
/// directions are open, then `server` or `client`, whoever still sends or receives. A connection that was reset is no end of what
/// it carried: the other side is reset as well, as soon as its socket is closed.
pub async fn run(session: &Session, client: Side<'_>, server: Side<'_>, timeouts: ServerTimeouts) -> Ended {
    let carriers = &session.worker.carriers;
    let (from_client, to_client) = client.stream.split();
    let (from_server, to_server) = server.stream.split();
    let mut upward = Direction::new(from_client, to_server, client.first, carriers);
    let mut downward = Direction::new(from_server, to_client, server.first, carriers);
    session.client_came();
    session.await_server(timeouts.tunnel);

    let mut broken = None;
    let mut resets = Resets::default();
    let end = poll_fn(|context| {
        session.set_waker(context.waker());
        let before = (upward.progress(), downward.progress());
        for (direction, cause) in [(&mut upward, b'C'), (&mut downward, b'S')] {
            let Poll::Ready(Err(failure)) = direction.poll(context) else { continue };
            tracing::debug!(error = %failure.error, "a connection broke");
            if !failure.is_receiver {
                resets.pass_on(cause);
                return Poll::Ready(Some([cause, b'D']));
            }
            // Whoever has finished before, and is written to all the same, resets as well: its end was one.
            if failure.error.kind() == io::ErrorKind::ConnectionReset {
                resets.pass_on(other(cause));
            }
            // What it has said before is still on its way to the other.
            broken.get_or_insert([other(cause), b'D']);
            direction.give_up();
        }
        if upward.is_done() && downward.is_done() {
            return Poll::Ready(broken); // closing tells them both
        }
        if !resets.server {
            upward.pass_on_the_end();
        }
        if !resets.client {
            downward.pass_on_the_end();
        }
        if session.worker.is_over() {
            return Poll::Ready(Some(*b"KD"));
        }
        if (upward.progress(), downward.progress()) != before {
            session.await_server(patience(session, &upward, &downward, &timeouts));
            return Poll::Pending;
        }
        if !session.server_is_late() {
            return Poll::Pending;
        }
        Poll::Ready(broken.or(Some(*if upward.is_done() { b"sD" } else { b"cD" })))
    })
    .await;
    session.server_came();
    let ended = Ended { from_client: upward.carried, to_client: downward.carried, end };
    upward.holds_back &= !resets.server;
    downward.holds_back &= !resets.client;
    drop((upward, downward));
    for (stream, is_reset) in [(&client.stream, resets.client), (&server.stream, resets.server)] {
        if is_reset {
            // It may be gone already: then it knows.
            let _ = SockRef::from(&**stream).set_linger(Some(Duration::ZERO));
        }
    }
    ended
}

/// Who is to see a reset in place of an end.
#[derive(Default)]
struct Resets {
    client: bool,
    server: bool,
}

impl Resets {
    /// This side was.
    fn pass_on(&mut self, cause: u8) {
        let to = if cause == b'C' { &mut self.server } else { &mut self.client };
        *to = true;
    }
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

/// One of the two directions.
struct Direction<'stream> {
    from: ReadHalf<'stream>,
    to: WriteHalf<'stream>,
    carriers: &'stream Carriers,
    /// What has been read and is still to be sent.
    unsent: Bytes,
    /// Much came at once the last time.
    is_bulk: bool,
    /// Borrowed while much comes in a row.
    pipe: Option<Pipe>,
    received: u64,
    carried: u64,
    state: State,
    /// The system keeps what was sent last until the end is passed on.
    holds_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has finished; what it sent is still on its way.
    Finished,
    /// All of it has been sent.
    Done,
    /// The receiver was told that it is.
    Told,
}

/// A direction broke.
struct Broken {
    is_receiver: bool,
    error: io::Error,
}

impl Broken {
    fn sender(error: io::Error) -> Self {
        Self { is_receiver: false, error }
    }

    fn receiver(error: io::Error) -> Self {
        Self { is_receiver: true, error }
    }
}

impl<'stream> Direction<'stream> {
    fn new(from: ReadHalf<'stream>, to: WriteHalf<'stream>, unsent: Bytes, carriers: &'stream Carriers) -> Self {
        Self {
            from,
            to,
            carriers,
            unsent,
            is_bulk: false,
            pipe: None,
            received: 0,
            carried: 0,
            state: State::Open,
            holds_back: false,
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Told)
    }

    /// What is another as long as something moves.
    fn progress(&self) -> (u64, u64, State) {
        (self.received, self.carried, self.state)
    }

    /// The receiver takes nothing any more.
    fn give_up(&mut self) {
        self.unsent.clear();
        self.pipe = None;
        self.state = State::Told;
    }

    /// Tells the receiver that there is no more, once.
    fn pass_on_the_end(&mut self) {
        if self.state == State::Done {
            self.end_receiver();
            self.state = State::Told;
        }
    }

    fn end_receiver(&mut self) {
        // It may be gone already: then it knows.
        let _ = SockRef::from(self.to.as_ref()).shutdown(std::net::Shutdown::Write);
        self.holds_back = false;
    }

    /// Carries what there is. Ready: it is done or broken.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        for _ in 0..STEPS_IN_A_ROW {
            ready!(self.poll_send(context)).map_err(Broken::receiver)?;
            match self.state {
                State::Open => match self.has_pipe() {
                    true => ready!(self.poll_fill(context)).map_err(Broken::sender)?,
                    false => ready!(self.poll_copy(context)).map_err(Broken::sender)?,
                },
                State::Finished => self.state = State::Done,
                State::Done | State::Told => return Poll::Ready(Ok(())),
            }
        }
        give_way(context)
    }

    /// Sends what has been read before.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unsent.is_empty() && self.sender_has_ended() {
            self.send_before_the_end()?;
        }
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.to).poll_write(context, &self.unsent))?;
            self.unsent.advance(sent);
            self.carried += sent as u64;
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
            self.carried += ready!(pipe.poll_empty(context, self.to.as_ref()))? as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Is it known that nothing comes but what has come?
    fn sender_has_ended(&self) -> bool {
        let from = self.from.as_ref();
        // Mostly there is no event, which costs nothing to find out.
        if from.try_io(Interest::READABLE, || Ok(())).is_err() {
            return false;
        }
        let ready = pin!(from.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// The end goes out together with these, as soon as it has been read.
    fn send_before_the_end(&mut self) -> io::Result<()> {
        let to = self.to.as_ref();
        let send = || SockRef::from(to).send_with_flags(&self.unsent, MSG_NOSIGNAL | MSG_MORE);
        match to.try_io(Interest::WRITABLE, send) {
            Ok(sent) => {
                self.holds_back = true;
                self.unsent.advance(sent);
                self.carried += sent as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Is what comes next to go through a pipe, and can one be had?
    fn has_pipe(&mut self) -> bool {
        if self.is_bulk && self.pipe.is_none() {
            self.pipe = self.carriers.pipes.borrow();
        }
        self.pipe.is_some()
    }

    /// Takes what has come into the pipe, which is empty; gives that back when there is little or nothing.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        let Poll::Ready(filled) = pipe.poll_fill(context, self.from.as_ref(), PIPE) else {
            self.pipe = None;
            return Poll::Pending;
        };
        let filled = filled?;
        self.received += filled as u64;
        self.is_bulk = filled >= PIECE;
        if filled == 0 {
            self.pipe = None;
            self.state = State::Finished;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a piece. It is sent in the next round, when all others have read theirs (see `http/turn.rs`).
    fn poll_copy(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = self.carriers.buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut self.from).poll_read(context, &mut read))?;
        let piece = read.filled();
        if piece.is_empty() {
            self.state = State::Finished;
            return Poll::Ready(Ok(()));
        }
        self.received += piece.len() as u64;
        self.is_bulk = piece.len() == PIECE;
        self.unsent = Bytes::copy_from_slice(piece);
        if self.is_bulk {
            return Poll::Ready(Ok(()));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Direction<'_> {
    /// Closing alone throws away what is held back, if something has come from the receiver that nobody has read.
    fn drop(&mut self) {
        if self.holds_back {
            self.end_receiver();
        }
    }
}
