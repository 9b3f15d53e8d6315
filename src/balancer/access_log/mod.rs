//! The line for each request: as HAProxy writes it (`option httplog`, `option tcplog`; "Log formats" in its manual), in a format
//! of the user's in HAProxy's language, or as JSON.
//!
//! A worker gathers lines and hands them to the log's threads by the batch; when these do not keep up, because nobody takes
//! the lines, they drop batches and count them, and the worker goes on.

mod json;
mod line;

use std::cell::OnceCell;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::balancer::access_log::line::Subject;
use crate::balancer::clock;
use crate::balancer::session::{Session, UnderWay};
use crate::config::log_format::{Field, HTTP_LOG, LogFormat, Part, TCP_LOG};
use crate::config::model::{self, BackendIndex, Capture, Mode};

/// A batch goes when it has grown to this, or with the next tick.
const BATCH: usize = 32 * 1024;

/// What is known of a request (TCP mode: of a connection) when it ends.
pub struct Record {
    /// The first byte of the request; TCP mode: the connection was accepted.
    pub begun: Instant,
    /// The request before it ended, or the connection was accepted.
    pub waiting_since: Instant,
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
    /// Others at the server when it ended.
    pub server_connections: u64,
    /// Others at the backend when it ended.
    pub backend_connections: u64,
    /// `GET /path HTTP/1.1`; filled only if there is a log.
    pub request_line: Vec<u8>,
    /// Its id; filled only if there is a log, and where requests have ids.
    pub request_id: Option<HeaderValue>,
    /// The values of the request's headers that the frontend captures, in their order.
    pub request_headers: Vec<Vec<u8>>,
    /// The same of the response.
    pub response_headers: Vec<Vec<u8>>,
}

/// The termination state: two characters for a connection, two more for the cookie of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// Who ended it: `C` the client, `c` its timeout, `S` the server, `s` its timeout, `P` the proxy.
    pub cause: u8,
    /// When: `R` in the request, `Q` in the queue, `C` while connecting, `H` before the response's head, `D` in the data.
    pub when: u8,
    /// What the client's cookie was: `N` none, `V` valid, `I` of no server, `D` of a server that it did not go to, `E` not
    /// used for too long, `O` too old.
    pub request_cookie: u8,
    /// What the response's cookie is: `N` none, `I` inserted, `U` set again for its dates, `R` the application's with a server
    /// in it, `D` the application's, deleted.
    pub response_cookie: u8,
}

impl Termination {
    /// It ended well.
    pub const NORMAL: Self = Self { cause: b'-', when: b'-', request_cookie: b'-', response_cookie: b'-' };
}

impl Termination {
    /// Sessions are kept by a cookie, and such was the request's; the response has none until it is there.
    pub fn had_cookie(&mut self, letter: u8) {
        (self.request_cookie, self.response_cookie) = (letter, b'N');
    }
}

impl Record {
    /// Of something that begins.
    pub fn new(begun: Instant) -> Self {
        Self {
            begun,
            waiting_since: begun,
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
            request_id: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
        }
    }

    /// HAProxy's word where there was none.
    fn request_line(&self) -> &[u8] {
        if self.request_line.is_empty() { b"<BADREQ>" } else { &self.request_line }
    }

    /// Says who ended it and when; the first reason stays.
    pub fn end(&mut self, [cause, when]: [u8; 2]) {
        if self.termination.cause == b'-' {
            self.termination.cause = cause;
            self.termination.when = when;
        }
    }

    /// Notes how many others are under way: as in HAProxy, this one no longer counts when its line is written.
    pub fn leave(&mut self, backend: &UnderWay, server: Option<&UnderWay>) {
        self.backend_connections = backend.count().saturating_sub(1);
        self.server_connections = server.map_or(0, |server| server.count().saturating_sub(1));
    }
}

/// The values of headers that are to be captured; of several of one name the last, as HAProxy does.
pub fn captured(names: &[String], capture: &Capture, headers: &HeaderMap) -> Vec<Vec<u8>> {
    let value = |name: &String| {
        let value = headers.get_all(name.as_str()).iter().next_back().map(|value| value.as_bytes()).unwrap_or_default();
        value[..value.len().min(capture.length)].to_vec()
    };
    names.iter().map(value).collect()
}

/// What lines look like.
pub enum Format {
    /// In HAProxy's language, by the frontend's mode.
    Haproxy {
        /// Requests.
        http: LogFormat,
        /// Connections.
        tcp: LogFormat,
    },
    /// JSON.
    Json,
}

impl Format {
    /// As it is configured; `None`: there are no lines.
    pub fn new(log: &model::AccessLog) -> Option<Self> {
        let haproxy = |text| LogFormat::parse(text).unwrap_or(LogFormat(Vec::new()));
        match log {
            model::AccessLog::Off => None,
            model::AccessLog::Json => Some(Self::Json),
            model::AccessLog::HttpLog => Some(Self::Haproxy { http: haproxy(HTTP_LOG), tcp: haproxy(TCP_LOG) }),
            model::AccessLog::Custom(format) => Some(Self::Haproxy { http: format.clone(), tcp: format.clone() }),
        }
    }

    fn has_received(&self) -> bool {
        let is_received = |part: &Part| matches!(part, Part::Field { field: Field::BytesReceived, .. });
        match self {
            Self::Json => true,
            Self::Haproxy { http, .. } => http.0.iter().any(is_received),
        }
    }
}

/// Takes whole lines.
pub type Outlet = Box<dyn Fn(Vec<u8>)>;

/// A worker's end of the log; off, it costs nothing.
pub struct AccessLog {
    outlet: Option<(Outlet, Format)>,
    batch: RefCell<Vec<u8>>,
    zone: TimeZone,
    /// The same moment on both clocks, read anew with each tick.
    moment: Cell<(Instant, SystemTime)>,
    /// A second since 1970 and how its beginning is written, to the point before the milliseconds.
    second: RefCell<(u64, String)>,
}

impl Drop for AccessLog {
    /// Lines of the last requests under a configuration with another format.
    fn drop(&mut self) {
        self.send(self.batch.take());
    }
}

impl AccessLog {
    /// One that writes nothing.
    pub fn off() -> Self {
        Self::new(None, TimeZone::UTC)
    }

    /// One that hands its batches to an outlet, with local times of this zone.
    pub fn new(outlet: Option<(Outlet, Format)>, zone: TimeZone) -> Self {
        Self {
            outlet,
            batch: RefCell::default(),
            zone,
            moment: Cell::new((Instant::now(), SystemTime::now())),
            second: RefCell::default(),
        }
    }

    /// Is anything written at all?
    pub fn is_on(&self) -> bool {
        self.outlet.is_some()
    }

    /// Does a line tell what the client sent?
    pub fn has_received(&self) -> bool {
        self.outlet.as_ref().is_some_and(|(_, format)| format.has_received())
    }

    /// Writes the line of something that has ended. `client` is its address and port.
    pub fn write(&self, session: &Session, client: &[u8], record: &Record) {
        let Some((_, format)) = &self.outlet else { return };
        let mut line = self.batch.borrow_mut();
        let subject = Subject { session, client, record, now: clock::now(), times: OnceCell::new() };
        match format {
            Format::Haproxy { http, .. } if session.frontend().mode == Mode::Http => {
                line::push(&mut line, self, http, &subject);
            }
            Format::Haproxy { tcp, .. } => line::push(&mut line, self, tcp, &subject),
            Format::Json => json::push(&mut line, self, &subject),
        }
        line.push(b'\n');
        if line.len() >= BATCH {
            self.send(std::mem::take(&mut *line));
        }
    }

    /// Hands over what has gathered. Called with each tick.
    pub fn tick(&self) {
        if self.is_on() {
            self.moment.set((clock::now(), SystemTime::now()));
            self.send(self.batch.take());
        }
    }

    fn send(&self, batch: Vec<u8>) {
        if let Some((outlet, _)) = &self.outlet
            && !batch.is_empty()
        {
            outlet(batch);
        }
    }

    /// `20/Nov/2026:09:41:12.345`
    fn push_date(&self, line: &mut Vec<u8>, instant: Instant) {
        let since_1970 = self.since_1970(instant);
        let mut second = self.second.borrow_mut();
        if second.0 != since_1970.as_secs() || second.1.is_empty() {
            let timestamp = Timestamp::from_second(since_1970.as_secs() as i64).unwrap_or_default();
            let local = timestamp.to_zoned(self.zone.clone());
            *second = (since_1970.as_secs(), local.strftime("%d/%b/%Y:%H:%M:%S.").to_string());
        }
        line.extend_from_slice(second.1.as_bytes());
        line::push_millis(line, since_1970.subsec_millis());
    }

    /// `20/Nov/2026:09:41:12 +0100`
    fn push_plain_date(&self, line: &mut Vec<u8>, instant: Instant, is_utc: bool) {
        let timestamp = Timestamp::from_second(self.since_1970(instant).as_secs() as i64).unwrap_or_default();
        let zone = if is_utc { TimeZone::UTC } else { self.zone.clone() };
        line.extend_from_slice(timestamp.to_zoned(zone).strftime("%d/%b/%Y:%H:%M:%S %z").to_string().as_bytes());
    }

    fn since_1970(&self, instant: Instant) -> Duration {
        let (at, wall) = self.moment.get();
        let wall = match instant.checked_duration_since(at) {
            Some(later) => wall + later,
            None => wall - at.saturating_duration_since(instant),
        };
        wall.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
