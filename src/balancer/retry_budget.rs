//! How many requests may be sent again: a share of all, so that servers in trouble are not hit many times over.
//!
//! What is over budget fails as it would without retries. A connection that failed is no matter of the budget: nothing
//! was asked of anybody, and the request is still sent only once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::model;

/// Seconds that it looks back on.
const WINDOW: u64 = 10;

/// The budget of one backend, for all workers together.
pub struct RetryBudget {
    config: model::RetryBudget,
    /// By second modulo [`WINDOW`].
    seconds: [Second; WINDOW as usize],
}

/// What there was in one second.
#[derive(Default)]
struct Second {
    number: AtomicU64,
    requests: AtomicU64,
    repeated: AtomicU64,
}

impl RetryBudget {
    /// There has been nothing yet.
    pub fn new(config: model::RetryBudget) -> Self {
        Self { config, seconds: Default::default() }
    }

    /// A request has come in this second.
    pub fn request(&self, second: u64) {
        if let Some(second) = self.begun(second) {
            second.requests.fetch_add(1, Relaxed);
        }
    }

    /// May one be sent again in this second? It is then counted.
    pub fn withdraw(&self, second: u64) -> bool {
        let recent = self.seconds.iter().filter(|it| second.saturating_sub(it.number.load(Relaxed)) < WINDOW);
        let (requests, repeated) = recent.fold((0, 0), |(requests, repeated), second| {
            (requests + second.requests.load(Relaxed), repeated + second.repeated.load(Relaxed))
        });
        let in_any_case = u64::from(self.config.min_per_second) * WINDOW;
        if (repeated + 1).saturating_sub(in_any_case) * 100 > requests * u64::from(self.config.percent) {
            return false;
        }
        if let Some(second) = self.begun(second) {
            second.repeated.fetch_add(1, Relaxed);
        }
        true
    }

    /// Another worker may count in the place of a second that has just begun before it is empty: that one is lost.
    fn begun(&self, number: u64) -> Option<&Second> {
        let second = self.seconds.get((number % WINDOW) as usize)?;
        let before = second.number.load(Relaxed);
        if before != number && second.number.compare_exchange(before, number, Relaxed, Relaxed).is_ok() {
            second.requests.store(0, Relaxed);
            second.repeated.store(0, Relaxed);
        }
        Some(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(percent: u32, min_per_second: u32) -> RetryBudget {
        RetryBudget::new(model::RetryBudget { percent, min_per_second })
    }

    fn withdrawn(budget: &RetryBudget, second: u64) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(second)).count()
    }

    #[test]
    fn a_share_of_the_requests_and_so_many_in_any_case() {
        for (percent, min_per_second, expected) in [(20, 0, 20), (0, 3, 30), (20, 3, 50), (300, 0, 300), (0, 0, 0)] {
            let budget = budget(percent, min_per_second);
            (0..100).for_each(|_| budget.request(0));
            assert_eq!(withdrawn(&budget, 0), expected, "{percent} percent, {min_per_second} per second");
            assert!(!budget.withdraw(9), "it is used up for ten seconds");
        }
    }

    #[test]
    fn ten_seconds_are_looked_back_on() {
        let budget = budget(50, 0);
        for second in 100..120 {
            (0..10).for_each(|_| budget.request(second));
        }
        assert_eq!(withdrawn(&budget, 119), 50, "of the last hundred");
        assert_eq!(withdrawn(&budget, 128), 0, "five may be, of the last ten, and fifty were");
        (0..10).for_each(|_| budget.request(129));
        assert_eq!(withdrawn(&budget, 129), 5, "those are forgotten");
        assert_eq!(withdrawn(&budget, 1_000), 0, "and so are all requests, after a while");
    }
}
