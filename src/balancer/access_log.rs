//! The line for each request, as HAProxy writes it (`option httplog`, `option tcplog`; its manual, section 8.2).
//!
//! A worker gathers lines and hands them to the log's threads by the batch; when these do not keep up, because nobody takes
//! the lines, batches are dropped and counted, and the worker goes on.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::balancer::clock;
use crate::balancer::session::{Session, UnderWay};
use crate::config::model::BackendIndex;

/// A batch goes when it has grown to this, or with the next tick.
const BATCH: usize = 32 * 1024;

/// What is known of a request (TCP mode: of a connection) when it ends.
pub struct Record {
    /// The first byte of the request; TCP mode: the connection was accepted.
    pub begun: Instant,
    /// The head of the request was complete.
    pub head: Option<Instant>,
    /// A connection to the server was there.
    pub connected: Option<Instant>,
    /// The head of the response was complete.
    pub answered: Option<Instant>,
    /// Where it went.
    pub backend: Option<BackendIndex>,
    /// Who served it.
    pub server: Option<usize>,
    /// As it was sent to the client.
    pub status: Option<u16>,
    /// Sent to the client.
    pub bytes: u64,
    /// By the client, where somebody looks at the statistics.
    pub received: u64,
    /// A rule denied it.
    pub is_denied: bool,
    /// It was for the statistics.
    pub is_for_statistics: bool,
    /// Who ended it and when.
    pub termination: Termination,
    /// Failed connections.
    pub retries: u32,
    /// It went to another server than it should have.
    pub redispatched: bool,
    /// At the server when it ended.
    pub server_connections: u64,
    /// At the backend when it ended.
    pub backend_connections: u64,
    /// `GET /path HTTP/1.1`; filled only if there is a log.
    pub request_line: Vec<u8>,
}

/// The termination state: two characters for a connection, two more for the cookie of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// Who ended it: `C` the client, `c` its timeout, `S` the server, `s` its timeout, `P` the proxy.
    pub cause: u8,
    /// When: `R` in the request, `C` while connecting, `H` before the response's head, `D` in the data.
    pub when: u8,
    /// What the client's cookie was: `N` none, `V` valid, `D` of a server that is down.
    pub request_cookie: u8,
    /// What the response's cookie is: `N` none, `I` inserted, `R` rewritten.
    pub response_cookie: u8,
}

impl Termination {
    /// It ended well.
    pub const NORMAL: Self = Self { cause: b'-', when: b'-', request_cookie: b'-', response_cookie: b'-' };
}

impl Record {
    /// Of something that begins.
    pub fn new(begun: Instant) -> Self {
        Self {
            begun,
            head: None,
            connected: None,
            answered: None,
            backend: None,
            server: None,
            status: None,
            bytes: 0,
            received: 0,
            is_denied: false,
            is_for_statistics: false,
            termination: Termination::NORMAL,
            retries: 0,
            redispatched: false,
            server_connections: 0,
            backend_connections: 0,
            request_line: Vec::new(),
        }
    }

    /// Says who ended it and when; the first reason stays.
    pub fn end(&mut self, [cause, when]: [u8; 2]) {
        if self.termination.cause == b'-' {
            self.termination.cause = cause;
            self.termination.when = when;
        }
    }

    /// Notes how many were under way, and that this one no longer is.
    pub fn leave(&mut self, backend: &UnderWay, server: Option<&UnderWay>) {
        self.backend_connections = backend.count();
        self.server_connections = server.map_or(0, UnderWay::count);
    }
}

/// Which line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `option httplog`
    Http,
    /// `option tcplog`
    Tcp,
}

/// Takes whole lines; says whether there was room for them.
pub type Outlet = Box<dyn Fn(Vec<u8>) -> bool>;

/// A worker's end of the log; off, it costs nothing.
pub struct AccessLog {
    outlet: Option<Outlet>,
    batch: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    lost: Cell<u64>,
    zone: TimeZone,
    /// The same moment on both clocks, read anew with each tick.
    moment: Cell<(Instant, SystemTime)>,
    /// A second since 1970 and how its beginning is written, to the point before the milliseconds.
    second: RefCell<(u64, String)>,
}

impl AccessLog {
    /// One that writes nothing.
    pub fn off() -> Self {
        Self::new(None, TimeZone::UTC)
    }

    /// One that hands its batches to an outlet, with local times of this zone.
    pub fn new(outlet: Option<Outlet>, zone: TimeZone) -> Self {
        Self {
            outlet,
            batch: RefCell::default(),
            lines: Cell::new(0),
            lost: Cell::new(0),
            zone,
            moment: Cell::new((Instant::now(), SystemTime::now())),
            second: RefCell::default(),
        }
    }

    /// Is anything written at all?
    pub fn is_on(&self) -> bool {
        self.outlet.is_some()
    }

    /// Writes the line of something that has ended. `client` is its address and port.
    pub fn write(&self, format: Format, session: &Session, client: &[u8], record: &Record) {
        if !self.is_on() {
            return;
        }
        let mut line = self.batch.borrow_mut();
        self.push_line(&mut line, format, session, client, record);
        self.lines.set(self.lines.get() + 1);
        if line.len() >= BATCH {
            self.send(std::mem::take(&mut *line));
        }
    }

    /// Hands over what has gathered. Called with each tick; says how many lines were lost since the last one.
    pub fn tick(&self) -> u64 {
        if !self.is_on() {
            return 0;
        }
        self.moment.set((clock::now(), SystemTime::now()));
        let batch = std::mem::take(&mut *self.batch.borrow_mut());
        if !batch.is_empty() {
            self.send(batch);
        }
        self.lost.take()
    }

    fn send(&self, batch: Vec<u8>) {
        let lines = self.lines.take();
        if self.outlet.as_ref().is_some_and(|outlet| !outlet(batch)) {
            self.lost.set(self.lost.get() + lines);
        }
    }

    fn push_line(&self, line: &mut Vec<u8>, format: Format, session: &Session, client: &[u8], record: &Record) {
        let shared = &session.worker.shared;
        let frontend = session.frontend();
        line.extend_from_slice(client);
        line.extend_from_slice(b" [");
        self.push_date(line, record.begun);
        line.extend_from_slice(b"] ");
        line.extend_from_slice(frontend.name.as_bytes());
        line.push(b' ');

        let backend = record.backend.and_then(|backend| shared.config.backends.get(backend.0));
        line.extend_from_slice(backend.map_or(&frontend.name, |backend| &backend.name).as_bytes());
        let server = record.server.and_then(|server| backend?.servers.get(server));
        let nobody = if record.is_for_statistics { "<STATS>" } else { "<NOSRV>" };
        line.push(b'/');
        line.extend_from_slice(server.map_or(nobody, |server| &server.name).as_bytes());

        let now = clock::now();
        // Nothing queues yet: the time in the queue is none at all once a server was chosen.
        let queued = record.head.filter(|_| record.server.is_some());
        let since = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        line.push(b' ');
        if format == Format::Http {
            push_timer(line, b'/', since(Some(record.begun), record.head));
        }
        push_timer(line, b'/', since(queued, queued));
        push_timer(line, b'/', since(queued, record.connected));
        if format == Format::Http {
            push_timer(line, b'/', since(record.connected, record.answered));
        }
        push_timer(line, b' ', since(Some(record.begun), Some(now)));

        if format == Format::Http {
            match record.status {
                Some(status) => push_number(line, status.into()),
                None => line.extend_from_slice(b"-1"),
            }
            line.push(b' ');
        }
        push_number(line, record.bytes);
        let termination = record.termination;
        if format == Format::Http {
            line.extend_from_slice(b" - - ");
            line.extend_from_slice(&[termination.cause, termination.when]);
            line.extend_from_slice(&[termination.request_cookie, termination.response_cookie, b' ']);
        } else {
            line.extend_from_slice(&[b' ', termination.cause, termination.when, b' ']);
        }

        use std::sync::atomic::Ordering::Relaxed;
        let frontend_connections = shared.frontends.get(session.frontend).map_or(0, |it| it.connections.load(Relaxed));
        for count in [shared.connections.load(Relaxed), frontend_connections, record.backend_connections] {
            push_number(line, count);
            line.push(b'/');
        }
        push_number(line, record.server_connections);
        line.extend_from_slice(if record.redispatched { b"/+" } else { b"/" });
        push_number(line, record.retries.into());
        line.extend_from_slice(b" 0/0");
        if format == Format::Http {
            line.extend_from_slice(b" \"");
            line.extend(record.request_line.iter().map(|byte| printable(*byte)));
            line.push(b'"');
        }
        line.push(b'\n');
    }

    /// `20/Nov/2026:09:41:12.345`
    fn push_date(&self, line: &mut Vec<u8>, instant: Instant) {
        let (at, wall) = self.moment.get();
        let wall = match instant.checked_duration_since(at) {
            Some(later) => wall + later,
            None => wall - at.saturating_duration_since(instant),
        };
        let since_1970 = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut second = self.second.borrow_mut();
        if second.0 != since_1970.as_secs() || second.1.is_empty() {
            let timestamp = Timestamp::from_second(since_1970.as_secs() as i64).unwrap_or_default();
            let local = timestamp.to_zoned(self.zone.clone());
            *second = (since_1970.as_secs(), local.strftime("%d/%b/%Y:%H:%M:%S.").to_string());
        }
        line.extend_from_slice(second.1.as_bytes());
        let millis = since_1970.subsec_millis();
        line.extend([100, 10, 1].map(|unit| b'0' + (millis / unit % 10) as u8));
    }
}

fn push_timer(line: &mut Vec<u8>, end: u8, duration: Option<Duration>) {
    match duration {
        Some(duration) => push_number(line, duration.as_millis() as u64),
        None => line.extend_from_slice(b"-1"),
    }
    line.push(end);
}

fn push_number(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

/// What could end the line or fool a terminal becomes a question mark.
fn printable(byte: u8) -> u8 {
    if matches!(byte, b' '..=b'~' if byte != b'"') { byte } else { b'?' }
}
