//! Sessions and requests per second: the difference between two looks at the totals, and the greatest so far.

use std::time::Duration;

/// Of one row of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Rate {
    pub sessions: u64,
    pub most_sessions: u64,
    pub requests: u64,
    pub most_requests: u64,
}

/// Of all rows.
#[derive(Debug, Default)]
pub struct Rates {
    before: Vec<(u64, u64)>,
    rates: Vec<Rate>,
}

impl Rates {
    /// Takes the totals of sessions and requests of each row, `passed` after the last ones.
    pub fn sample(&mut self, totals: impl Iterator<Item = (u64, u64)>, passed: Duration) {
        let per_second = |count: u64| (count as f64 / passed.as_secs_f64().max(0.001)).round() as u64;
        for (row, (sessions, requests)) in totals.enumerate() {
            if self.rates.len() <= row {
                self.before.push((sessions, requests));
                self.rates.push(Rate::default());
            }
            let (before, rate) = (&mut self.before[row], &mut self.rates[row]);
            rate.sessions = per_second(sessions.saturating_sub(before.0));
            rate.requests = per_second(requests.saturating_sub(before.1));
            rate.most_sessions = rate.most_sessions.max(rate.sessions);
            rate.most_requests = rate.most_requests.max(rate.requests);
            *before = (sessions, requests);
        }
    }

    /// The rows are others from now on; of each, which one it was.
    pub fn rearrange(&mut self, origins: impl Iterator<Item = Option<usize>>) {
        if self.before.is_empty() {
            return; // there was no look yet
        }
        let (before, rates) = (std::mem::take(&mut self.before), std::mem::take(&mut self.rates));
        for origin in origins {
            self.before.push(origin.and_then(|row| before.get(row)).copied().unwrap_or_default());
            self.rates.push(origin.and_then(|row| rates.get(row)).copied().unwrap_or_default());
        }
    }

    /// Of one row; zero before there were two looks.
    pub fn of(&self, row: usize) -> Rate {
        self.rates.get(row).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_came_since_the_last_look() {
        let mut rates = Rates::default();
        let second = Duration::from_secs(1);
        for (sessions, requests) in [(0, 0), (10, 100), (10, 140)] {
            rates.sample([(7, 7), (sessions, requests)].into_iter(), second);
        }
        assert_eq!(rates.of(0), Rate::default());
        assert_eq!(rates.of(1), Rate { sessions: 0, most_sessions: 10, requests: 40, most_requests: 100 });
        assert_eq!(rates.of(2), Rate::default());
    }

    #[test]
    fn rows_that_move_keep_what_they_had() {
        let mut rates = Rates::default();
        let second = Duration::from_secs(1);
        rates.sample([(0, 0), (0, 0)].into_iter(), second);
        rates.sample([(10, 20), (30, 40)].into_iter(), second);
        rates.rearrange([None, Some(1)].into_iter());
        assert_eq!((rates.of(0), rates.of(1).sessions, rates.of(1).requests), (Rate::default(), 30, 40));
        rates.sample([(5, 5), (31, 42)].into_iter(), second);
        assert_eq!((rates.of(0).sessions, rates.of(1).sessions, rates.of(1).requests), (5, 1, 2));
    }
}
