//! A client's socket as hyper sees it: what passes is noted at its client, and a large body takes its own way.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::balancer::http::client::{Client, Phase};
use crate::balancer::http::socket::Socket;

/// The socket, and whose it is.
pub(super) struct ClientSocket {
    io: Socket,
    /// What has been read already.
    first: Bytes,
    client: Rc<Client>,
    /// What came of this request was acknowledged at once, unasked.
    has_acknowledged: bool,
}

impl ClientSocket {
    /// The socket of this client, of which `first` has been read already.
    pub(super) fn new(io: Socket, first: Bytes, client: Rc<Client>) -> Self {
        client.socket.set(io.as_raw_fd());
        Self { io, first, client, has_acknowledged: false }
    }

    /// What is left to say to somebody who may be gone; how much of it was sent.
    pub(super) fn write_last(self, bytes: &[u8]) -> usize {
        self.io.write_last(bytes)
    }

    /// Gives it back, and what hyper, which holds these bytes, and nobody else has taken of it.
    pub(super) fn into_parts(self, read: Bytes) -> (Socket, Bytes) {
        let unread = if self.first.is_empty() { read } else { [read, self.first].concat().into() };
        (self.io, unread)
    }
}

impl Read for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = if self.first.is_empty() {
            self.io.poll_read(context, buffer)
        } else {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
            Poll::Ready(Ok(()))
        };
        if result.is_ready() && self.client.phase.get() == Phase::Idle {
            self.client.head_begins();
            self.has_acknowledged = false;
        }
        // The answer, which is to acknowledge the request, does not come before the rest of that.
        if result.is_pending() && self.client.is_asking() && !self.has_acknowledged {
            self.has_acknowledged = true;
            self.io.acknowledge();
        }
        result
    }
}

impl Write for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.client.sends(bytes);
        let is_last = self.client.is_last();
        self.io.set_last(is_last);
        let result = self.io.poll_write(context, bytes);
        self.client.sent(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.client.sends(parts.first().map(|part| &**part).unwrap_or_default());
        let Self { io, client, .. } = &mut *self;
        io.set_last(client.is_last());
        let before = if client.bypass.is_empty() { parts } else { client.bypass.before(parts) };
        let result = match before {
            [] => client.bypass.poll_send(context, io.both(context)?),
            before => io.poll_write_vectored(context, before),
        };
        client.sent(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.all_is_sent();
        Poll::Ready(self.client.bypass.all_is_sent())
    }

    /// Whoever is done with it closes it, which tells the client as well.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
