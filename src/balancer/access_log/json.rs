//! A line as a JSON object, for those who would have to take HAProxy's apart.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::balancer::access_log::AccessLog;
use crate::balancer::access_log::line::Subject;
use crate::config::model::Mode;
use crate::process::log::{LONGEST_JSON, shortened};

/// Absent: it did not get so far, or does not apply. Times are milliseconds.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_port: Option<u16>,
    frontend: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(flatten)]
    request: Option<Request<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    bytes_sent: u64,
    bytes_received: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_ms: Option<f64>,
    total_ms: f64,
    termination: Cow<'a, str>,
    retries: u32,
    redispatched: bool,
    connections: u64,
    frontend_connections: u64,
    backend_connections: u64,
    server_connections: u64,
    server_queue: u64,
    backend_queue: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    request_headers: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    response_headers: BTreeMap<&'a str, Cow<'a, str>>,
    /// Something in it was too long for a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<bool>,
}

#[derive(Serialize)]
struct Request<'a> {
    method: Cow<'a, str>,
    target: Cow<'a, str>,
    version: Cow<'a, str>,
}

/// Adds a line without its end.
pub(super) fn push(line: &mut Vec<u8>, log: &AccessLog, subject: &Subject<'_>) {
    let (session, record) = (subject.session, subject.record);
    let frontend = session.frontend();
    let shared = &session.worker.shared;
    let times = subject.times();
    let (client, port) = subject.client_parts();
    let request = subject.request();
    let since_1970 = log.since_1970(record.begun);
    let time = Timestamp::from_millisecond(since_1970.as_millis() as i64).unwrap_or_default();
    let termination = record.termination;
    let mut object = Line {
        time: format!("{time:.3}"),
        client: String::from_utf8_lossy(client),
        client_port: std::str::from_utf8(port).ok().and_then(|port| port.parse().ok()),
        frontend: &frontend.name,
        backend: record.backend.map(|_| subject.backend()),
        server: record.server.map(|_| subject.server()),
        request: (frontend.mode == Mode::Http).then(|| Request {
            method: String::from_utf8_lossy(request.method),
            target: String::from_utf8_lossy(request.target),
            version: String::from_utf8_lossy(request.version),
        }),
        request_id: record.request_id.as_ref().map(|id| String::from_utf8_lossy(id.as_bytes())),
        status: record.status,
        bytes_sent: record.bytes,
        bytes_received: record.received,
        request_ms: times.request.map(millis),
        queue_ms: times.queue.map(millis),
        connect_ms: times.connect.map(millis),
        response_ms: times.response.map(millis),
        total_ms: millis(times.active),
        termination: String::from_utf8_lossy(&[termination.cause, termination.when]).into_owned().into(),
        retries: record.retries,
        redispatched: record.redispatched,
        connections: shared.connections.count(),
        frontend_connections: shared.frontends.get(session.frontend).map_or(0, |it| it.connections.count()),
        backend_connections: record.backend_connections,
        server_connections: record.server_connections,
        server_queue: session.queued.positions().0,
        backend_queue: session.queued.positions().1,
        request_headers: named(&frontend.capture.request, &record.request_headers),
        response_headers: named(&frontend.capture.response, &record.response_headers),
        cut: None,
    };
    let begin = line.len();
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(&mut *line, &object);
    // What a client sends in one field must not cost all others.
    for most in [8192, 1024, 128] {
        if line.len() - begin <= LONGEST_JSON {
            return;
        }
        line.truncate(begin);
        object.cut(most);
        let _ = serde_json::to_writer(&mut *line, &object);
    }
}

impl Line<'_> {
    /// No text of the client or the server is longer than so many bytes.
    fn cut(&mut self, most: usize) {
        let request = self.request.iter_mut().flat_map(|it| [&mut it.method, &mut it.target, &mut it.version]);
        let headers = self.request_headers.values_mut().chain(self.response_headers.values_mut());
        for text in request.chain(&mut self.request_id).chain(headers) {
            if text.len() > most {
                *text = shortened(text, most).to_owned().into();
                self.cut = Some(true);
            }
        }
    }
}

fn named<'a>(names: &'a [String], values: &'a [Vec<u8>]) -> BTreeMap<&'a str, Cow<'a, str>> {
    let there = names.iter().zip(values).filter(|(_, value)| !value.is_empty());
    there.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value))).collect()
}

/// To the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
