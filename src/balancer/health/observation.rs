//! What the traffic itself says of a server: errors in a row, and a connection that is refused.
//!
//! Only of servers that are checked: a check brings them back. A client's own mistakes do not count, or it could take a
//! server from all others.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;

use super::probe::in_words;
use crate::balancer::state::{Health, Place, Shared};
use crate::config::model::{BackendIndex, HealthCheck, Observe};

/// What became of a connection or a request.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'error> {
    /// There is a new connection to it.
    Connected,
    /// There is none.
    NotConnected(&'error io::Error),
    /// It took too long to make one.
    ConnectTimeout,
    /// An answer with this status has come.
    Answered(u16),
    /// None has, or none that is HTTP.
    NotAnswered,
}

/// What that says of the server.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Fine,
    Error,
    Down,
}

/// Take in what became of a connection to a server, or of a request to it.
pub fn observe(shared: &Shared, backend: BackendIndex, server: usize, seen: Seen<'_>) {
    let Some(config) = shared.config.backends.get(backend.0) else { return };
    let health = &config.health;
    if !health.heeds_traffic() {
        return;
    }
    let Some(place) = shared.server(backend, server).filter(|place| place.server.check) else { return };
    match judge(health, seen) {
        Verdict::Nothing => {}
        Verdict::Fine if place.state.errors.load(Relaxed) == 0 => {}
        Verdict::Fine => place.state.errors.store(0, Relaxed),
        Verdict::Error => {
            let errors = place.state.errors.fetch_add(1, Relaxed).saturating_add(1);
            if errors >= health.error_limit {
                let reason = match errors {
                    1 => format!("an error of its traffic: {seen}"),
                    _ => format!("{errors} errors of its traffic in a row, the last: {seen}"),
                };
                mark_down(shared, backend, server, place, &reason);
            }
        }
        Verdict::Down => mark_down(shared, backend, server, place, &format!("an error of its traffic: {seen}")),
    }
}

fn mark_down(shared: &Shared, backend: BackendIndex, server: usize, place: Place<'_>, reason: &str) {
    // Of several workers that say so at once, one has taken it down.
    if place.state.health() == Health::Up && shared.set_health(backend, server, Health::Down, reason) {
        place.state.checks.marked_down();
        place.state.marked_down.notify_one();
    }
}

fn judge(health: &HealthCheck, seen: Seen<'_>) -> Verdict {
    match (health.observe, seen) {
        (_, Seen::NotConnected(error)) if health.refused_marks_down && error.kind() == ErrorKind::ConnectionRefused => {
            Verdict::Down
        }
        (Observe::Off, _) => Verdict::Nothing,
        (_, Seen::NotConnected(error)) if !is_the_servers(error) => Verdict::Nothing,
        (_, Seen::NotConnected(_) | Seen::ConnectTimeout) => Verdict::Error,
        (Observe::Layer4, Seen::Connected) => Verdict::Fine,
        (Observe::Layer4, _) | (Observe::Layer7, Seen::Connected) => Verdict::Nothing,
        // 501 and 505 are answers to what a client asked for.
        (Observe::Layer7, Seen::Answered(500 | 502..=504 | 506..)) => Verdict::Error,
        (Observe::Layer7, Seen::Answered(_)) => Verdict::Fine,
        (Observe::Layer7, Seen::NotAnswered) => Verdict::Error,
    }
}

/// Not that of a node that lacks a source address, ports, memory or descriptors.
fn is_the_servers(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | TimedOut)
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connection accepted"),
            Self::NotConnected(error) => f.write_str(&in_words(error)),
            Self::ConnectTimeout => f.write_str("no connection in time"),
            Self::Answered(status) => write!(f, "status {status}"),
            Self::NotAnswered => f.write_str("no answer to a request"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::balancer::state::tests::{one_backend, server, states};
    use crate::config::model::{Balance, Server};
    use crate::status::ServerState;

    const APP: BackendIndex = BackendIndex(0);

    fn shared(observe: Observe, refused_marks_down: bool) -> Arc<Shared> {
        let checked = |name| Server { check: true, ..server(name, 1) };
        let mut config = one_backend(Balance::RoundRobin, vec![checked("a"), server("unchecked", 1)]);
        config.backends[0].health =
            HealthCheck { observe, error_limit: 3, refused_marks_down, ..HealthCheck::every(Duration::from_secs(2)) };
        let shared = Shared::new(config);
        shared.set_health(APP, 0, Health::Up, "connection accepted");
        shared
    }

    fn error(kind: ErrorKind) -> io::Error {
        kind.into()
    }

    #[test]
    fn what_counts_as_an_error_where_it_is_observed() {
        use Observe::{Layer4, Layer7, Off};
        use Verdict::{Down, Error, Fine, Nothing};
        let (refused, exhausted) = (error(ErrorKind::ConnectionRefused), error(ErrorKind::AddrNotAvailable));
        // With `observe` off, on layer 4, on layer 7.
        let rows = [
            (Seen::Connected, [Nothing, Fine, Nothing]),
            (Seen::NotConnected(&refused), [Nothing, Error, Error]),
            (Seen::NotConnected(&exhausted), [Nothing, Nothing, Nothing]),
            (Seen::ConnectTimeout, [Nothing, Error, Error]),
            (Seen::Answered(200), [Nothing, Nothing, Fine]),
            (Seen::Answered(404), [Nothing, Nothing, Fine]),
            (Seen::Answered(500), [Nothing, Nothing, Error]),
            (Seen::Answered(501), [Nothing, Nothing, Fine]),
            (Seen::Answered(503), [Nothing, Nothing, Error]),
            (Seen::Answered(505), [Nothing, Nothing, Fine]),
            (Seen::NotAnswered, [Nothing, Nothing, Error]),
        ];
        for (seen, verdicts) in rows {
            for (observe, verdict) in [Off, Layer4, Layer7].into_iter().zip(verdicts) {
                let mut health = HealthCheck { observe, ..HealthCheck::every(Duration::from_secs(2)) };
                assert_eq!(judge(&health, seen), verdict, "{observe:?} {seen:?}");
                health.refused_marks_down = true;
                let is_refused =
                    matches!(seen, Seen::NotConnected(error) if error.kind() == ErrorKind::ConnectionRefused);
                assert_eq!(judge(&health, seen), if is_refused { Down } else { verdict }, "{observe:?} {seen:?}");
            }
        }
    }

    #[test]
    fn errors_in_a_row_take_a_server_down() {
        let shared = shared(Observe::Layer7, false);
        let see = |status| observe(&shared, APP, 0, Seen::Answered(status));
        for status in [500, 500, 200, 503, 500] {
            see(status);
            assert_eq!(states(&shared)[0].0, ServerState::Up);
        }
        observe(&shared, APP, 0, Seen::NotAnswered);
        let reason = "3 errors of its traffic in a row, the last: no answer to a request";
        assert_eq!(states(&shared)[0], (ServerState::Down, reason.to_owned()));
        // It begins anew when it is back.
        shared.set_health(APP, 0, Health::Up, "connection accepted");
        see(500);
        see(500);
        assert_eq!(states(&shared)[0].0, ServerState::Up);
    }

    #[test]
    fn a_refused_connection_is_enough_where_that_is_asked_for() {
        let refused = error(ErrorKind::ConnectionRefused);
        let shared = shared(Observe::Off, true);
        observe(&shared, APP, 0, Seen::NotConnected(&error(ErrorKind::TimedOut)));
        assert_eq!(states(&shared)[0].0, ServerState::Up);
        observe(&shared, APP, 0, Seen::NotConnected(&refused));
        assert_eq!(states(&shared)[0], (ServerState::Down, "an error of its traffic: connection refused".to_owned()));
        observe(&shared, APP, 1, Seen::NotConnected(&refused));
        assert_eq!(states(&shared)[1].0, ServerState::Up, "nothing would bring it back");
    }
}
