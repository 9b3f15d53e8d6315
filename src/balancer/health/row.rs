//! Results of checks in a row: when they change a server's health, and how soon the next check comes. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::balancer::state::Health;
use crate::config::model::HealthCheck;

/// How far the checks of a server have come.
#[derive(Debug, Default, Clone, Copy)]
pub struct Progress {
    pub(super) row: Row,
    /// When the next is due; `None`: there was none yet.
    pub(super) due: Option<Instant>,
}

/// Results in a row that speak against what the server's health is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) successes: u32,
    pub(super) failures: u32,
}

impl Row {
    /// Take in one result; the health after it.
    pub(super) fn count(&mut self, before: Health, success: bool, health: &HealthCheck) -> Health {
        let (against, after, needed) = match (before, success) {
            (Health::Down, true) => (Self { successes: self.successes + 1, failures: 0 }, Health::Up, health.rise),
            (Health::Up, false) => (Self { successes: 0, failures: self.failures + 1 }, Health::Down, health.fall),
            // It confirms the state, or it is the first.
            (_, success) => {
                *self = Self::default();
                return if success { Health::Up } else { Health::Down };
            }
        };
        let is_complete = against.successes.max(against.failures) >= needed;
        *self = if is_complete { Self::default() } else { against };
        if is_complete { after } else { before }
    }

    pub(super) fn pause(self, now: Health, health: &HealthCheck) -> Duration {
        match now {
            _ if self != Self::default() => health.fast_interval,
            Health::Down => health.down_interval,
            _ => health.interval,
        }
    }

    /// How far the row has come, to be read after the last result.
    pub(super) fn progress(self, health: &HealthCheck) -> String {
        match self {
            Self { successes: 0, failures: 0 } => String::new(),
            Self { successes: 0, failures } => format!(" ({failures} of {} failures)", health.fall),
            Self { successes, .. } => format!(" ({successes} of {} successes)", health.rise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall() {
        use Health::{Down, Starting, Up};
        // From a state, results one after the other (+ success, - failure), the states after each.
        let rows: &[(Health, &str, &[Health])] = &[
            (Starting, "+", &[Up]),
            (Starting, "-", &[Down]),
            (Up, "---", &[Up, Up, Down]),
            (Up, "--+--+", &[Up, Up, Up, Up, Up, Up]),
            (Down, "++", &[Down, Up]),
            (Down, "+-+-++", &[Down, Down, Down, Down, Down, Up]),
            (Up, "---++---", &[Up, Up, Down, Down, Up, Up, Up, Down]),
        ];
        let health = HealthCheck::every(Duration::from_secs(2));
        for (from, results, expected) in rows {
            let mut row = Row::default();
            let states: Vec<_> = results
                .chars()
                .scan(*from, |state, result| {
                    *state = row.count(*state, result == '+', &health);
                    Some(*state)
                })
                .collect();
            assert_eq!(states, *expected, "{from:?} {results}");
        }
    }

    #[test]
    fn a_row_against_a_state_that_others_have_changed_counts_for_nothing() {
        let health = HealthCheck::every(Duration::from_secs(2));
        let mut row = Row::default();
        row.count(Health::Up, false, &health);
        row.count(Health::Up, false, &health);
        // The traffic took it down.
        assert_eq!(row.count(Health::Down, true, &health), Health::Down);
        assert_eq!(row.progress(&health), " (1 of 2 successes)");
        assert_eq!(row.count(Health::Up, false, &health), Health::Up);
        assert_eq!(row.progress(&health), " (1 of 3 failures)");
    }

    #[test]
    fn checks_come_faster_while_a_change_is_under_way() {
        let second = Duration::from_secs(1);
        let health = HealthCheck { fast_interval: second, down_interval: 5 * second, ..HealthCheck::every(2 * second) };
        let mut row = Row::default();
        assert_eq!(row.pause(Health::Up, &health), 2 * second);
        row.count(Health::Up, false, &health);
        assert_eq!(row.pause(Health::Up, &health), second);
        assert_eq!(row.progress(&health), " (1 of 3 failures)");
        row.count(Health::Up, true, &health);
        assert_eq!(row.pause(Health::Up, &health), 2 * second);
        assert_eq!(row.pause(Health::Down, &health), 5 * second);
        row.count(Health::Down, true, &health);
        assert_eq!(row.pause(Health::Down, &health), second);

        let fast = |interval| HealthCheck::every(interval).fast_interval;
        assert_eq!((fast(2 * second), fast(60 * second)), (second / 2, second));
    }
}
