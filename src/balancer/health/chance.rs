//! A part of an interval by chance, so that checks do not fall into step. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The longest that a first check waits: a few servers are checked all at once, many spread out.
pub(super) fn first_delay(servers: usize) -> Duration {
    if servers <= 32 { Duration::ZERO } else { Duration::from_millis(servers as u64).min(Duration::from_millis(250)) }
}

/// Numbers that look random and are the same in every run.
pub(super) struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    pub(super) fn new(name: impl Hash) -> Self {
        Self { seed: hash(name), drawn: 0 }
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.drawn += 1;
        hash((self.seed, self.drawn)) as f64 / u64::MAX as f64
    }

    /// Any part of an interval.
    pub(super) fn part(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.fraction())
    }

    /// An interval, up to so many percent shorter or longer.
    pub(super) fn spread(&mut self, interval: Duration, percent: u32) -> Duration {
        interval.mul_f64(1.0 + f64::from(percent) / 100.0 * (2.0 * self.fraction() - 1.0))
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_checks_of_many_servers_are_spread() {
        assert_eq!(first_delay(32), Duration::ZERO);
        assert_eq!(first_delay(1000), Duration::from_millis(250));
        let mut chance = Chance::new("lb1");
        let fractions: Vec<_> = (0..1000).map(|_| chance.fraction()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)));
        let mean = fractions.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");

        let second = Duration::from_secs(1);
        assert_eq!(chance.spread(second, 0), second);
        let spread: Vec<_> = (0..1000).map(|_| chance.spread(second, 50)).collect();
        assert!(spread.iter().all(|interval| (second / 2..=second * 3 / 2).contains(interval)));
        assert!(spread.iter().any(|interval| *interval < second * 6 / 10));
        assert!(spread.iter().any(|interval| *interval > second * 14 / 10));
    }
}
