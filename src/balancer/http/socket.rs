//! A client's TCP socket as hyper sees it.
//!
//! Most clients only ever have to be waited for until they say something: their answers fit the send buffer. So a socket is
//! watched for reading alone, and for writing from when that has to wait.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read as _};
use std::net::{self, Shutdown};
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use nix::libc::{MSG_MORE, MSG_NOSIGNAL};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use crate::balancer::readiness;

/// What is written in parts and is no longer than this goes out as one piece: copying it costs less than what writev(2)
/// does beyond send(2).
pub const SMALL: usize = 1024;
/// What is read at once while the socket is watched for reading alone: as much as hyper takes.
const PIECE: usize = super::BUFFER;

thread_local! {
    /// Holds nothing from one reading to the next.
    static PLACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// A socket. It never blocks.
pub struct Socket {
    state: State,
    /// Nothing but the end follows what is written now: both go out together, when it is dropped.
    is_last: bool,
}

enum State {
    /// Watched for reading.
    Reading(AsyncFd<net::TcpStream>),
    /// Watched for both.
    Both(TokioIo<TcpStream>),
    /// It could not be watched for both: the process has no memory for that.
    Lost,
}

impl Socket {
    /// One that was just accepted, and does not block.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(stream: net::TcpStream) -> io::Result<Self> {
        Ok(Self { state: State::Reading(readiness::connection(stream)?), is_last: false })
    }

    /// Does nothing but the end follow what is written from now on? The last of it then waits for that.
    pub fn set_last(&mut self, is_last: bool) {
        self.is_last = is_last;
    }

    /// Has the system acknowledge at once what has come: whoever sends it may wait for that before it goes on.
    pub fn acknowledge(&self) {
        // Otherwise it is acknowledged a little later.
        let _ = self.socket().map(|socket| socket.set_tcp_quickack(true));
    }

    /// Its descriptor; `None` once it is lost.
    pub fn as_raw_fd(&self) -> Option<RawFd> {
        self.socket().map(|socket| socket.as_raw_fd())
    }

    /// Is there something to read, or an end or an error to be seen?
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::Reading(stream) => stream.poll_read_ready(context).map(drop),
            State::Both(stream) => stream.inner().poll_read_ready(context).map(drop),
            State::Lost => Poll::Ready(()),
        }
    }

    /// The same socket, watched for reading and writing.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn both(&mut self, context: &Context<'_>) -> io::Result<&TcpStream> {
        self.watched(context).map(|stream| stream.inner())
    }

    /// The same, for good.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn into_both(mut self) -> io::Result<TcpStream> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Reading(stream) => TcpStream::from_std(stream.into_inner()),
            State::Both(stream) => Ok(stream.into_inner()),
            State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// What is left to say to somebody who may be gone. Best effort: it fits an empty send buffer.
    pub fn write_last(&self, bytes: &[u8]) -> usize {
        self.socket().and_then(|socket| socket.send_with_flags(bytes, MSG_NOSIGNAL).ok()).unwrap_or(0)
    }

    /// As the system knows it, whatever it is watched for.
    fn socket(&self) -> Option<SockRef<'_>> {
        match &self.state {
            State::Reading(stream) => Some(SockRef::from(stream.get_ref())),
            State::Both(stream) => Some(SockRef::from(stream.inner())),
            State::Lost => None,
        }
    }

    /// As [`Read::poll_read`].
    pub fn poll_read(&mut self, context: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let State::Reading(stream) = &mut self.state else {
            return Pin::new(self.watched(context)?).poll_read(context, buffer);
        };
        let room = buffer.remaining().min(PIECE);
        loop {
            let mut guard = ready!(stream.poll_read_ready_mut(context))?;
            let read = PLACE.with_borrow_mut(|piece| {
                let read = guard.get_inner_mut().read(&mut piece[..room])?;
                buffer.put_slice(&piece[..read]);
                Ok::<usize, io::Error>(read)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                read => {
                    // What does not fill the buffer was all there is: epoll tells of more (epoll(7), question 9).
                    if (1..room).contains(&read?) {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// As [`Write::poll_write`].
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let State::Reading(stream) = &self.state {
            match SockRef::from(stream.get_ref()).send_with_flags(bytes, self.flags()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(self.watched(context)?).poll_write(context, bytes)
    }

    /// As [`Write::poll_write_vectored`].
    pub fn poll_write_vectored(&mut self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [whole] = parts {
            return self.poll_write(context, whole);
        }
        let mut whole = [0; SMALL];
        if let Some(whole) = gather(parts, &mut whole) {
            return self.poll_write(context, whole);
        }
        if let State::Reading(stream) = &self.state {
            match SockRef::from(stream.get_ref()).send_vectored_with_flags(parts, self.flags()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(self.watched(context)?).poll_write_vectored(context, parts)
    }

    fn flags(&self) -> i32 {
        if self.is_last { MSG_NOSIGNAL | MSG_MORE } else { MSG_NOSIGNAL }
    }

    fn watched(&mut self, context: &Context<'_>) -> io::Result<&mut TokioIo<TcpStream>> {
        if matches!(self.state, State::Reading(_))
            && let State::Reading(stream) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Both(TokioIo::new(TcpStream::from_std(stream.into_inner())?));
            // Who waited for something to read has waited at what is no more.
            context.waker().wake_by_ref();
        }
        match &mut self.state {
            State::Both(stream) => Ok(stream),
            State::Reading(_) | State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Drop for Socket {
    /// Closing alone throws away what waits for the end, if something has come that nobody has read. What the client has no room
    /// for yet is lost then all the same.
    fn drop(&mut self) {
        if !self.is_last {
            return;
        }
        // Who is gone does not have to be told.
        let _ = self.socket().map(|socket| socket.shutdown(Shutdown::Write));
    }
}

/// All parts in a row, if they fit.
fn gather<'whole>(parts: &[IoSlice<'_>], whole: &'whole mut [u8]) -> Option<&'whole [u8]> {
    let mut length = 0;
    for part in parts {
        whole.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    whole.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_go_out_as_one() {
        let parts = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")];
        assert_eq!(gather(&parts, &mut [0; 9]), Some(&b"headbody"[..]));
        assert_eq!(gather(&parts, &mut [0; 8]), Some(&b"headbody"[..]));
        assert_eq!(gather(&parts, &mut [0; 7]), None);
    }
}
