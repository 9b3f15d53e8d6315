//! What happened in a run, or in all of them.

use std::fmt;

/// What happened in a run, for a person to see that something did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub takeovers: u64,
    /// Times at which two routers came to be active at once.
    pub splits: u64,
    /// Routers that woke up too late and let go.
    pub fences: u64,
    pub steps: u64,
    pub seconds: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            takeovers: self.takeovers + other.takeovers,
            splits: self.splits + other.splits,
            fences: self.fences + other.fences,
            steps: self.steps + other.steps,
            seconds: self.seconds + other.seconds,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { takeovers, splits, fences, steps, seconds } = self;
        write!(
            f,
            "{takeovers} takeovers, {splits} splits, {fences} fences in {steps} steps, {seconds} s of virtual time"
        )
    }
}
