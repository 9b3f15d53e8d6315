//! When an active router tells the segment where its addresses are. Two routers that hold an address for a moment strand
//! whoever asks just then, so one announcement is not enough.

use std::time::Duration;

use super::event::Time;

/// Of one burst, from its beginning. A switch whose port has just come up may forward nothing for a while (spanning tree takes up to
/// 30 s to learn): whoever hears of the address no sooner would be stranded for as long as the next one takes.
const BURST: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
];
/// From the beginning of one burst to that of the next: a flood of adverts makes no flood of announcements.
const BETWEEN_BURSTS: Duration = Duration::from_secs(1);
/// The kernel drops a leased address up to 0.4 s late: whoever it stranded is told at once, and half a second later, when
/// nobody else can have answered for the address any more, everybody.
const AFTER_LEASE: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(400 + 500)];
/// For ever after.
const SLOW: Duration = Duration::from_secs(60);

/// The schedule from the beginning of a burst on.
#[derive(Debug)]
pub(super) struct Announcements {
    began: Time,
    burst: Vec<Time>,
    /// After the lease of the rival has ended.
    later: Vec<Time>,
    slowly: Time,
}

impl Announcements {
    /// A burst that begins now. A rival may have leased the addresses until `now + rival_lease`.
    pub(super) fn begin(now: Time, rival_lease: Duration) -> Self {
        Self {
            began: now,
            burst: BURST.into_iter().map(|delay| now + delay).collect(),
            later: after_lease(now, rival_lease),
            slowly: now + SLOW,
        }
    }

    /// A rival was heard: begin again, or soon if a burst has only just begun.
    pub(super) fn again(&mut self, now: Time, rival_lease: Duration) {
        let next_burst = self.began + BETWEEN_BURSTS;
        if now >= next_burst {
            *self = Self::begin(now, rival_lease);
            return;
        }
        if !self.burst.contains(&next_burst) {
            self.burst.push(next_burst);
        }
        self.later = after_lease(now, rival_lease);
    }

    /// Whether to announce now.
    pub(super) fn take_due(&mut self, now: Time) -> bool {
        let waiting = self.burst.len() + self.later.len();
        self.burst.retain(|due| *due > now);
        self.later.retain(|due| *due > now);
        let is_due = self.burst.len() + self.later.len() < waiting || self.slowly <= now;
        if is_due {
            self.slowly = now + SLOW;
        }
        is_due
    }

    pub(super) fn next_deadline(&self) -> Time {
        self.burst.iter().chain(&self.later).copied().fold(self.slowly, Time::min)
    }
}

fn after_lease(now: Time, rival_lease: Duration) -> Vec<Time> {
    AFTER_LEASE.into_iter().map(|delay| now + rival_lease + delay).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds_until(schedule: &mut Announcements, end: u64) -> Vec<u64> {
        let mut announced = Vec::new();
        while schedule.next_deadline() <= Time(end * 1000) {
            let now = schedule.next_deadline();
            assert!(schedule.take_due(now));
            announced.push(now.0 / 1000);
        }
        announced
    }

    #[test]
    fn in_a_burst_after_the_rivals_lease_while_a_port_may_learn_and_slowly_ever_after() {
        let mut schedule = Announcements::begin(Time(0), Duration::from_secs(1));
        let expected = [0, 100, 500, 1400, 1900, 5_000, 10_000, 20_000, 30_000, 90_000, 150_000];
        assert_eq!(milliseconds_until(&mut schedule, 160_000), expected);
    }

    #[test]
    fn a_rival_heard_later_starts_it_again() {
        let mut schedule = Announcements::begin(Time(0), Duration::from_secs(1));
        milliseconds_until(&mut schedule, 6_000);
        schedule.again(Time(6_000_000), Duration::from_secs(2));
        let expected = [6_000, 6_100, 6_500, 8_400, 8_900, 11_000, 16_000, 26_000, 36_000];
        assert_eq!(milliseconds_until(&mut schedule, 60_000), expected);
    }

    #[test]
    fn a_flood_of_adverts_is_no_flood_of_announcements() {
        let mut schedule = Announcements::begin(Time(0), Duration::from_secs(1));
        let mut announced = 0;
        for now in (0..10_000_000).step_by(100).map(Time) {
            schedule.again(now, Duration::from_secs(1));
            announced += usize::from(schedule.take_due(now));
        }
        assert!((30..=40).contains(&announced), "{announced} in 10 s");
        let after = milliseconds_until(&mut schedule, 60_000);
        assert!(after.first().is_some_and(|first| *first <= 10_500), "{after:?}");
    }
}
