//! What became of a server's checks, and how long it was down. Written by the control thread, read by whoever asks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::status::ServerState;

/// The history of a server, or of a backend.
pub struct Checks(Mutex<History>);

/// At one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Its state since `changed`.
    state: ServerState,
    changed: Instant,
    downtime: Duration,
    /// Checks that failed while the server was up.
    pub failures: u64,
    /// How often it went down.
    pub downs: u64,
    /// `None`: it was never checked.
    pub last: Option<Check>,
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// What it found.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// Successes in a row that do not yet count.
    pub successes: u32,
    /// Failures in a row that do not yet count.
    pub failures: u32,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A connection was made, and nothing else was wanted.
    Connected,
    /// A response as it should be.
    Passed(Option<u16>),
    /// A response as it should not be.
    WrongStatus(u16),
    /// Something that is no response.
    WrongResponse,
    /// No connection.
    NotConnected,
    /// Nothing in time; was a response wanted, or only a connection?
    Timeout {
        /// A response.
        of_response: bool,
    },
}

impl Outcome {
    /// HAProxy's word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Connected => "L4OK",
            Self::Passed(_) => "L7OK",
            Self::WrongStatus(_) => "L7STS",
            Self::WrongResponse => "L7RSP",
            Self::NotConnected => "L4CON",
            Self::Timeout { of_response: true } => "L7TOUT",
            Self::Timeout { of_response: false } => "L4TOUT",
        }
    }

    /// The response's status, if there was one.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Passed(status) => status,
            Self::WrongStatus(status) => Some(status),
            _ => None,
        }
    }

    /// From the result of a check in words (`balancer/health/probe.rs`); `is_http`: a response was wanted.
    pub fn from_words(words: Result<&str, &str>, is_http: bool) -> Self {
        let status = |words: &str| words.strip_prefix("status ")?.get(..3)?.parse().ok();
        match words {
            Ok(words) if is_http => Self::Passed(status(words)),
            Ok(_) => Self::Connected,
            Err(words) => match status(words) {
                Some(status) => Self::WrongStatus(status),
                None if words.starts_with("no answer within") => Self::Timeout { of_response: is_http },
                None if words.starts_with("the answer ") || words.starts_with("the connection was closed") => {
                    Self::WrongResponse
                }
                None => Self::NotConnected,
            },
        }
    }
}

impl Checks {
    /// Of something that is in this state from now on.
    pub fn new(state: ServerState, now: Instant) -> Self {
        Self(Mutex::new(History { state, changed: now, downtime: Duration::ZERO, failures: 0, downs: 0, last: None }))
    }

    /// A check was made.
    pub fn checked(&self, check: Check) {
        let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_failed = !matches!(check.outcome, Outcome::Connected | Outcome::Passed(_));
        if has_failed && history.state == ServerState::Up {
            history.failures += 1;
        }
        history.last = Some(check);
    }

    /// It is in this state now; the same state again changes nothing.
    pub fn changed(&self, state: ServerState, now: Instant) {
        let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if history.state == state {
            return;
        }
        history.downtime = history.downtime(now);
        if state == ServerState::Down {
            history.downs += 1;
        }
        (history.state, history.changed) = (state, now);
    }

    /// So far.
    pub fn history(&self) -> History {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl History {
    /// Since its state last changed.
    pub fn unchanged_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.changed)
    }

    /// In all, up to now.
    pub fn downtime(&self, now: Instant) -> Duration {
        if self.state == ServerState::Down { self.downtime + self.unchanged_for(now) } else { self.downtime }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downtime_is_all_the_time_it_was_down() {
        use ServerState::{Down, Starting, Up};
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let checks = Checks::new(Starting, begin);
        for (state, second) in [(Up, 1), (Down, 10), (Down, 12), (Up, 15), (Down, 20)] {
            checks.changed(state, after(second));
        }
        let history = checks.history();
        assert_eq!(history.downs, 2);
        assert_eq!(history.downtime(after(22)), Duration::from_secs(5 + 2));
        assert_eq!(history.unchanged_for(after(22)), Duration::from_secs(2));
    }

    #[test]
    fn a_failure_counts_while_the_server_is_up() {
        let now = Instant::now();
        let checks = Checks::new(ServerState::Up, now);
        let check = |outcome| Check { outcome, duration: Duration::ZERO, successes: 0, failures: 0 };
        checks.checked(check(Outcome::NotConnected));
        checks.checked(check(Outcome::Connected));
        checks.changed(ServerState::Down, now);
        checks.checked(check(Outcome::NotConnected));
        assert_eq!(checks.history().failures, 1);
    }

    #[test]
    fn an_outcome_has_haproxys_word() {
        let rows = [
            (Ok("connection accepted"), false, "L4OK", None),
            (Ok("status 204"), true, "L7OK", Some(204)),
            (Err("status 503, expected 200-399"), true, "L7STS", Some(503)),
            (Err("connection refused"), true, "L4CON", None),
            (Err("no answer within 2s"), true, "L7TOUT", None),
            (Err("no answer within 2s"), false, "L4TOUT", None),
            (Err("the answer is not HTTP/1"), true, "L7RSP", None),
        ];
        for (words, is_http, code, status) in rows {
            let outcome = Outcome::from_words(words, is_http);
            assert_eq!((outcome.code(), outcome.status()), (code, status), "{words:?}");
        }
    }
}
