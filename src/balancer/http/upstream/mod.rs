//! A connection to a server that speaks HTTP/1.1 (RFC 9112): one request at a time, and the response to it.
//!
//! Whoever holds it polls it; it has no task of its own, nothing passes through a channel, and while it waits in the pool
//! it holds no buffer. That, and that a request can be sent once more from the head it was made of, is why the servers'
//! side is not hyper's: with `hyper::client::conn` a request cost about a tenth more.

mod decoder;
mod request;
mod response;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use decoder::Decoder;
use request::Broken;
use response::{Head, Said};

use crate::balancer::pipe::Pipe;

pub use request::Outgoing;

/// What is read at once, at first and when more keeps coming.
const READ: std::ops::RangeInclusive<usize> = 4 * 1024..=64 * 1024;

/// So much of what a server says before its response is read in one turn: others have theirs in between.
const MOST_IN_BETWEEN: usize = 4;

/// What is left of a body goes through a pipe if it is at least this much.
const BULK: u64 = 32 * 1024;

/// What came is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Why there is no response.
pub enum Failure {
    /// The connection was closed before anything of the request was sent.
    NotSent(Box<Outgoing>),
    /// It was closed or broke after that.
    Lost {
        /// Nothing at all came.
        in_silence: bool,
    },
    /// What came is no HTTP, too long, or leaves open where its body ends.
    Malformed,
    /// The client does not send the rest of the request, or something else in its place.
    Client {
        /// Something else.
        is_malformed: bool,
    },
}

/// A connection to a server.
pub struct Connection {
    stream: TcpStream,
    /// `None`: all of it has been sent.
    outgoing: Option<Outgoing>,
    /// It never will be.
    is_cut_short: bool,
    is_head_request: bool,
    received: BytesMut,
    read_size: usize,
    /// Nothing has come of a response.
    is_silent: bool,
    body: Decoder,
    /// It is good for another request once this one is over.
    is_kept: bool,
}

impl Connection {
    /// One that has served no request yet.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            outgoing: None,
            is_cut_short: false,
            is_head_request: false,
            received: BytesMut::new(),
            read_size: *READ.start(),
            is_silent: true,
            body: Decoder::NOTHING,
            is_kept: true,
        }
    }

    /// Takes a request; it is sent while [`Connection::poll_response`] is polled.
    pub fn begin(&mut self, outgoing: Outgoing) {
        self.is_head_request = outgoing.is_head_request();
        self.outgoing = Some(outgoing);
        self.is_silent = true;
        self.is_kept = false;
        self.read_size = *READ.start();
    }

    /// The head of the response. It may come before the request has been sent whole: the rest goes out while the body is
    /// polled.
    ///
    /// # Errors
    /// When there is none. The connection is then of no more use.
    pub fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<hyper::Response<()>, Failure>> {
        // A server that takes no more may have said why.
        if let Poll::Ready(Err(Broken::Client { is_malformed })) = self.poll_send(context) {
            return Poll::Ready(Err(Failure::Client { is_malformed }));
        }
        let mut in_between = 0;
        loop {
            match response::parse(&mut self.received, self.is_head_request) {
                Ok(Some(Said::InBetween)) if in_between == MOST_IN_BETWEEN => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Some(Said::InBetween)) => {
                    in_between += 1;
                    continue;
                }
                Ok(Some(Said::Response(Head { response, body, is_kept }))) => {
                    (self.body, self.is_kept) = (body, is_kept);
                    self.read_size = self.read_size_for(body);
                    return Poll::Ready(Ok(response));
                }
                Ok(None) => {}
                Err(Malformed) => return Poll::Ready(Err(Failure::Malformed)),
            }
            match ready!(self.poll_receive(context)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(self.failure())),
            }
        }
    }

    /// The next piece of the response's body; `None`: it is over.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let _ = self.poll_send(context);
        loop {
            match self.body.decode(&mut self.received) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.body.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(Malformed) => return Poll::Ready(Some(Err(io::ErrorKind::InvalidData.into()))),
            }
            match ready!(self.poll_receive(context)) {
                Ok(1..) => {}
                Ok(0) if self.body == Decoder::UntilClose => self.body = Decoder::NOTHING,
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Does so much of the body come next, just as it is to go on, that it is worth a pipe?
    pub fn has_bulk(&self) -> bool {
        self.received.is_empty() && self.body.plain() >= BULK
    }

    /// Takes more of that into an empty pipe.
    ///
    /// # Errors
    /// The server has broken off.
    pub fn poll_bulk(&mut self, context: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        let _ = self.poll_send(context);
        let most = usize::try_from(self.body.plain()).unwrap_or(usize::MAX);
        match ready!(pipe.poll_fill(context, &self.stream, most))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            filled => {
                self.body.skip(filled);
                Poll::Ready(Ok(filled))
            }
        }
    }

    /// Is the response's body over?
    pub fn is_over(&self) -> bool {
        self.body.is_over()
    }

    /// How much of the body is still to come.
    pub fn size_hint(&self) -> SizeHint {
        self.body.remaining().map(SizeHint::with_exact).unwrap_or_default()
    }

    /// Has it done all of its work, with nothing left over, so that it may wait for another request? It then frees what it
    /// needs only while it serves.
    pub fn rest(&mut self) -> bool {
        let may_rest = self.is_kept && self.body.is_over() && self.received.is_empty() && self.outgoing.is_none();
        if may_rest {
            self.received = BytesMut::new();
        }
        may_rest
    }

    /// Has the server neither closed it nor spoken unasked while it rested? Without an event this costs no system call.
    pub fn is_quiet(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Its socket, and what has come from it already: it has become another protocol.
    pub fn into_tunnel(self) -> (TcpStream, Bytes) {
        (self.stream, self.received.freeze())
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(outgoing) = &mut self.outgoing else { return Poll::Ready(Ok(())) };
        // After an error a body says that it is over: what is left of it must never look whole.
        if self.is_cut_short {
            return Poll::Ready(Err(Broken::Server));
        }
        let sent = ready!(outgoing.poll_send(context, &mut self.stream));
        match sent {
            Ok(()) => self.outgoing = None,
            Err(_) => self.is_cut_short = true,
        }
        Poll::Ready(sent)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.received.reserve(self.read_size);
        let room = self.received.capacity() - self.received.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.received)).poll(context));
        if let Ok(read) = read {
            self.is_silent &= read == 0;
            if read == room {
                self.read_size = (self.read_size * 2).min(*READ.end());
            }
        }
        Poll::Ready(read)
    }

    /// What is to be read at once of a body of which some may have come together with the head.
    fn read_size_for(&self, body: Decoder) -> usize {
        let to_come = body.remaining().unwrap_or(0).saturating_sub(self.received.len() as u64);
        usize::try_from(to_come).unwrap_or(usize::MAX).clamp(*READ.start(), *READ.end())
    }

    fn failure(&mut self) -> Failure {
        match self.outgoing.take() {
            Some(outgoing) if !outgoing.has_begun() => Failure::NotSent(Box::new(outgoing)),
            _ => Failure::Lost { in_silence: self.is_silent },
        }
    }
}
