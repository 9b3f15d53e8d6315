//! A TCP socket as hyper sees it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is written in parts and is no longer than this goes out as one piece: copying it costs less than what writev(2)
/// does beyond send(2).
pub const SMALL: usize = 1024;

/// A socket.
pub struct Socket(TokioIo<TcpStream>);

impl Socket {
    /// For hyper.
    pub fn new(stream: TcpStream) -> Self {
        Self(TokioIo::new(stream))
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        self.0.inner()
    }

    /// Gives it back.
    pub fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
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
        match gather(parts, &mut whole) {
            Some(whole) => self.poll_write(context, whole),
            None => Pin::new(&mut self.0).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
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
