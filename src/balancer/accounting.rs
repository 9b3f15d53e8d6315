//! From what is known of a request when it has ended to the counters of its frontend, backend and server.

use std::time::{Duration, Instant};

use hyper::http::request::Parts;

use crate::balancer::access_log::Record;
use crate::balancer::session::Session;
use crate::config::model::Mode;
use crate::stats::counters::{Durations, Event, Phase, Traffic};

/// Counts a request (TCP mode: a connection) that has ended now. All of it is this worker's own memory; how long it took is
/// left out where nobody looks at the statistics.
pub(super) fn count(session: &Session, record: &Record, now: Instant) {
    let counters = session.worker.counters();
    let is_http = session.frontend().mode == Mode::Http;
    let errors = Errors::of(record);
    let count = |traffic: &Traffic| {
        if is_http {
            traffic.count(Event::Request);
        }
        if let Some(status) = record.status {
            traffic.count(Event::response(status));
        }
        traffic.add(Event::BytesIn, record.received);
        traffic.add(Event::BytesOut, record.bytes);
    };
    let Some(frontend) = counters.frontends.get(session.frontend) else { return };
    count(frontend);
    errors.at_frontend.into_iter().for_each(|event| frontend.count(event));

    let Some(backend) = record.backend.and_then(|backend| counters.backends.get(backend.0)) else { return };
    let durations = session.worker.shared.shows_statistics.then(|| record.durations(session.queued.time(), now));
    count(&backend.traffic);
    errors.behind.into_iter().for_each(|event| backend.traffic.count(event));
    if let Some(durations) = &durations {
        backend.traffic.took(durations);
        let histograms = [(Phase::Response, &backend.response), (Phase::Total, &backend.total)];
        for (phase, histogram) in histograms {
            durations.0[phase as usize].into_iter().for_each(|duration| histogram.add(duration));
        }
    }

    let Some(server) = record.server.and_then(|server| backend.servers.get(server)) else { return };
    count(server);
    errors.behind.into_iter().for_each(|event| server.count(event));
    durations.iter().for_each(|durations| server.took(durations));
}

/// What went wrong, where it is counted.
struct Errors {
    at_frontend: Option<Event>,
    /// At the backend and the server.
    behind: Option<Event>,
}

impl Errors {
    fn of(record: &Record) -> Self {
        let (at_frontend, behind) = match (record.termination.cause, record.termination.when) {
            _ if record.is_denied => (Some(Event::DeniedRequest), None),
            (b'-', _) => (None, None),
            // Answered here, by a rule or with the statistics.
            (b'L', _) => (Some(Event::Intercepted), None),
            (_, b'R') => (Some(Event::RequestError), None),
            (b'S' | b's', b'C' | b'Q') => (None, Some(Event::ConnectError)),
            (b'S' | b's' | b'P', b'H') => (None, Some(Event::ResponseError)),
            (b'S' | b's', _) => (None, Some(Event::ServerAbort)),
            (b'C' | b'c', _) => (None, Some(Event::ClientAbort)),
            _ => (None, None),
        };
        Self { at_frontend, behind }
    }
}

impl Record {
    /// How long each phase took.
    fn durations(&self, queued: Duration, now: Instant) -> Durations {
        let since = |from: Option<_>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        let queue = self.head.filter(|_| self.server.is_some() || !queued.is_zero()).map(|_| queued);
        let total = Some(now.saturating_duration_since(self.begun));
        let connect = since(self.head, self.connected).map(|connect| connect.saturating_sub(queued));
        Durations([queue, connect, since(self.connected, self.answered), total])
    }
}

/// Bytes of a request's head, as it would be written in the shortest way.
pub(super) fn size_of(request: &Parts) -> u64 {
    let target = request.uri.path_and_query().map_or(1, |target| target.as_str().len());
    let authority = request.uri.authority().map_or(0, |authority| "http://".len() + authority.as_str().len());
    let line = request.method.as_str().len() + authority + target + "  HTTP/1.1\r\n\r\n".len();
    let headers = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    (line + headers.sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn a_head_has_the_size_it_was_sent_with() {
        let text = "GET /a?b HTTP/1.1\r\nhost: site.example\r\naccept: */*\r\n\r\n";
        let request = Request::get("/a?b").header("host", "site.example").header("accept", "*/*").body(()).unwrap();
        assert_eq!(size_of(&request.into_parts().0), text.len() as u64);
    }
}
