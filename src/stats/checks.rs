//! What became of a server's checks, and how long it was down. Written by the control thread, and by a worker whose traffic
//! takes a server down; read by whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::status::ServerState;

/// The history of a server, or of a backend. Elsewhere, so that it takes no room beside what requests look at.
pub struct Checks(Box<Mutex<History>>);

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
    /// How often its traffic took it down.
    pub marked_down: u64,
    /// `None`: it was never checked.
    pub last: Option<Check>,
    /// `None`: its agent was never asked.
    pub last_answer: Option<Answer>,
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

/// One question to a server's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// What the agent said, or why that is of no use.
    pub words: Arc<str>,
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
    /// The agent calls its server down.
    SaysDown,
    /// Something that is no response, or one without the text that was looked for.
    WrongResponse,
    /// No connection.
    NotConnected,
    /// Nothing in time; was a response wanted, or only a connection?
    Timeout {
        /// A response.
        of_response: bool,
    },
    /// No check: its traffic took the server down.
    Traffic,
    /// No check: this node lacked something for it.
    NotChecked,
}

impl Outcome {
    /// HAProxy's word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Connected => "L4OK",
            Self::Passed(_) => "L7OK",
            Self::WrongStatus(_) | Self::SaysDown => "L7STS",
            Self::WrongResponse => "L7RSP",
            Self::NotConnected => "L4CON",
            Self::Timeout { of_response: true } => "L7TOUT",
            Self::Timeout { of_response: false } => "L4TOUT",
            Self::Traffic => "HANA",
            Self::NotChecked => "SOCKERR",
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

    /// From the result of a check in words (`balancer/health/`); `of_response`: a response was wanted.
    pub fn from_words(words: Result<&str, &str>, of_response: bool) -> Self {
        const WRONG: [&str; 5] =
            ["the answer ", "its answer ", "the head of the answer ", "the text ", "the connection was closed "];
        let status = |words: &str| words.strip_prefix("status ")?.get(..3)?.parse().ok();
        match words {
            Ok(words) if of_response => Self::Passed(status(words)),
            Ok(_) => Self::Connected,
            Err(words) => match status(words) {
                Some(status) => Self::WrongStatus(status),
                None if words.starts_with("no answer within") => Self::Timeout { of_response },
                None if WRONG.iter().any(|beginning| words.starts_with(beginning)) => Self::WrongResponse,
                None => Self::NotConnected,
            },
        }
    }
}

impl Checks {
    /// Of something that is in this state from now on.
    pub fn new(state: ServerState, now: Instant) -> Self {
        Self(Box::new(Mutex::new(History {
            state,
            changed: now,
            downtime: Duration::ZERO,
            failures: 0,
            downs: 0,
            marked_down: 0,
            last: None,
            last_answer: None,
        })))
    }

    /// A check was made.
    pub fn checked(&self, check: Check) {
        let mut history = self.lock();
        let has_failed = !matches!(check.outcome, Outcome::Connected | Outcome::Passed(_) | Outcome::NotChecked);
        if has_failed && matches!(history.state, ServerState::Up | ServerState::Drain) {
            history.failures += 1;
        }
        history.last = Some(check);
    }

    /// Its agent was asked.
    pub fn answered(&self, answer: Answer) {
        self.lock().last_answer = Some(answer);
    }

    /// Its traffic takes it down.
    pub fn marked_down(&self) {
        let mut history = self.lock();
        history.marked_down += 1;
        history.last = Some(Check { outcome: Outcome::Traffic, duration: Duration::ZERO, successes: 0, failures: 0 });
    }

    /// It may be in another state now; the same state again changes nothing. Looked at here, where one waits for the other,
    /// the state of the last who changes something is the last that is seen.
    pub fn changed(&self, state: impl FnOnce() -> ServerState, now: Instant) {
        let mut history = self.lock();
        let state = state();
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
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            checks.changed(|| state, after(second));
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
        checks.changed(|| ServerState::Drain, now);
        checks.checked(check(Outcome::NotConnected));
        checks.changed(|| ServerState::Down, now);
        checks.checked(check(Outcome::NotConnected));
        assert_eq!(checks.history().failures, 2);
    }

    #[test]
    fn an_outcome_has_haproxys_word() {
        let rows = [
            (Ok("connection accepted"), false, "L4OK", None),
            (Ok("status 204"), true, "L7OK", Some(204)),
            (Ok("status 200 and the text"), true, "L7OK", Some(200)),
            (Err("status 503, expected 200-399"), true, "L7STS", Some(503)),
            (Err("connection refused"), true, "L4CON", None),
            (Err("no answer within 2s"), true, "L7TOUT", None),
            (Err("no answer within 2s"), false, "L4TOUT", None),
            (Err("the answer is not HTTP/1"), true, "L7RSP", None),
            (Err("the text \"ready\" is not in the body"), true, "L7RSP", None),
            (Err("the head of the answer is longer than 64 KiB"), true, "L7RSP", None),
            (Err("the connection was closed before the body's end"), true, "L7RSP", None),
            (Err("its answer is longer than 1024 bytes"), true, "L7RSP", None),
        ];
        for (words, is_http, code, status) in rows {
            let outcome = Outcome::from_words(words, is_http);
            assert_eq!((outcome.code(), outcome.status()), (code, status), "{words:?}");
        }
    }
}
