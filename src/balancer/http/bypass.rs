//! Large bodies pass hyper by: splice(2) moves them from the server's socket to the client's.
//!
//! hyper is given as many bytes as are in a pipe, but not those: a piece of [`BLANK`]. It frames them, counts them, and
//! writes them to the client's socket in their turn; that knows them by where they lie, and empties the pipe instead. There is
//! never more than one such piece on its way, so a pipe and what stands for it cannot be confused.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;
use tokio::net::TcpStream;

use crate::balancer::http::upstream::Connection;
use crate::balancer::pipe::{PIPE, Pipe, Pipes, give_way};

/// Nobody ever sees these.
static BLANK: [u8; PIPE] = [0; PIPE];

/// Pieces of a body that are moved before others have their turn: hyper goes on as long as there are any.
const PIECES_IN_A_ROW: u32 = 8;

/// A client's pipe.
#[derive(Default)]
pub struct Bypass {
    /// Borrowed while a body is on its way, and something is in it or is to be.
    pipe: RefCell<Option<Pipe>>,
    /// Pieces since others had their turn.
    in_a_row: Cell<u32>,
    /// The body waits until the pipe is empty.
    is_awaited: Cell<bool>,
}

impl Bypass {
    /// Takes more of a body into the pipe, and gives what stands for it. `None`: no pipe can be had.
    pub fn poll_frame(
        &self,
        context: &mut Context<'_>,
        connection: &mut Connection,
        pipes: &Rc<Pipes>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.in_a_row.get() == PIECES_IN_A_ROW {
            self.in_a_row.set(0);
            return give_way(context);
        }
        let mut own = self.pipe.borrow_mut();
        if own.is_none() {
            *own = pipes.borrow();
        }
        let Some(pipe) = &mut *own else { return Poll::Ready(None) };
        if !pipe.is_empty() {
            self.is_awaited.set(true);
            return Poll::Pending;
        }
        let Poll::Ready(filled) = connection.poll_bulk(context, pipe) else {
            *own = None; // who waits holds none
            return Poll::Pending;
        };
        self.in_a_row.update(|pieces| pieces + 1);
        Poll::Ready(Some(filled.map(|filled| Frame::data(Bytes::from_static(&BLANK).slice(..filled.min(PIPE))))))
    }

    /// Is nothing of a body in a pipe?
    pub fn is_empty(&self) -> bool {
        self.pipe.borrow().as_ref().is_none_or(Pipe::is_empty)
    }

    /// Those of the parts that go before what is in the pipe.
    pub fn before<'parts>(&self, parts: &'parts [IoSlice<'parts>]) -> &'parts [IoSlice<'parts>] {
        let first = parts.iter().position(|part| is_blank(part)).unwrap_or(parts.len());
        parts.get(..first).unwrap_or_default()
    }

    /// Sends what is in the pipe, or a part of it.
    pub fn poll_send(&self, context: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let mut own = self.pipe.borrow_mut();
        let Some(pipe) = &mut *own else { return Poll::Ready(Err(io::ErrorKind::InvalidData.into())) };
        let sent = ready!(pipe.poll_empty(context, to))?;
        if pipe.is_empty() {
            *own = None;
            // hyper may have asked for more of the body before it wrote this: it does so no more by itself.
            if self.is_awaited.replace(false) {
                context.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(sent))
    }

    /// All that hyper has written is sent.
    ///
    /// # Errors
    /// Something is left in the pipe: the client would miss it.
    pub fn all_is_sent(&self) -> io::Result<()> {
        match self.pipe.take() {
            Some(pipe) if !pipe.is_empty() => Err(io::ErrorKind::InvalidData.into()),
            _ => Ok(()),
        }
    }
}

fn is_blank(part: &[u8]) -> bool {
    BLANK.as_ptr_range().contains(&part.as_ptr())
}
