//! When a balancer counts as lost, and when the next one starts. Pure: it is told what happened and the time.

use std::time::{Duration, Instant};

use crate::process::backoff::Backoff;
use crate::process::messages::BEAT_INTERVAL;

/// No beat at all, or every worker silent, for so long: it serves nobody.
const SILENCE: Duration = Duration::from_secs(1);
/// One worker silent for so long while others work: its clients hang.
const WORKER_SILENCE: Duration = Duration::from_secs(5);
/// From its start until it serves.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Pauses before a new start by the number of ends in a row.
const PAUSES_MS: [u64; 7] = [0, 250, 500, 1_000, 2_000, 5_000, 10_000];
/// The keeper looks this often at least, so that a longer time between two looks is its own absence.
const LOOK_INTERVAL: Duration = BEAT_INTERVAL;
/// A look that is so late means that the keeper was stopped or starved, and beats may wait unread.
const ABSENCE: Duration = Duration::from_millis(500);

/// The life of one balancer after another.
#[derive(Debug)]
pub(super) struct Lifecycle {
    state: State,
    backoff: Backoff,
    last_look: Instant,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Pausing { until: Instant },
    Starting { since: Instant },
    Serving { since: Instant, last_beat: Instant },
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Wait,
    /// Start a balancer and call [`Lifecycle::started`] or [`Lifecycle::ended`].
    Start,
    /// Kill the one there is, and call [`Lifecycle::ended`]: it hangs, for this reason.
    Abort(String),
}

impl Lifecycle {
    /// Before the first start.
    pub(super) fn new(now: Instant) -> Self {
        Lifecycle { state: State::Pausing { until: now }, backoff: Backoff::new(&PAUSES_MS), last_look: now }
    }

    /// A process was started.
    pub(super) fn started(&mut self, now: Instant) {
        self.state = State::Starting { since: now };
    }

    /// It said that every worker accepts.
    pub(super) fn serving(&mut self, now: Instant) {
        self.state = State::Serving { since: now, last_beat: now };
    }

    /// It gave a sign of life: for each worker, milliseconds since it last went round its loop.
    pub(super) fn beat(&mut self, worker_silence_ms: &[u64], now: Instant) -> Verdict {
        let State::Serving { last_beat, .. } = &mut self.state else { return Verdict::Wait };
        *last_beat = now;
        let silences = || worker_silence_ms.iter().map(|ms| Duration::from_millis(*ms));
        if silences().min().is_some_and(|shortest| shortest >= SILENCE) {
            return Verdict::Abort(format!("all its workers have been silent for {} s", SILENCE.as_secs()));
        }
        match silences().position(|silence| silence >= WORKER_SILENCE) {
            Some(worker) => {
                Verdict::Abort(format!("its worker {worker} has been silent for {} s", WORKER_SILENCE.as_secs()))
            }
            None => Verdict::Wait,
        }
    }

    /// The process has ended, or could not be started. Returns the pause before the next start.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        let served = match self.state {
            State::Serving { since, .. } => now.saturating_duration_since(since),
            State::Pausing { .. } | State::Starting { .. } => Duration::ZERO,
        };
        let pause = self.backoff.pause_after(served);
        self.state = State::Pausing { until: now + pause };
        pause
    }

    /// Looks at the clock.
    pub(super) fn look(&mut self, now: Instant) -> Verdict {
        let absence = now.saturating_duration_since(self.last_look);
        self.last_look = now;
        if absence >= ABSENCE {
            self.forgive(absence, now);
        }
        match self.state {
            State::Pausing { until } if now >= until => Verdict::Start,
            State::Starting { since } if now >= since + START_LIMIT => {
                Verdict::Abort(format!("it did not serve within {} s of its start", START_LIMIT.as_secs()))
            }
            State::Serving { last_beat, .. } if now >= last_beat + SILENCE => {
                Verdict::Abort(format!("it has been silent for {} s", SILENCE.as_secs()))
            }
            _ => Verdict::Wait,
        }
    }

    /// When to look again at the latest.
    pub(super) fn next_look(&self) -> Instant {
        let deadline = match self.state {
            State::Pausing { until } => until,
            State::Starting { since } => since + START_LIMIT,
            State::Serving { last_beat, .. } => last_beat + SILENCE,
        };
        deadline.min(self.last_look + LOOK_INTERVAL)
    }

    /// Time in which nobody listened is not the balancer's silence.
    fn forgive(&mut self, absence: Duration, now: Instant) {
        match &mut self.state {
            State::Pausing { .. } => {}
            State::Starting { since } => *since = (*since + absence).min(now),
            // A beat that waited to be read may be of this moment.
            State::Serving { last_beat, .. } => *last_beat = (*last_beat + absence).min(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    /// Looks every 50 ms, from `from` until `to`, and returns the first verdict that is not to wait.
    fn look_until(lifecycle: &mut Lifecycle, from: Instant, to: Instant) -> (Duration, Verdict) {
        let mut now = from;
        while now <= to {
            let verdict = lifecycle.look(now);
            if verdict != Verdict::Wait {
                return (now - from, verdict);
            }
            now += TICK;
        }
        (to - from, Verdict::Wait)
    }

    fn serving(now: Instant) -> Lifecycle {
        let mut lifecycle = Lifecycle::new(now);
        lifecycle.started(now);
        lifecycle.serving(now);
        lifecycle
    }

    #[test]
    fn the_first_start_is_at_once() {
        let now = Instant::now();
        assert_eq!(Lifecycle::new(now).look(now), Verdict::Start);
    }

    #[test]
    fn a_second_without_a_beat_is_the_end() {
        let now = Instant::now();
        let (after, verdict) = look_until(&mut serving(now), now, now + Duration::from_secs(3));
        assert_eq!(after, SILENCE);
        assert!(matches!(verdict, Verdict::Abort(_)));
    }

    #[test]
    fn beats_keep_it_alive() {
        let start = Instant::now();
        let mut lifecycle = serving(start);
        for beat in 1..100 {
            let now = start + BEAT_INTERVAL * beat;
            assert_eq!(lifecycle.look(now), Verdict::Wait);
            assert_eq!(lifecycle.beat(&[3, 900], now), Verdict::Wait);
        }
    }

    #[test]
    fn all_workers_silent_for_a_second_or_one_for_five() {
        let now = Instant::now();
        let is_abort = |silences: &[u64]| matches!(serving(now).beat(silences, now), Verdict::Abort(_));
        assert!(is_abort(&[1_000, 1_500]));
        assert!(!is_abort(&[10, 4_999]));
        assert!(is_abort(&[10, 5_000]));
        assert!(!is_abort(&[]));
    }

    #[test]
    fn a_start_that_never_serves_is_ended() {
        let now = Instant::now();
        let mut lifecycle = Lifecycle::new(now);
        lifecycle.started(now);
        let (after, verdict) = look_until(&mut lifecycle, now, now + START_LIMIT * 2);
        assert_eq!(after, START_LIMIT);
        assert!(matches!(verdict, Verdict::Abort(_)));
    }

    #[test]
    fn the_keepers_own_absence_is_not_the_balancers_silence() {
        let start = Instant::now();
        let mut lifecycle = serving(start);
        assert_eq!(lifecycle.look(start + TICK), Verdict::Wait);
        let back = start + Duration::from_secs(10);
        assert_eq!(lifecycle.look(back), Verdict::Wait);
        let (after, verdict) = look_until(&mut lifecycle, back, back + Duration::from_secs(3));
        assert!(after > SILENCE - 2 * TICK && after <= SILENCE, "{after:?}");
        assert!(matches!(verdict, Verdict::Abort(_)), "it really is silent");
    }

    #[test]
    fn a_beat_that_waited_for_the_keeper_is_no_credit() {
        let start = Instant::now();
        let mut lifecycle = serving(start);
        let back = start + Duration::from_secs(10);
        assert_eq!(lifecycle.beat(&[3], back), Verdict::Wait);
        assert_eq!(lifecycle.look(back), Verdict::Wait);
        let (after, verdict) = look_until(&mut lifecycle, back, back + Duration::from_secs(3));
        assert_eq!(after, SILENCE);
        assert!(matches!(verdict, Verdict::Abort(_)));
    }

    #[test]
    fn ends_in_a_row_back_off_and_a_proven_balancer_starts_over() {
        let mut now = Instant::now();
        let mut lifecycle = Lifecycle::new(now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            lifecycle.started(now);
            pauses.push(lifecycle.ended(now).as_millis() as u64);
            assert_eq!(lifecycle.look(now) == Verdict::Start, pauses.last() == Some(&0));
            now += Duration::from_secs(10);
            assert_eq!(lifecycle.look(now), Verdict::Start);
        }
        assert_eq!(pauses, [0, 250, 500, 1_000, 2_000, 5_000, 10_000, 10_000, 10_000]);

        lifecycle.started(now);
        lifecycle.serving(now);
        assert_eq!(lifecycle.ended(now + Duration::from_secs(10)), Duration::ZERO);
    }

    #[test]
    fn it_asks_to_be_looked_at_often_and_at_its_deadline() {
        let now = Instant::now();
        let mut lifecycle = serving(now);
        assert_eq!(lifecycle.look(now), Verdict::Wait);
        assert_eq!(lifecycle.next_look(), now + LOOK_INTERVAL);
        for look in 1..5 {
            assert_eq!(lifecycle.look(now + LOOK_INTERVAL * look + TICK), Verdict::Wait);
        }
        assert_eq!(lifecycle.next_look(), now + SILENCE);
    }
}
