//! A server's slots, and the mark of those who wait for one: one word, changed at once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How many are under way, and whether somebody waits.
#[derive(Debug, Default)]
pub struct Slots(pub(super) AtomicU64);

/// The lower part of the word is the number, the upper one counts the marks.
const MARK: u64 = 1 << 40;
const NUMBER: u64 = MARK - 1;

impl Slots {
    /// Under way now.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed) & NUMBER
    }

    /// One more, without a limit. Gives how many there are then.
    pub fn take(&self) -> u64 {
        (self.0.fetch_add(1, Relaxed) & NUMBER) + 1
    }

    /// One more, unless there are `most` already or somebody has waited for longer. Gives how many there are then.
    pub fn take_below(&self, most: u64) -> Option<u64> {
        // With a mark the word is above any limit.
        self.raise(|word| word < most)
    }

    /// The same for somebody who has waited.
    pub fn hand_over(&self, most: u64) -> bool {
        self.raise(|word| word & NUMBER < most).is_some()
    }

    /// One less. Does somebody wait for it?
    #[must_use = "whoever waits has to be told"]
    pub fn give_back(&self) -> bool {
        self.0.fetch_sub(1, Relaxed) >= MARK
    }

    /// Somebody waits. Until [`Slots::unmark`], whoever gives a slot back learns of it.
    pub fn mark(&self) {
        self.0.fetch_add(MARK, Relaxed);
    }

    /// Nobody waits any longer where somebody did.
    pub fn unmark(&self) {
        self.0.fetch_sub(MARK, Relaxed);
    }

    /// So many as if they were under way.
    #[cfg(test)]
    pub(crate) fn set(&self, count: u64) {
        self.0.store(count & NUMBER, Relaxed);
    }

    fn raise(&self, may: impl Fn(u64) -> bool) -> Option<u64> {
        let raised = self.0.fetch_update(Relaxed, Relaxed, |word| may(word).then_some(word + 1)).ok()?;
        Some((raised & NUMBER) + 1)
    }
}
