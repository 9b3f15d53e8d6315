//! How long to wait before a process that ended is started again. Pure.

use std::time::Duration;

/// A process that served for so long has proved itself: its end is not part of a series.
const PROVEN: Duration = Duration::from_secs(10);

/// Counts ends in a row.
#[derive(Debug)]
pub struct Backoff {
    pauses_ms: &'static [u64],
    ends: usize,
}

impl Backoff {
    /// With these pauses after the first, the second end in a row and so on; the last one repeats.
    pub fn new(pauses_ms: &'static [u64]) -> Self {
        Backoff { pauses_ms, ends: 0 }
    }

    /// The pause after an end, of a process that served for so long.
    pub fn pause_after(&mut self, served: Duration) -> Duration {
        if served >= PROVEN {
            self.ends = 0;
        }
        let pause = self.pauses_ms.get(self.ends).or(self.pauses_ms.last());
        self.ends += 1;
        pause.map_or(Duration::ZERO, |pause| Duration::from_millis(*pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_process_has_proved_itself() {
        let mut backoff = Backoff::new(&[0, 250, 500]);
        let mut pause = |served| backoff.pause_after(Duration::from_secs(served)).as_millis();
        assert_eq!([0, 9, 0, 0].map(&mut pause), [0, 250, 500, 500]);
        assert_eq!([10, 0].map(&mut pause), [0, 250]);
    }
}
