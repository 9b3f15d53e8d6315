//! A client's TCP socket, as hyper sees it, which the runtime watches only from when there is something to wait for.
//!
//! A client's first request mostly comes together with its connection, and the response often is all there is to it. To have
//! epoll watch it, and no longer watch it, would then be a tenth of the work.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net;
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is written in parts and is no longer than this goes out as one piece: copying it costs less than what writev(2)
/// does beyond send(2).
pub const SMALL: usize = 1024;
/// What is read at once of a first request.
const FIRST: usize = 4 * 1024;

/// A socket. It never blocks.
pub struct Socket(State);

enum State {
    New(net::TcpStream),
    Watched(TokioIo<TcpStream>),
    /// It could not be watched: the process has no memory or no descriptor for that.
    Lost,
}

impl Socket {
    /// One that was just accepted, and does not block.
    pub fn new(stream: net::TcpStream) -> Self {
        Self(State::New(stream))
    }

    /// Its descriptor; `None` once it is lost.
    pub fn as_raw_fd(&self) -> Option<RawFd> {
        match &self.0 {
            State::New(stream) => Some(stream.as_raw_fd()),
            State::Watched(stream) => Some(stream.inner().as_raw_fd()),
            State::Lost => None,
        }
    }

    /// Does the runtime not know of it yet?
    pub fn is_new(&self) -> bool {
        matches!(self.0, State::New(_))
    }

    /// What has come of a first request. `WouldBlock`: nothing has. Of a socket that is watched nothing is read here.
    ///
    /// # Errors
    /// The client is gone.
    pub fn first(&mut self) -> io::Result<Bytes> {
        let State::New(stream) = &mut self.0 else { return Err(io::ErrorKind::WouldBlock.into()) };
        let mut bytes = [0; FIRST];
        match stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(Bytes::copy_from_slice(bytes.get(..read).unwrap_or_default())),
        }
    }

    /// The same socket, watched.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn watched(&mut self) -> io::Result<&mut TcpStream> {
        if let State::New(_) = self.0
            && let State::New(stream) = std::mem::replace(&mut self.0, State::Lost)
        {
            self.0 = State::Watched(TokioIo::new(TcpStream::from_std(stream)?));
        }
        match &mut self.0 {
            State::Watched(stream) => Ok(stream.inner_mut()),
            State::New(_) | State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// What is left to say to somebody who may be gone. Best effort: it fits an empty send buffer.
    pub fn write_last(&mut self, bytes: &[u8]) -> usize {
        let written = match &mut self.0 {
            State::New(stream) => stream.write(bytes),
            State::Watched(stream) => stream.inner().try_write(bytes),
            State::Lost => Ok(0),
        };
        written.unwrap_or(0)
    }

    /// Watched, for hyper's traits. What would have had to wait comes here.
    fn io(&mut self) -> io::Result<Pin<&mut TokioIo<TcpStream>>> {
        self.watched()?;
        match &mut self.0 {
            State::Watched(stream) => Ok(Pin::new(stream)),
            State::New(_) | State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if let State::New(stream) = &mut self.0 {
            let mut bytes = [0; FIRST];
            let most = buffer.remaining().min(FIRST);
            match stream.read(&mut bytes[..most]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    buffer.put_slice(&bytes[..read?]);
                    return Poll::Ready(Ok(()));
                }
            }
        }
        self.io()?.poll_read(context, buffer)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let State::New(stream) = &mut self.0 {
            match stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        self.io()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [whole] = parts {
            return self.poll_write(context, whole);
        }
        let mut whole = [0; SMALL];
        if let Some(whole) = gather(parts, &mut whole) {
            return self.poll_write(context, whole);
        }
        if let State::New(stream) = &mut self.0 {
            match stream.write_vectored(parts) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        self.io()?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Whoever is done with it closes it, which tells the client as well.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
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
