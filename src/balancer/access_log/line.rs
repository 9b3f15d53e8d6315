//! A line in HAProxy's language, made from the parts of its format.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use crate::balancer::access_log::{AccessLog, Record};
use crate::balancer::session::Session;
use crate::config::log_format::{Field, LogFormat, Part};
use crate::config::model::Mode;

/// What a line is about.
pub(super) struct Subject<'a> {
    pub(super) session: &'a Session,
    /// Its address and port.
    pub(super) client: &'a [u8],
    pub(super) record: &'a Record,
    pub(super) now: Instant,
    /// Once somebody has asked.
    pub(super) times: OnceCell<Times>,
}

/// Adds a line without its end.
pub(super) fn push(line: &mut Vec<u8>, log: &AccessLog, format: &LogFormat, subject: &Subject<'_>) {
    let begin = line.len();
    for part in &format.0 {
        match part {
            Part::Text(text) => line.extend_from_slice(text.as_bytes()),
            Part::Space if line.len() > begin && line.last() != Some(&b' ') => line.push(b' '),
            Part::Space => {}
            Part::Field { field, is_quoted: false } => subject.push(line, log, *field),
            Part::Field { field, is_quoted: true } => {
                line.push(b'"');
                subject.push(line, log, *field);
                line.push(b'"');
            }
        }
    }
}

impl Subject<'_> {
    fn push(&self, line: &mut Vec<u8>, log: &AccessLog, field: Field) {
        let (session, record) = (self.session, self.record);
        let shared = &session.worker.shared;
        let (times, capture) = (|| self.times.get_or_init(|| self.times()), &session.frontend().capture);
        match field {
            Field::ClientAddress => line.extend_from_slice(self.client_parts().0),
            Field::ClientPort => line.extend_from_slice(self.client_parts().1),
            Field::Node => line.extend_from_slice(shared.config.node.as_bytes()),
            Field::ProcessId => push_number(line, std::process::id().into()),
            Field::Frontend | Field::FrontendTransport => line.extend_from_slice(session.frontend().name.as_bytes()),
            Field::Backend => line.extend_from_slice(self.backend().as_bytes()),
            Field::Server => line.extend_from_slice(self.server().as_bytes()),
            Field::ServerAddress => self.push_server_address(line, true),
            Field::ServerPort => self.push_server_address(line, false),

            Field::Date => log.push_date(line, session.accepted),
            Field::RequestDate => log.push_date(line, record.begun),
            Field::DateUtc => log.push_plain_date(line, session.accepted, true),
            Field::DateLocal => log.push_plain_date(line, session.accepted, false),
            Field::RequestDateUtc => log.push_plain_date(line, record.begun, true),
            Field::RequestDateLocal => log.push_plain_date(line, record.begun, false),
            Field::Timestamp => push_number(line, log.since_1970(session.accepted).as_secs()),
            Field::Milliseconds => push_millis(line, log.since_1970(session.accepted).subsec_millis()),

            Field::RequestTime => push_time(line, times().request),
            Field::QueueTime => push_time(line, times().queue),
            Field::ConnectTime => push_time(line, times().connect),
            Field::ResponseTime => push_time(line, times().response),
            Field::DataTime => push_time(line, times().data),
            Field::ActiveTime | Field::UserTime => push_time(line, Some(times().active)),
            Field::TotalTime => push_time(line, Some(times().idle + times().active)),
            Field::IdleTime => push_time(line, Some(times().idle)),
            Field::HandshakeTime => line.push(b'0'),
            Field::RequestAndIdleTime => push_time(line, times().request.map(|request| times().idle + request)),

            Field::Status => match record.status {
                Some(status) => push_number(line, status.into()),
                None => line.extend_from_slice(b"-1"),
            },
            Field::BytesSent => push_number(line, record.bytes),
            Field::BytesReceived => push_number(line, record.received),
            // Only the session's cookie is of interest here, and the termination state tells of it.
            Field::RequestCookie | Field::ResponseCookie => line.push(b'-'),
            Field::Termination => line.extend_from_slice(&[record.termination.cause, record.termination.when]),
            Field::TerminationAndCookies => {
                let termination = record.termination;
                line.extend_from_slice(&[termination.cause, termination.when]);
                line.extend_from_slice(&[termination.request_cookie, termination.response_cookie]);
            }

            Field::Connections => push_number(line, shared.connections.count()),
            Field::FrontendConnections => {
                push_number(line, shared.frontends.get(session.frontend).map_or(0, |it| it.connections.count()));
            }
            Field::BackendConnections => push_number(line, record.backend_connections),
            Field::ServerConnections => push_number(line, record.server_connections),
            Field::Retries => {
                if record.redispatched {
                    line.push(b'+');
                }
                push_number(line, record.retries.into());
            }
            Field::RequestCount => push_number(line, shared.requests()),
            Field::ServerQueue => push_number(line, session.queued.positions().0),
            Field::BackendQueue => push_number(line, session.queued.positions().1),

            Field::RequestHeaders => push_captured(line, capture.request.len(), &record.request_headers),
            Field::ResponseHeaders => push_captured(line, capture.response.len(), &record.response_headers),
            Field::RequestHeaderList => push_list(line, capture.request.len(), &record.request_headers),
            Field::ResponseHeaderList => push_list(line, capture.response.len(), &record.response_headers),

            Field::RequestId => match &record.request_id {
                Some(id) => push_escaped(line, id.as_bytes()),
                None => line.push(b'-'),
            },
            Field::RequestLine => push_escaped(line, record.request_line()),
            Field::Method => push_escaped(line, self.request().method),
            Field::Target => push_escaped(line, self.request().target),
            Field::Version => push_escaped(line, self.request().version),
            Field::Path => push_escaped(line, split_query(self.request().target).0),
            Field::PathOnly => push_escaped(line, without_host(split_query(self.request().target).0)),
            Field::Query => push_escaped(line, split_query(self.request().target).1),
        }
    }

    pub(super) fn client_parts(&self) -> (&[u8], &[u8]) {
        let colon = self.client.iter().rposition(|byte| *byte == b':').unwrap_or(self.client.len());
        (&self.client[..colon], self.client.get(colon + 1..).unwrap_or_default())
    }

    /// The frontend's name where it went nowhere.
    pub(super) fn backend(&self) -> &str {
        let shared = &self.session.worker.shared;
        let backend = self.record.backend.and_then(|backend| shared.config.backends.get(backend.0));
        backend.map_or(&self.session.frontend().name, |backend| &backend.name)
    }

    pub(super) fn server(&self) -> &str {
        let config = &self.session.worker.shared.config;
        let backend = self.record.backend.and_then(|backend| config.backends.get(backend.0));
        let server = self.record.server.and_then(|server| backend?.servers.get(server));
        let nobody = if self.record.is_for_statistics { "<STATS>" } else { "<NOSRV>" };
        server.map_or(nobody, |server| &server.name)
    }

    fn push_server_address(&self, line: &mut Vec<u8>, wants_address: bool) {
        let shared = &self.session.worker.shared;
        let server = self.record.backend.zip(self.record.server).and_then(|(backend, server)| {
            shared.server(backend, server).and_then(|place| place.state.address.load_full())
        });
        match server {
            Some(address) if wants_address => line.extend_from_slice(address.ip().to_string().as_bytes()),
            Some(address) => push_number(line, address.port().into()),
            None => line.push(b'-'),
        }
    }

    pub(super) fn request(&self) -> Request<'_> {
        let whole = self.record.request_line();
        let first = whole.iter().position(|byte| *byte == b' ');
        let last = whole.iter().rposition(|byte| *byte == b' ');
        match (first, last) {
            (Some(first), Some(last)) if first < last => {
                Request { method: &whole[..first], target: &whole[first + 1..last], version: &whole[last + 1..] }
            }
            _ => Request { method: whole, target: whole, version: whole },
        }
    }

    pub(super) fn times(&self) -> Times {
        let record = self.record;
        let since = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        let queue = self.session.queued.time();
        let went_on = record.server.is_some() || record.is_for_statistics || !queue.is_zero();
        // Where nothing is asked data begins with the connection.
        let is_tcp = self.session.frontend().mode == Mode::Tcp;
        let queued = record.head.filter(|_| went_on).map(|head| head + queue);
        Times {
            idle: record.begun.saturating_duration_since(record.waiting_since),
            request: since(Some(record.begun), record.head),
            queue: queued.map(|_| queue),
            connect: since(queued, record.connected.or(queued.filter(|_| record.is_for_statistics))),
            response: since(record.connected, record.answered)
                .or(queued.filter(|_| record.is_for_statistics).map(|_| Duration::ZERO)),
            data: since(record.answered.or(record.connected.filter(|_| is_tcp)), Some(self.now)),
            active: self.now.saturating_duration_since(record.begun),
        }
    }
}

/// How long the phases took; `None`: it did not get so far.
pub(super) struct Times {
    pub(super) idle: Duration,
    pub(super) request: Option<Duration>,
    pub(super) queue: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) response: Option<Duration>,
    pub(super) data: Option<Duration>,
    pub(super) active: Duration,
}

/// The parts of a request line; all of it for each where it is none.
pub(super) struct Request<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) version: &'a [u8],
}

/// The query has its question mark.
fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(target.iter().position(|byte| *byte == b'?').unwrap_or(target.len()))
}

/// `http://host/path` is about `/path`.
fn without_host(path: &[u8]) -> &[u8] {
    let Some(scheme) = path.windows(3).position(|bytes| bytes == b"://") else { return path };
    let behind = &path[scheme + 3..];
    behind.iter().position(|byte| *byte == b'/').map_or(b"/", |slash| &behind[slash..])
}

fn push_time(line: &mut Vec<u8>, duration: Option<Duration>) {
    match duration {
        Some(duration) => push_number(line, duration.as_millis() as u64),
        None => line.extend_from_slice(b"-1"),
    }
}

/// `{one|two}`, with empty ones where it did not come to a head that has them; nothing where none is to be captured.
fn push_captured(line: &mut Vec<u8>, count: usize, values: &[Vec<u8>]) {
    if count == 0 {
        return;
    }
    for index in 0..count {
        line.push(if index == 0 { b'{' } else { b'|' });
        push_escaped_and(line, values.get(index).map_or(b"", Vec::as_slice), b"{|}");
    }
    line.push(b'}');
}

/// One beside the other, `-` for what was not there.
fn push_list(line: &mut Vec<u8>, count: usize, values: &[Vec<u8>]) {
    for index in 0..count {
        if index > 0 {
            line.push(b' ');
        }
        match values.get(index) {
            Some(value) if !value.is_empty() => push_escaped(line, value),
            _ => line.push(b'-'),
        }
    }
}

fn push_escaped(line: &mut Vec<u8>, text: &[u8]) {
    push_escaped_and(line, text, b"");
}

/// As HAProxy does: what could end the line or a quotation, or fool a terminal, becomes `#` and its
/// number, and so do the marks around captured headers.
fn push_escaped_and(line: &mut Vec<u8>, text: &[u8], marks: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'#') && !marks.contains(byte) => line.push(*byte),
            _ => line.extend([b'#', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
        }
    }
}

pub(super) fn push_millis(line: &mut Vec<u8>, millis: u32) {
    line.extend([100, 10, 1].map(|unit| b'0' + (millis / unit % 10) as u8));
}

pub(super) fn push_number(line: &mut Vec<u8>, mut number: u64) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        push(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn what_is_foreign_cannot_leave_its_place() {
        assert_eq!(text(|line| push_escaped(line, b"GET /\"\n\xff#a HTTP/1.1")), "GET /#22#0A#FF#23a HTTP/1.1");
        assert_eq!(text(|line| push_captured(line, 3, &[b"a|".to_vec(), vec![], b"c\r".to_vec()])), "{a#7C||c#0D}");
        assert_eq!(text(|line| push_captured(line, 0, &[])), "");
        assert_eq!(text(|line| push_list(line, 3, &[b"a".to_vec(), vec![]])), "a - -");
    }

    #[test]
    fn a_target_has_a_path_and_a_query() {
        for (target, path, query) in [
            ("/a?b=c", "/a", "?b=c"),
            ("/", "/", ""),
            ("http://site.example/a/b?c", "/a/b", "?c"),
            ("http://site.example", "/", ""),
        ] {
            let (whole, rest) = split_query(target.as_bytes());
            assert_eq!((without_host(whole), rest), (path.as_bytes(), query.as_bytes()), "{target}");
        }
    }
}
