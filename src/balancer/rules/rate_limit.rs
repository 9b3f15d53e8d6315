//! How often somebody may ask: the generic cell rate algorithm, in a table that never grows.
//!
//! One table for all workers, so that a limit is what it says however a client's connections fall; a lock is held for the few
//! instructions that look at eight entries, and a table of any size has one for each eight. An entry is a moment: when all
//! that was admitted will have been worth its time. Where more than eight keys fall together, the one that is nearest to
//! being free is forgotten: mostly it is free already. Only more keys than the table has room for make it forget others.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::model::RateLimit;

/// Entries that are looked at together.
const WAYS: usize = 8;

/// The limit of one rule.
pub struct RateLimiter {
    origin: Instant,
    /// Nanoseconds that one request is worth.
    interval: u64,
    /// How far ahead of its time somebody may be.
    tolerance: u64,
    /// So that nobody can choose keys that fall together.
    hasher: RandomState,
    buckets: Box<[Mutex<[Entry; WAYS]>]>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// The key's digest; that two keys of one table share theirs is not to be expected.
    key: u64,
    /// Nanoseconds since the origin.
    due: u64,
}

impl RateLimiter {
    /// Nobody has asked yet.
    pub fn new(limit: &RateLimit, origin: Instant) -> Self {
        let interval = (nanoseconds(limit.per) / u64::from(limit.requests)).max(1);
        Self {
            origin,
            interval,
            tolerance: interval.saturating_mul(u64::from(limit.burst) - 1),
            hasher: RandomState::new(),
            buckets: (0..limit.size.div_ceil(WAYS).max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// May this one ask now? It is then counted.
    ///
    /// # Errors
    /// When it may not: how long until it may.
    pub fn admit(&self, key: impl std::hash::Hash, now: Instant) -> Result<(), Duration> {
        let key = self.hasher.hash_one(key);
        let now = nanoseconds(now.saturating_duration_since(self.origin));
        let bucket = self.buckets.get((key % self.buckets.len() as u64) as usize);
        let Some(bucket) = bucket else { return Ok(()) };
        let mut entries = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.iter().position(|entry| entry.key == key);
        let oldest = || entries.iter().enumerate().min_by_key(|(_, entry)| entry.due).map_or(0, |(place, _)| place);
        let place = known.unwrap_or_else(oldest);
        let Some(entry) = entries.get_mut(place) else { return Ok(()) };
        if entry.key != key {
            *entry = Entry { key, due: now };
        }
        let ahead = entry.due.saturating_sub(now);
        if ahead > self.tolerance {
            return Err(Duration::from_nanos(ahead - self.tolerance));
        }
        entry.due = entry.due.max(now).saturating_add(self.interval);
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::LimitKey;

    fn limit(requests: u32, seconds: u64, burst: u32, size: usize) -> (RateLimiter, Instant) {
        let per = Duration::from_secs(seconds);
        let origin = Instant::now();
        (RateLimiter::new(&RateLimit { requests, per, burst, by: LimitKey::Source, size }, origin), origin)
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_rate_allows() {
        let (limiter, start) = limit(10, 1, 3, 100);
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..3 {
            assert_eq!(limiter.admit("a", at(0)), Ok(()));
        }
        assert_eq!(limiter.admit("a", at(0)), Err(Duration::from_millis(100)));
        assert_eq!(limiter.admit("a", at(40)), Err(Duration::from_millis(60)));
        assert_eq!(limiter.admit("b", at(40)), Ok(()), "another one has a limit of its own");
        assert_eq!(limiter.admit("a", at(100)), Ok(()));
        assert_eq!(limiter.admit("a", at(199)), Err(Duration::from_millis(1)));
        for _ in 0..3 {
            assert_eq!(limiter.admit("a", at(10_000)), Ok(()), "who has been quiet has the whole burst again");
        }
        assert!(limiter.admit("a", at(10_000)).is_err());
    }

    #[test]
    fn a_flood_of_keys_does_not_grow_the_table_and_a_full_one_still_limits() {
        let (limiter, start) = limit(1, 60, 1, 64);
        let now = start + Duration::from_secs(1);
        assert_eq!(limiter.admit("greedy", now), Ok(()));
        let size = limiter.buckets.len() * WAYS;
        assert_eq!(size, 64);
        // However they fall, these eight have room together.
        for number in 0..7 {
            let _ = limiter.admit(number, now);
        }
        assert!(limiter.admit("greedy", now).is_err());
        for number in 0..10_000 {
            let _ = limiter.admit(number, now + Duration::from_millis(1));
        }
        assert_eq!(limiter.buckets.len() * WAYS, size);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            requests in 1..50_u32, burst in 1..20_u32, pauses in proptest::collection::vec(0..200_u64, 1..200),
        ) {
            let (limiter, start) = limit(requests, 1, burst, 8);
            let (mut now, mut admitted) = (start, 0_u64);
            for pause in pauses {
                now += Duration::from_millis(pause);
                match limiter.admit("a", now) {
                    Ok(()) => admitted += 1,
                    // Then, and not before, the next one passes.
                    Err(wait) => {
                        prop_assert!(limiter.admit("a", now + wait - Duration::from_nanos(1)).is_err());
                    }
                }
            }
            let most = u64::from(burst) + (now - start).as_millis() as u64 * u64::from(requests) / 1000 + 1;
            prop_assert!(admitted <= most, "{admitted} of {most}");
        }
    }
}
