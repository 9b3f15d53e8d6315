//! What a client's attempts say about an outage. Pure.

use std::time::{Duration, Instant};

/// An attempt that takes longer counts as failed.
pub const LONGEST_GOOD: Duration = Duration::from_millis(50);

/// One request on a connection of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When its connection was begun.
    pub start: Instant,
    /// Until the answer was complete, or the failure.
    pub took: Duration,
    /// The answer, or why there is none.
    pub outcome: Result<Answer, Failure>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The node it came through, by its own address.
    pub node: String,
    /// The server that answered.
    pub server: String,
    /// The X-Forwarded-For that the server got.
    pub forwarded_for: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The host refuses the connection.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer was complete.
    Closed,
    /// Nobody answered in time.
    TimedOut,
    /// The host or its network cannot be reached.
    Unreachable,
    /// An answer, but not 200.
    Status(u16),
}

impl Attempt {
    /// Answered, and in time?
    pub fn is_good(&self) -> bool {
        self.outcome.is_ok() && self.took <= LONGEST_GOOD
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Closed => "connection closed without an answer",
            Self::TimedOut => "no answer",
            Self::Unreachable => "host unreachable",
            Self::Status(status) => return write!(f, "status {status}"),
        })
    }
}

/// From the start of the first attempt that failed or took over 50 ms, to the start of the first of those after which
/// all succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outage {
    /// Nothing if every attempt was good.
    pub duration: Duration,
    /// Attempts that got no answer.
    pub failed: usize,
    /// Attempts answered late.
    pub slow: usize,
    /// All of them.
    pub attempts: usize,
    /// What the slowest of them took.
    pub longest: Duration,
}

/// Looks at the attempts that were not over at `since` already; in the order of their starts.
pub fn outage(attempts: &[Attempt], since: Instant) -> Outage {
    let attempts: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.start + attempt.took >= since).collect();
    let bad = |attempt: &&&Attempt| !attempt.is_good();
    let failed = attempts.iter().filter(|attempt| attempt.outcome.is_err()).count();
    let slow = attempts.iter().filter(bad).count() - failed;
    let first = attempts.iter().find(bad);
    let last = attempts.iter().rposition(|attempt| !attempt.is_good());
    let duration = match (first, last) {
        (Some(first), Some(last)) => {
            let over =
                attempts.get(last + 1).map_or_else(|| attempts[last].start + attempts[last].took, |next| next.start);
            over - first.start
        }
        _ => Duration::ZERO,
    };
    let longest = attempts.iter().map(|attempt| attempt.took).max().unwrap_or_default();
    Outage { duration, failed, slow, attempts: attempts.len(), longest }
}

/// The attempts that were not good, for people; the first few.
pub fn describe(attempts: &[Attempt], since: Instant) -> String {
    let line = |attempt: &Attempt| {
        let start = if attempt.start < since { -ms(since - attempt.start) } else { ms(attempt.start - since) };
        let outcome = match &attempt.outcome {
            Ok(answer) => format!("answered by {} through {}", answer.server, answer.node),
            Err(failure) => failure.to_string(),
        };
        format!("  {start:>8.1} ms  an attempt begins: {outcome} after {:.1} ms\n", ms(attempt.took))
    };
    attempts.iter().filter(|attempt| !attempt.is_good()).take(20).map(line).collect()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Attempts every 2 ms that took so many milliseconds; 0: refused.
    fn attempts(begin: Instant, took: &[u64]) -> Vec<Attempt> {
        let answer = Answer { node: "lb1".into(), server: "web1".into(), forwarded_for: String::new() };
        let attempt = |(number, took): (u64, &u64)| Attempt {
            start: begin + ms(2) * number as u32,
            took: ms(*took),
            outcome: if *took == 0 { Err(Failure::Refused) } else { Ok(answer.clone()) },
        };
        (0..).zip(took).map(attempt).collect()
    }

    #[test]
    fn without_a_bad_attempt_there_is_none() {
        let begin = Instant::now();
        assert_eq!(
            outage(&attempts(begin, &[1, 50, 1]), begin),
            Outage { attempts: 3, longest: ms(50), ..Outage::default() }
        );
    }

    #[test]
    fn a_single_bad_attempt_is_an_outage_until_the_next() {
        let begin = Instant::now();
        let seen = outage(&attempts(begin, &[1, 0, 1, 1]), begin);
        assert_eq!(seen, Outage { duration: ms(2), failed: 1, slow: 0, attempts: 4, longest: ms(1) });
    }

    #[test]
    fn good_attempts_in_between_do_not_shorten_it() {
        let begin = Instant::now();
        let seen = outage(&attempts(begin, &[1, 0, 1, 1, 51, 1]), begin);
        assert_eq!(seen, Outage { duration: ms(8), failed: 1, slow: 1, attempts: 6, longest: ms(51) });
    }

    #[test]
    fn an_attempt_that_was_under_way_counts() {
        let begin = Instant::now();
        assert_eq!(outage(&attempts(begin, &[60, 1, 30]), begin + ms(30)).duration, ms(4));
    }

    #[test]
    fn what_was_over_before_does_not_count() {
        let begin = Instant::now();
        assert_eq!(outage(&attempts(begin, &[0, 0, 1, 1]), begin + ms(4)).duration, ms(0));
    }

    #[test]
    fn an_outage_that_does_not_end_lasts_as_long_as_was_looked() {
        let begin = Instant::now();
        assert_eq!(outage(&attempts(begin, &[1, 0, 3000]), begin).duration, ms(3002));
    }
}
