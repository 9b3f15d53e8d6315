//! What an active router keeps while it is active: when it last adverted, how long its addresses are leased, when to
//! announce, which addresses somebody took away.

use std::collections::VecDeque;
use std::time::Duration;

use super::announcements::Announcements;
use super::event::{Action, Received, Time};
use crate::router::VirtualAddress;

/// An address lost more often than this ...
const LOSSES: usize = 3;
/// ... in this time is given up.
const LOSSES_WITHIN: Duration = Duration::from_secs(10);

/// Adverts out of turn in an interval.
const ANSWERS: u32 = 8;

/// From becoming active to letting go.
#[derive(Debug)]
pub(super) struct Tenure {
    interval: Duration,
    pub(super) since: Time,
    advert_sent: Time,
    advert_due: Time,
    /// Adverts sent out of turn in the interval that began then.
    answers: (Time, u32),
    lease_requested: Time,
    /// Another router that believes to be active: heard since our last advert, or preempted by it.
    pub(super) rival: Option<Received>,
    /// Requests that the kernel has not answered. It answers in order, so what it has taken is never older than we think.
    unanswered: VecDeque<Time>,
    /// Counted from when it was asked for, so that the kernel's lease is never shorter than we think.
    leased_until: Time,
    /// `None` until the kernel has taken the addresses: there is nothing to announce before.
    announcements: Option<Announcements>,
    losses: Vec<(Time, VirtualAddress)>,
}

impl Tenure {
    /// Begins with an advert and a lease, both now.
    pub(super) fn begin(interval: Duration, rival: Option<Received>, now: Time) -> Self {
        Self {
            interval,
            since: now,
            advert_sent: now,
            advert_due: now + interval,
            answers: (now, 0),
            lease_requested: now,
            rival,
            unanswered: VecDeque::from([now]),
            leased_until: now + lease(interval),
            announcements: None,
            losses: Vec::new(),
        }
    }

    /// While we did nothing, not even send an advert that was due, somebody may have replaced us, or the kernel may have
    /// dropped the addresses.
    pub(super) fn lapsed(&self, now: Time) -> bool {
        let absent = now >= self.advert_sent + 2 * self.interval;
        now >= self.replaceable_at() || (absent && now >= self.leased_until)
    }

    /// No backup, whatever its priority, takes over sooner than this: its skew time is greater than nothing.
    pub(super) fn replaceable_at(&self) -> Time {
        self.advert_sent + 3 * self.interval
    }

    pub(super) fn advert_due(&self, now: Time) -> bool {
        now >= self.advert_due
    }

    /// The beat is kept: an advert that is a little late does not delay those after it. One that is sent out of turn, or
    /// late by a whole interval, begins a new beat, so that there is never a burst.
    pub(super) fn advert_sent(&mut self, now: Time) {
        let in_turn = self.advert_due <= now && now < self.advert_due + self.interval;
        let (begin, answers) = self.answers_at(now);
        self.answers = if in_turn { (now, 0) } else { (begin, answers + 1) };
        self.advert_due = if in_turn { self.advert_due } else { now } + self.interval;
        self.advert_sent = now;
        self.rival = None;
    }

    /// Whether one more advert may be sent out of turn: a flood of a rival's must not become a flood of ours.
    pub(super) fn may_answer(&self, now: Time) -> bool {
        self.answers_at(now).1 < ANSWERS
    }

    fn answers_at(&self, now: Time) -> (Time, u32) {
        if now >= self.answers.0 + self.interval { (now, 0) } else { self.answers }
    }

    pub(super) fn refresh_due(&self, now: Time) -> bool {
        now >= self.refresh_at()
    }

    fn refresh_at(&self) -> Time {
        self.lease_requested + lease(self.interval) / 4
    }

    pub(super) fn lease_requested(&mut self, now: Time) {
        self.lease_requested = now;
        self.unanswered.push_back(now);
    }

    pub(super) fn lease_action(&self) -> Action {
        Action::Lease { seconds: lease_seconds(self.interval) }
    }

    /// The kernel has taken the addresses. If that is news to the segment, it is told.
    pub(super) fn addresses_taken(&mut self, now: Time, rival_lease: Duration) {
        if let Some(requested) = self.unanswered.pop_front() {
            self.leased_until = requested + lease(self.interval);
        }
        self.announcements.get_or_insert_with(|| Announcements::begin(now, rival_lease));
    }

    /// The kernel may have dropped the addresses although we were there: no request was answered in time.
    pub(super) fn lease_unanswered(&self, now: Time) -> bool {
        now >= self.leased_until
    }

    /// True if this address has gone too often to be put back once more.
    pub(super) fn address_lost(&mut self, address: VirtualAddress, now: Time) -> bool {
        self.losses.retain(|(lost, _)| *lost + LOSSES_WITHIN > now);
        self.losses.push((now, address));
        self.announcements = None;
        self.losses.iter().filter(|(_, lost)| *lost == address).count() > LOSSES
    }

    /// Another router believes, or believed, that the addresses are its own.
    pub(super) fn rival_heard(&mut self, now: Time, rival_lease: Duration) {
        if let Some(announcements) = &mut self.announcements {
            announcements.again(now, rival_lease);
        }
    }

    pub(super) fn take_announcement_due(&mut self, now: Time) -> bool {
        self.announcements.as_mut().is_some_and(|announcements| announcements.take_due(now))
    }

    pub(super) fn next_deadline(&self) -> Time {
        let next = self.advert_due.min(self.refresh_at());
        self.announcements.as_ref().map_or(next, |announcements| next.min(announcements.next_deadline()))
    }
}

/// How long a router of this advertisement interval leases its addresses: the shortest the kernel can (whole seconds) that
/// outlives three intervals.
pub(super) fn lease(interval: Duration) -> Duration {
    Duration::from_secs(u64::from(lease_seconds(interval)))
}

/// The same, as `valid_lft`.
fn lease_seconds(interval: Duration) -> u32 {
    u32::try_from((3 * interval).as_micros().div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1)
}
