//! A client that speaks HTTP: what is known of its connection and of its request under way.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Version};
use nix::sys::socket::{SockaddrStorage, getsockname};

use crate::balancer::access_log::{Record, captured};
use crate::balancer::accounting;
use crate::balancer::clock::{self, Millis};
use crate::balancer::http::bypass::Bypass;
use crate::balancer::http::own::Own;
use crate::balancer::http::rest::{Resting, WAKEFUL};
use crate::balancer::http::socket::Socket;
use crate::balancer::http::tunnel::Tunnel;
use crate::balancer::http::unread::Unread;
use crate::balancer::pool::{Keep, Upstream};
use crate::balancer::session::Session;
use crate::config::model::BackendIndex;

/// What a client's connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the next request has come.
    Idle,
    /// Its head is coming.
    Head,
    /// A server is being asked.
    Exchange,
    /// The response is on its way to the client.
    Responding,
    /// That has been sent, and the client is still sending its request.
    Discarding,
}

/// A client that speaks HTTP.
pub struct Client {
    /// Its connection.
    pub session: Session,
    /// Who connected, as X-Forwarded-For has it.
    pub address: HeaderValue,
    /// Whom the request under way comes from: who connected, or whom that proxy of ours names.
    pub source: Cell<IpAddr>,
    /// Its socket, which hyper holds, to ask it what hardly anybody wants to know.
    pub(super) socket: Cell<Option<RawFd>>,
    /// Its address and port as the log has them.
    address_and_port: Box<[u8]>,
    /// What the request under way is at.
    pub phase: Cell<Phase>,
    /// The request under way.
    pub record: RefCell<Record>,
    is_recording: Cell<bool>,
    /// What hyper answered by itself to what is no request.
    refused_with: Cell<Option<u16>>,
    sent: Cell<u64>,
    received: Cell<u64>,
    /// The request before ended, or the connection was accepted.
    waiting_since: Cell<Instant>,
    /// When it is closed if no other request begins.
    pub idle_until: Cell<Millis>,
    /// hyper is to end, and the connection is not.
    pub leaves_hyper: Cell<bool>,
    /// The head of its request has come, and nobody has had to wait for more of it.
    pub has_asked: Cell<bool>,
    /// The connection ends with the response.
    pub ends: Cell<bool>,
    /// The response is handed over whole: its line is written once it has been sent.
    pub is_answered: Cell<bool>,
    /// Part of the response is handed over and not yet sent.
    pub has_unsent: Cell<bool>,
    /// What nobody has read of its request.
    pub unread: Unread,
    /// The way of a large body.
    pub bypass: Bypass,
    /// The server has agreed to another protocol.
    pub tunnel: RefCell<Option<Tunnel>>,
    /// The connections to servers that are for its requests alone.
    own: RefCell<Own>,
}

impl Client {
    /// A client that has something to say after a pause.
    pub fn new(session: Session, waiting_since: Instant, idle_until: Millis, own: Own) -> Rc<Self> {
        // Both forms are made once for all its requests.
        let source = session.client.ip().to_canonical();
        let ip = source.to_string();
        let address_and_port = match session.worker.access_log.is_on() {
            true => format!("{ip}:{}", session.client.port()).into_bytes().into(),
            false => Box::default(),
        };
        let address = HeaderValue::from_maybe_shared(Bytes::from(ip)).unwrap_or(HeaderValue::from_static("unknown"));
        Rc::new(Self {
            address,
            socket: Cell::new(None),
            source: Cell::new(source),
            address_and_port,
            phase: Cell::new(Phase::Idle),
            record: RefCell::new(Record::new(session.accepted)),
            is_recording: Cell::new(false),
            refused_with: Cell::new(None),
            sent: Cell::new(0),
            received: Cell::new(0),
            waiting_since: Cell::new(waiting_since),
            idle_until: Cell::new(idle_until),
            leaves_hyper: Cell::new(false),
            has_asked: Cell::new(false),
            ends: Cell::new(false),
            is_answered: Cell::new(false),
            has_unsent: Cell::new(false),
            unread: Unread::default(),
            bypass: Bypass::default(),
            tunnel: RefCell::default(),
            own: RefCell::new(own),
            session,
        })
    }

    /// Bytes of a request have come where none was.
    pub(super) fn head_begins(&self) {
        self.phase.set(Phase::Head);
        self.has_asked.set(false);
        self.sent.set(0);
        self.session.await_client(self.session.frontend().timeouts.http_request);
        self.record.borrow_mut().begun = clock::now();
    }

    /// The head of a request is complete.
    pub fn request_begins(&self, request: &Parts) {
        let now = clock::now();
        let mut record = self.record.borrow_mut();
        // A head that came together with the request before it begins now.
        let begun = if self.phase.get() == Phase::Head { record.begun } else { now };
        let request_line = std::mem::take(&mut record.request_line);
        let waiting_since = self.waiting_since.get();
        *record = Record { head: Some(now), request_line, waiting_since, ..Record::new(begun) };
        let access_log = &self.session.worker.access_log;
        if access_log.is_on() {
            record.request_line.clear();
            write_request_line(&mut record.request_line, request);
            let capture = &self.session.frontend().capture;
            record.request_headers = captured(&capture.request, capture, &request.headers);
        }
        self.is_recording.set(true);
        self.ends.set(false);
        self.is_answered.set(false);
        self.unread.reset();
        self.sent.set(0);
        let is_counted = self.session.worker.shared.shows_statistics || access_log.has_received();
        self.session.queued.reset();
        self.received.set(if is_counted { accounting::size_of(request) } else { 0 });
        self.phase.set(Phase::Exchange);
        self.session.client_came();
        self.session.worker.count_request();
    }

    /// Has its request begun, and is not all of it there?
    pub(super) fn is_asking(&self) -> bool {
        self.phase.get() != Phase::Idle && !self.has_asked.get()
    }

    /// Does nothing follow what hyper has to write now?
    pub(super) fn is_last(&self) -> bool {
        self.ends.get() && self.is_answered.get() && !self.unread.is_some()
    }

    /// The head of a response goes to the client.
    pub fn response_begins(&self, headers: &HeaderMap) {
        let capture = &self.session.frontend().capture;
        if !capture.response.is_empty() && self.session.worker.access_log.is_on() {
            self.record.borrow_mut().response_headers = captured(&capture.response, capture, headers);
        }
    }

    /// Something came that is no request; `status` is the answer, where hyper has not given one.
    pub fn bad_request(&self, status: u16, end: [u8; 2]) {
        let status = self.refused_with.get().unwrap_or(status);
        let mut record = self.record.borrow_mut();
        *record = Record { status: Some(status), ..Record::new(record.begun) };
        self.received.set(0);
        // The request before may have named somebody else.
        self.source.set(self.session.client.ip().to_canonical());
        record.request_line.extend_from_slice(b"<BADREQ>");
        record.end(end);
        self.is_recording.set(true);
    }

    /// Where the request goes.
    pub fn goes_to(&self, backend: BackendIndex) {
        self.record.borrow_mut().backend = Some(backend);
    }

    /// Has no request come on its connection before this one?
    pub fn is_at_its_first_request(&self) -> bool {
        self.waiting_since.get() == self.session.accepted
    }

    /// A connection to this server that has served before.
    pub fn kept(&self, keep: Keep, backend: BackendIndex, server: usize) -> Option<Box<Upstream>> {
        let worker = &self.session.worker;
        let now = worker.clock.millis();
        if keep == Keep::No {
            return None;
        }
        let own = self.own.borrow_mut().take(&worker.shared, (backend, server), now);
        if own.is_some() || keep == Keep::ForClient {
            own
        } else {
            worker.pool.take(&worker.shared, backend, server, now)
        }
    }

    /// The server of this backend that knows the client by its connection.
    pub fn bound_to(&self, backend: BackendIndex) -> Option<usize> {
        self.own.borrow().bound_to(&self.session.worker.shared, backend)
    }

    /// A connection to a server has done its work.
    pub fn leave(&self, upstream: Box<Upstream>) {
        let worker = &self.session.worker;
        let now = worker.clock.millis();
        match upstream.keep {
            Keep::No => {}
            Keep::ForClient | Keep::Bound => self.own.borrow_mut().put(upstream, &worker.shared, now),
            Keep::ForAll => worker.keep(upstream),
        }
    }

    /// The request is over: its line is written.
    pub fn request_ends(&self) {
        if !self.is_recording.replace(false) {
            return;
        }
        let mut record = self.record.borrow_mut();
        record.bytes = self.sent.get();
        record.received = self.received.get();
        let now = clock::now();
        accounting::count(&self.session, &record, now);
        self.waiting_since.set(now);
        if self.session.worker.access_log.is_on() {
            self.write_line(&record);
        }
    }

    fn write_line(&self, record: &Record) {
        let named: Vec<u8>;
        let client: &[u8] = match self.source.get() {
            source if source == self.session.client.ip().to_canonical() => &self.address_and_port,
            // Its port is known to the proxy alone.
            source => {
                named = format!("{source}:0").into_bytes();
                &named
            }
        };
        self.session.worker.access_log.write(&self.session, client, record);
    }

    /// The address and port that it connected to, while hyper has its socket.
    pub fn destination(&self) -> Option<SocketAddr> {
        let name: SockaddrStorage = getsockname(self.socket.get()?).ok()?;
        let of_ipv4 = || name.as_sockaddr_in().map(|name| SocketAddr::from((name.ip(), name.port())));
        let of_ipv6 = || name.as_sockaddr_in6().map(|name| SocketAddr::from((name.ip().to_canonical(), name.port())));
        of_ipv4().or_else(of_ipv6)
    }

    /// Bytes that a tunnel sent to the client.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
    }

    /// Bytes of a body, or of a tunnel, that the client sent.
    pub fn add_received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
    }

    /// Bytes go out. Before a request has come they can only be a status line of hyper's: `HTTP/1.1 431 `.
    pub(super) fn sends(&self, bytes: &[u8]) {
        if self.phase.get() == Phase::Head {
            let status = bytes.get(9..12).and_then(|status| std::str::from_utf8(status).ok());
            self.refused_with.set(status.and_then(|status| status.parse().ok()));
        }
    }

    pub(super) fn sent(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.add_sent(*bytes as u64);
                if self.phase.get() == Phase::Responding {
                    self.session.client_came();
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.session.still_await_client(self.session.frontend().timeouts.client),
        }
    }

    pub(super) fn all_is_sent(&self) {
        self.has_unsent.set(false);
        if self.is_answered.replace(false) {
            self.request_ends();
            if self.unread.is_some() {
                self.phase.set(Phase::Discarding);
                // For all of it: by then the answer has arrived, and closing takes it from nobody.
                self.session.await_client(self.session.frontend().timeouts.client);
            } else {
                self.idles();
            }
        }
    }

    /// Reads what nobody wants of the request, once that has its response.
    pub fn discard(&self, context: &mut Context<'_>) {
        let phase = self.phase.get();
        if !matches!(phase, Phase::Responding | Phase::Discarding) || !self.unread.is_some() {
            return;
        }
        if self.unread.poll_discard(context).is_ready() && phase == Phase::Discarding {
            self.idles();
        }
    }

    /// The request and its response are over.
    fn idles(&self) {
        self.phase.set(Phase::Idle);
        let keep_alive = self.session.frontend().timeouts.http_keep_alive;
        self.idle_until.set(self.session.worker.clock.after(keep_alive));
        self.session.await_client(keep_alive.min(WAKEFUL));
    }
}

/// What stays of a client that has nothing to say. Nobody else may know it by then.
pub(super) fn rest(client: Rc<Client>, socket: Socket) -> Option<Resting> {
    let Client { session, waiting_since, idle_until, own, .. } = Rc::into_inner(client)?;
    let (waiting_since, until, own) = (waiting_since.get(), idle_until.get(), own.into_inner());
    Some(Resting { socket, session, waiting_since, until, own })
}

/// As it came; formatting would cost as much as the rest of the line.
fn write_request_line(line: &mut Vec<u8>, request: &Parts) {
    line.extend_from_slice(request.method.as_str().as_bytes());
    line.push(b' ');
    match request.uri.path_and_query() {
        Some(path) if request.uri.authority().is_none() => line.extend_from_slice(path.as_str().as_bytes()),
        _ => drop(write!(line, "{}", request.uri)),
    }
    let version: &[u8] = if request.version == Version::HTTP_10 { b" HTTP/1.0" } else { b" HTTP/1.1" };
    line.extend_from_slice(version);
}
