//! How long each worker has been silent, in the time in which this process ran. Pure.
//!
//! A paused virtual machine or a frozen process is no silence of its workers: the control thread may be the first to run again,
//! and finds that nobody has said anything meanwhile.

use std::time::Duration;

use crate::process::messages::BEAT_INTERVAL;

/// Of the time between two looks no more counts: the rest of it is this thread's own absence.
const LONGEST_COUNTED: Duration = BEAT_INTERVAL.saturating_mul(2);

/// What the control thread knows of the workers' signs of life.
#[derive(Debug)]
pub(super) struct Silences {
    looked_at: Duration,
    workers: Vec<Silence>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    /// The last sign of life: when the worker last went round its loop.
    beat_at: Duration,
    lasted: Duration,
}

impl Silences {
    /// Of so many workers, from the process's start on.
    pub(super) fn new(workers: usize) -> Self {
        Silences { looked_at: Duration::ZERO, workers: vec![Silence::default(); workers] }
    }

    /// When each worker last went round its loop, and the time now: both since the process's start. Gives the silence of each.
    pub(super) fn look(
        &mut self,
        beats: impl Iterator<Item = Duration>,
        now: Duration,
    ) -> impl Iterator<Item = Duration> + '_ {
        let counted = now.saturating_sub(self.looked_at).min(LONGEST_COUNTED);
        self.looked_at = now;
        for (worker, beat_at) in self.workers.iter_mut().zip(beats) {
            worker.lasted = match worker.beat_at == beat_at {
                true => worker.lasted + counted,
                false => now.saturating_sub(beat_at).min(counted),
            };
            worker.beat_at = beat_at;
        }
        self.workers.iter().map(|worker| worker.lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Looks at these times, each with the workers' last beats; the last silences.
    fn looks(looks: &[(u64, [u64; 2])]) -> Vec<u64> {
        let mut silences = Silences::new(2);
        let mut last = Vec::new();
        for (now, beats) in looks {
            last =
                silences.look(beats.iter().map(|beat| ms(*beat)), ms(*now)).map(|it| it.as_millis() as u64).collect();
        }
        last
    }

    #[test]
    fn a_worker_is_silent_since_its_last_beat() {
        assert_eq!(looks(&[(200, [190, 150])]), [10, 50]);
        assert_eq!(looks(&[(200, [190, 150]), (400, [390, 150])]), [10, 250]);
        let hangs: Vec<_> = (1..=6).map(|n| (200 * n, [200 * n, 150])).collect();
        assert_eq!(looks(&hangs), [0, 1050]);
    }

    #[test]
    fn a_pause_of_the_process_is_nobodys_silence() {
        let longest = LONGEST_COUNTED.as_millis() as u64;
        assert_eq!(looks(&[(200, [190, 150]), (9_000, [190, 150])]), [10 + longest, 50 + longest]);
        // They have run since the last look, but were paused as well.
        assert_eq!(looks(&[(200, [190, 150]), (9_000, [210, 8_990])]), [longest, 10]);
        // One really hangs, before and after.
        let hangs = [(200, [190, 150]), (9_000, [190, 8_990]), (9_200, [190, 9_190]), (9_400, [190, 9_390])];
        assert_eq!(looks(&hangs), [10 + longest + 400, 10]);
    }
}
