//! How long to wait before a peer is dialled again. Pure but for the jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Why there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody listens.
    Refused,
    /// Accepted, then closed before the handshake was done: the listener may have been about to close.
    ClosedAtOnce,
    /// Silence, no route.
    Absent,
    /// A wrong peer, a wrong key, a wrong address of our own.
    Other,
}

/// A link that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// What a closing listener is given: 0, 1, 2, 4, 8, 16, 32 ms between attempts.
const QUICK: u32 = 7;

/// Then, and after any other failure, longer and longer.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Counts failures since the last good link.
#[derive(Debug, Default)]
pub(super) struct Retry {
    quick: u32,
    slow: u32,
    jitter: RandomState,
}

impl Retry {
    /// A link was lost without a goodbye: is it a death? At once, unless links come and go again and again.
    pub(super) fn after_loss(&mut self, lived: Duration) -> Duration {
        if lived >= GOOD {
            (self.quick, self.slow) = (0, 0);
        }
        self.after(Failure::ClosedAtOnce)
    }

    /// The peer is about to end.
    pub(super) fn after_goodbye(&mut self) -> Duration {
        (self.quick, self.slow) = (0, 0);
        self.after(Failure::Other)
    }

    pub(super) fn after(&mut self, failure: Failure) -> Duration {
        if failure == Failure::ClosedAtOnce && self.quick < QUICK {
            self.quick += 1;
            return Duration::from_millis(1 << (self.quick - 1) >> 1);
        }
        self.slow = self.slow.saturating_add(1);
        let pause = SHORTEST.saturating_mul(1 << (self.slow - 1).min(5)).min(LONGEST);
        // Up to a quarter less: two nodes that started together do not stay in step.
        pause - pause / 4 * (self.jitter.hash_one(self.slow) % 256) as u32 / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_link_is_dialled_at_once_and_soon_again() {
        let mut retry = Retry::default();
        let mut pauses = vec![retry.after_loss(Duration::from_secs(60)).as_millis()];
        pauses.extend((0..6).map(|_| retry.after(Failure::ClosedAtOnce).as_millis()));
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32]);
        assert!(retry.after(Failure::ClosedAtOnce) >= Duration::from_millis(75));
    }

    #[test]
    fn links_that_come_and_go_are_not_a_busy_loop() {
        let mut retry = Retry::default();
        for _ in 0..20 {
            retry.after_loss(Duration::from_millis(1));
        }
        assert!(retry.after_loss(Duration::from_millis(1)) >= Duration::from_millis(1500));
        assert_eq!(retry.after_loss(GOOD), Duration::ZERO);
    }

    #[test]
    fn silence_is_asked_more_and_more_rarely() {
        let mut retry = Retry::default();
        let pauses: Vec<_> = (0..40).map(|_| retry.after(Failure::Other)).collect();
        assert!(pauses[0] >= Duration::from_millis(75) && pauses[0] <= SHORTEST);
        assert!(pauses[9..].iter().all(|pause| *pause >= Duration::from_millis(1500) && *pause <= LONGEST));
    }
}
