//! A request as it goes out: its head, and its body framed as the head says.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::header::TRANSFER_ENCODING;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::balancer::http::body::{RequestBody, is_malformed};
use crate::balancer::http::socket::SMALL;

/// What of the body may wait here, copied, for a server that reads slowly.
const MOST_WAITING: usize = 16 * 1024;
/// Room for the head of an ordinary request.
const ORDINARY_HEAD: usize = 1024;

/// A request on its way out.
pub struct Outgoing {
    unsent: Unsent,
    body: RequestBody,
    is_head_request: bool,
    has_begun: bool,
}

/// Why a request did not go out whole.
pub enum Broken {
    /// The server takes no more of it.
    Server,
    /// The client does not send the rest of its body, or something else in its place.
    Client {
        /// Something else.
        is_malformed: bool,
    },
}

impl Outgoing {
    /// None of it has been sent.
    pub fn new(request: &Parts, body: RequestBody) -> Self {
        let mut unsent = Unsent::head(request);
        if matches!(body, RequestBody::Empty) {
            unsent.end();
        }
        Self { unsent, body, is_head_request: request.method == Method::HEAD, has_begun: false }
    }

    /// Does its method ask for a head alone?
    pub fn is_head_request(&self) -> bool {
        self.is_head_request
    }

    /// Has any of it been sent?
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Sends as much as can be; ready: all of it.
    pub fn poll_send(&mut self, context: &mut Context<'_>, stream: &mut TcpStream) -> Poll<Result<(), Broken>> {
        loop {
            // What there is of the body goes out together with the head.
            let body = self.poll_body(context)?;
            if !self.unsent.is_empty() {
                let sent = ready!(self.unsent.poll_write(context, stream)).map_err(|_| Broken::Server)?;
                self.has_begun |= sent > 0;
            } else if body.is_pending() || self.is_sent() {
                return body.map(Ok);
            }
        }
    }

    fn is_sent(&self) -> bool {
        self.unsent.is_empty() && matches!(self.body, RequestBody::Empty)
    }

    /// Takes a piece of the body; ready: there is none to wait for.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.unsent.is_full() || matches!(self.body, RequestBody::Empty) {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.body.poll_data(context)) {
            Some(Ok(data)) => self.unsent.push(data),
            Some(Err(error)) => return Poll::Ready(Err(Broken::Client { is_malformed: is_malformed(&error) })),
            // Less than was announced: what comes next on this connection would be taken for the rest of it.
            None if self.body.remaining().is_some_and(|remaining| remaining > 0) => {
                return Poll::Ready(Err(Broken::Client { is_malformed: false }));
            }
            None => self.finish(),
        }
        if self.body.is_empty() {
            self.finish();
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) {
        self.body = RequestBody::Empty;
        self.unsent.end();
    }
}

/// Bytes of ours, a piece of the body, bytes of ours.
#[derive(Default)]
struct Unsent {
    before: Vec<u8>,
    sent_before: usize,
    data: Bytes,
    after: &'static [u8],
    is_chunked: bool,
}

impl Unsent {
    /// The head of a request.
    fn head(request: &Parts) -> Self {
        let mut head = Vec::with_capacity(ORDINARY_HEAD);
        head.extend_from_slice(request.method.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(request.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\n");
        write_headers(&mut head, &request.headers);
        let is_chunked = request.headers.contains_key(TRANSFER_ENCODING);
        Self { before: head, is_chunked, ..Self::default() }
    }

    /// Has all of it been sent?
    fn is_empty(&self) -> bool {
        self.sent_before == self.before.len() && self.data.is_empty() && self.after.is_empty()
    }

    /// Must some of it be sent before it takes another piece of the body?
    fn is_full(&self) -> bool {
        self.is_in_parts() || self.before.len() - self.sent_before > MOST_WAITING
    }

    fn is_in_parts(&self) -> bool {
        !self.data.is_empty() || !self.after.is_empty()
    }

    /// Adds a piece of the body.
    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return; // as a chunk it would end the body
        }
        self.before.drain(..std::mem::take(&mut self.sent_before));
        let after: &'static [u8] = if self.is_chunked { b"\r\n" } else { b"" };
        if self.is_chunked {
            let _ = write!(self.before, "{:x}\r\n", data.len()); // a Vec takes all
        }
        if data.len() <= SMALL {
            self.before.extend_from_slice(&data);
            self.before.extend_from_slice(after);
        } else {
            (self.data, self.after) = (data, after);
        }
    }

    /// Ends the body.
    fn end(&mut self) {
        if !std::mem::take(&mut self.is_chunked) {
            return;
        }
        match self.after {
            b"" => self.before.extend_from_slice(b"0\r\n\r\n"),
            _ => self.after = b"\r\n0\r\n\r\n",
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<usize>> {
        let before = self.before.get(self.sent_before..).unwrap_or_default();
        let sent = if self.is_in_parts() {
            let parts = [IoSlice::new(before), IoSlice::new(&self.data), IoSlice::new(self.after)];
            ready!(Pin::new(stream).poll_write_vectored(context, &parts))?
        } else {
            ready!(Pin::new(stream).poll_write(context, before))?
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(sent);
        Poll::Ready(Ok(sent))
    }

    fn advance(&mut self, mut sent: usize) {
        let before = sent.min(self.before.len() - self.sent_before);
        self.sent_before += before;
        sent -= before;
        if self.sent_before == self.before.len() {
            (self.before, self.sent_before) = (Vec::new(), 0);
        }
        let data = sent.min(self.data.len());
        self.data.advance(data);
        self.after = self.after.get(sent - data..).unwrap_or_default();
    }
}

/// Headers, and the empty line that ends them.
fn write_headers(bytes: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes out of a request with these pieces of a body, when the socket takes `step` bytes at a time.
    fn sent(headers: &str, pieces: &[&[u8]], step: usize) -> Vec<u8> {
        let mut request = hyper::Request::post("/a?b").header("host", "c");
        for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let mut unsent = Unsent::head(&request.body(()).unwrap().into_parts().0);
        let mut wire = Vec::new();
        let mut send = |unsent: &mut Unsent| {
            while !unsent.is_empty() {
                let all = [&unsent.before[unsent.sent_before..], &unsent.data, unsent.after].concat();
                let some = &all[..all.len().min(step)];
                wire.extend_from_slice(some);
                unsent.advance(some.len());
            }
        };
        for piece in pieces {
            unsent.push(Bytes::copy_from_slice(piece));
            if unsent.is_full() {
                send(&mut unsent);
            }
        }
        unsent.end();
        send(&mut unsent);
        wire
    }

    const HEAD: &str = "POST /a?b HTTP/1.1\r\nhost: c\r\n";

    #[test]
    fn a_body_goes_out_as_the_head_frames_it() {
        let large = [b'x'; SMALL + 1];
        for step in [1, 7, SMALL, usize::MAX] {
            let plain = sent("content-length: 1030", &[b"hello", &large], step);
            let expected = [HEAD.as_bytes(), b"content-length: 1030\r\n\r\nhello", &large].concat();
            assert_eq!(plain, expected, "by {step}");

            let chunked = sent("transfer-encoding: chunked", &[b"hello", b"", &large], step);
            let head = b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n401\r\n";
            assert_eq!(chunked, [HEAD.as_bytes(), head, &large, b"\r\n0\r\n\r\n"].concat(), "by {step}");
        }
    }

    #[test]
    fn what_a_slow_server_does_not_take_is_bounded() {
        let mut unsent = Unsent::head(
            &hyper::Request::post("/").header("transfer-encoding", "chunked").body(()).unwrap().into_parts().0,
        );
        for _ in 0..100_000 {
            if !unsent.is_full() {
                unsent.push(Bytes::from_static(&[b'x'; 100]));
            }
            unsent.advance(unsent.before.len().min(60));
            assert!(unsent.before.len() <= MOST_WAITING + 2 * SMALL, "{}", unsent.before.len());
        }
    }
}
