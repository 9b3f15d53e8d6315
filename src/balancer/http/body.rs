//! Bodies on their way: a request's from the client, a response's from its server. Neither is ever held back.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::http::request::Parts;

use crate::balancer::http::client::{Client, Phase};
use crate::balancer::pool::Upstream;
use crate::balancer::session::UnderWay;

/// A request's body as its server gets it.
pub enum RequestBody {
    /// None.
    Empty,
    /// All of it, held so that it can be sent again.
    Held(Bytes),
    /// As it comes from the client.
    Client(Upload),
}

/// The body that a client sends. What is not read of it is left to be discarded.
pub struct ClientBody {
    /// `None` once it has failed.
    incoming: Option<Incoming>,
    /// The client sends it unasked, or has been asked to.
    is_invited: bool,
    client: Rc<Client>,
}

/// A client's body on its way to a server.
pub struct Upload {
    /// What a rule has looked at: it goes first.
    held: Bytes,
    body: ClientBody,
    server_timeout: Duration,
}

impl ClientBody {
    /// That of the client's request with this head.
    pub fn new(incoming: Incoming, client: &Rc<Client>, head: &Parts) -> Self {
        let is_invited = incoming.is_end_stream() || !head.headers.contains_key(EXPECT);
        Self { incoming: Some(incoming), is_invited, client: client.clone() }
    }

    /// Is there none, or none left?
    pub fn is_over(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// How much is still to come, as far as the client has said so.
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }

    /// The next piece of it. Whoever waits for the word to send it is given that by hyper.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let was_invited = std::mem::replace(&mut self.is_invited, true);
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) else {
            // It is still on its way, and its client may wait for an acknowledgement: the socket looks once more, and gives one.
            // An invitation is one.
            if was_invited && self.client.has_asked.replace(false) {
                context.waker().wake_by_ref();
            }
            return Poll::Pending;
        };
        if matches!(frame, Some(Err(_))) {
            self.incoming = None;
        }
        Poll::Ready(frame)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        match self.incoming.take() {
            Some(rest) if rest.is_end_stream() => {}
            Some(rest) if self.is_invited => self.client.unread.leave(rest),
            Some(_) => self.client.unread.refuse(),
            None => {}
        }
    }
}

/// Does what came break the rules of chunks, in place of ending too early?
pub fn is_malformed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

impl RequestBody {
    /// What the client sends, of which `held` has come already; once it waits for nothing more from it, the server has
    /// `server_timeout`.
    pub fn new(held: Bytes, body: ClientBody, server_timeout: Duration) -> Self {
        if body.is_over() && held.is_empty() {
            return Self::Empty;
        }
        Self::Client(Upload { held, body, server_timeout })
    }

    /// One that has come whole.
    pub fn held(body: Bytes) -> Self {
        if body.is_empty() { Self::Empty } else { Self::Held(body) }
    }

    /// The whole of it, where it can be sent again.
    pub fn repeatable(&self) -> Option<Bytes> {
        match self {
            Self::Empty => Some(Bytes::new()),
            Self::Held(body) => Some(body.clone()),
            Self::Client(_) => None,
        }
    }

    /// Is there none, or none left?
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Held(body) => body.is_empty(),
            Self::Client(upload) => upload.held.is_empty() && upload.body.is_over(),
        }
    }

    /// How much of it is still to come, where the client has said so.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Held(body) => Some(body.len() as u64),
            Self::Client(upload) => Some(upload.held.len() as u64 + upload.body.size_hint().exact()?),
        }
    }

    /// The next piece of it. Trailers go no further (RFC 9110 §6.5.1 leaves that to us): a server might take them for headers,
    /// behind the back of every rule.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        let upload = match self {
            Self::Empty => return Poll::Ready(None),
            Self::Held(body) if body.is_empty() => return Poll::Ready(None),
            Self::Held(body) => return Poll::Ready(Some(Ok(std::mem::take(body)))),
            Self::Client(upload) => upload,
        };
        if !upload.held.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut upload.held))));
        }
        loop {
            let frame = upload.body.poll_frame(context);
            upload.note_who_is_awaited(frame.is_pending());
            match ready!(frame) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        upload.body.client.add_received(data.len() as u64);
                        return Poll::Ready(Some(Ok(data)));
                    }
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Upload {
    fn note_who_is_awaited(&self, is_client: bool) {
        let client = &self.body.client;
        let session = &client.session;
        if !is_client {
            session.client_came();
            return session.await_server(self.server_timeout);
        }
        // A server that has begun to answer goes on with that, whatever the client does.
        if client.phase.get() == Phase::Exchange {
            session.server_came();
        }
        session.still_await_client(session.frontend().timeouts.client);
    }
}

/// A response's body as the client gets it.
pub enum ResponseBody {
    /// None.
    Empty,
    /// None, under a head that says how long it would be: hyper believes that only where there is something to ask for it.
    Withheld,
    /// A page of ours.
    Page(Option<Bytes>),
    /// As it comes from the server.
    Server(ServerBody),
}

/// So many pieces of a body go on in one turn, as many as hyper gathers before it writes: others have theirs in between. A server's chunks of a
/// byte each, and a client that takes them as fast, would never come to an end.
const MOST_PIECES: u32 = 16;

/// The body that a server sends, and the connection it comes from.
pub struct ServerBody {
    /// In this turn.
    pieces: u32,
    failure: Option<io::Error>,
    /// `None`: it has gone back to the pool.
    upstream: Option<Box<Upstream>>,
    client: Rc<Client>,
    timeout: Duration,
    at_backend: UnderWay,
    at_server: UnderWay,
}

impl ResponseBody {
    /// What the server sends; when all has come, the connection goes back to the pool.
    pub fn new(
        upstream: Box<Upstream>,
        client: &Rc<Client>,
        timeout: Duration,
        at_backend: UnderWay,
        at_server: UnderWay,
    ) -> Self {
        client.has_unsent.set(true);
        let is_over = upstream.connection.is_over();
        let (client, upstream, failure) = (client.clone(), Some(upstream), None);
        let body = ServerBody { pieces: 0, failure, upstream, client, timeout, at_backend, at_server };
        // Without a body it is dropped at once, which ends the request.
        if is_over { Self::Empty } else { Self::Server(body) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty | Self::Withheld => Poll::Ready(None),
            Self::Page(page) => Poll::Ready(page.take().map(Frame::data).map(Ok)),
            Self::Server(body) => body.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Withheld => false,
            Self::Page(page) => page.is_none(),
            Self::Server(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Withheld => SizeHint::default(),
            Self::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64)),
            Self::Server(body) => {
                body.upstream.as_ref().map_or_else(SizeHint::default, |upstream| upstream.connection.size_hint())
            }
        }
    }
}

impl ServerBody {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.failure.is_none() {
            match self.poll_server(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.client.has_unsent.set(true);
                    self.client.session.server_came();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => self.fail(*b"SD", error),
                Poll::Ready(None) => return Poll::Ready(None),
                // What is in the pipe goes first: it is the client who is awaited.
                Poll::Pending if !self.client.bypass.is_empty() => return Poll::Pending,
                Poll::Pending if self.client.session.server_is_late() => {
                    self.fail(*b"sD", io::ErrorKind::TimedOut.into());
                }
                Poll::Pending => {
                    self.client.session.still_await_server(self.timeout);
                    return Poll::Pending;
                }
            }
        }
        // An error makes hyper close at once; what has come before it is sent first. hyper asks again when it has.
        if self.client.has_unsent.get() {
            return Poll::Pending;
        }
        Poll::Ready(self.failure.take().map(Err))
    }

    fn poll_server(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(Upstream { connection, .. }) = self.upstream.as_deref_mut() else { return Poll::Ready(None) };
        if connection.has_bulk()
            && let Some(frame) =
                ready!(self.client.bypass.poll_frame(context, connection, &self.client.session.worker.carriers.pipes))
        {
            return Poll::Ready(Some(frame));
        }
        if self.pieces == MOST_PIECES {
            self.pieces = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = connection.poll_frame(context);
        self.pieces = if frame.is_pending() { 0 } else { self.pieces + 1 };
        frame
    }

    fn is_over(&self) -> bool {
        self.failure.is_none() && self.upstream.as_ref().is_none_or(|upstream| upstream.connection.is_over())
    }

    fn fail(&mut self, end: [u8; 2], error: io::Error) {
        self.client.record.borrow_mut().end(end);
        self.client.session.server_came();
        self.failure = Some(error);
    }
}

impl Drop for ServerBody {
    fn drop(&mut self) {
        let Self { client, at_backend, at_server, .. } = self;
        let session = &client.session;
        session.server_came();
        let mut record = client.record.borrow_mut();
        record.leave(at_backend, Some(at_server));
        if !self.upstream.as_ref().is_some_and(|upstream| upstream.connection.is_over()) {
            // What is left of the response would come first on this connection: it is closed.
            record.end(*b"CD");
            return;
        }
        client.is_answered.set(true);
        if let Some(upstream) = self.upstream.take() {
            client.leave(upstream);
        }
    }
}
