//! One fault, from a pair that is well to a pair that is well, and what was seen meanwhile.

use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::fault::{Fault, Struck};
use super::outage::{Outage, describe, outage};
use super::pair::Pair;

/// Longest wait for a pair to become ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for clients to be well again.
const WELL_TIMEOUT: Duration = Duration::from_secs(15);

/// For so long every attempt must be good before a fault counts as over.
const WELL_SPAN: Duration = Duration::from_millis(300);

/// What is done and how long one looks.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// To the active node.
    pub fault: Fault,
    /// At least so long after the fault, before it is undone.
    pub observe: Duration,
    /// The client forgets who has the floating IP at these times after the fault.
    pub forget_at: &'static [Duration],
}

/// What was seen between the fault and its end.
#[derive(Debug, Clone)]
pub struct Report {
    /// The fault.
    pub fault: Fault,
    /// The node it was done to.
    pub victim: usize,
    /// As clients saw it, until all had gone well for a while.
    pub outage: Outage,
    /// What went wrong after that: on a machine that has other things to do, a few slow attempts.
    pub after: Outage,
    /// Longest time that nobody held the floating IP.
    pub without_owner: Duration,
    /// Longest time that both held it.
    pub with_two_owners: Duration,
    /// From the fault until exactly one node held it for the rest of the time.
    pub settled: Option<Duration>,
    /// What became of the floating IP and the attempts that were not good, for people.
    pub story: String,
}

impl Trial {
    /// The plain form.
    pub const fn of(fault: Fault) -> Self {
        Self { fault, observe: Duration::from_millis(1500), forget_at: &[] }
    }

    /// Waits until the pair is ready, does the fault, and waits until clients are well and it was observed long enough.
    pub fn run(&self, pair: &Pair) -> Result<(Report, Struck)> {
        let victim = pair.wait_ready(READY_TIMEOUT)?;
        let struck = self.fault.strike(pair, victim)?;
        self.forget(pair, struck.at())?;
        let report = self.watch(pair, victim, struck.at())?;
        Ok((report, struck))
    }

    /// The same, and then makes the pair whole again.
    pub fn run_and_undo(&self, pair: &mut Pair) -> Result<Report> {
        let (report, struck) = self.run(pair)?;
        self.fault.undo(pair, report.victim, struck)?;
        pair.wait_ready(READY_TIMEOUT)?;
        Ok(report)
    }

    fn forget(&self, pair: &Pair, at: Instant) -> Result<()> {
        for after in self.forget_at {
            std::thread::sleep((at + *after).saturating_duration_since(Instant::now()));
            super::neighbour::forget(&pair.client.namespace, super::pair::FLOATING)?;
        }
        Ok(())
    }

    fn watch(&self, pair: &Pair, victim: usize, at: Instant) -> Result<Report> {
        while at.elapsed() < WELL_SPAN + Duration::from_millis(100) || !pair.prober.is_well(WELL_SPAN) {
            if at.elapsed() > WELL_TIMEOUT {
                let why = format!("last attempt: {:?}\n{}", pair.prober.last(), pair.watch.history().describe(at));
                return Err(Error::new(format!("clients do not recover from {}", self.fault.name()), why));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let over = Instant::now();
        std::thread::sleep((at + self.observe).saturating_duration_since(Instant::now()));
        let until = Instant::now();
        // An attempt from the middle of the outage may still hang.
        while !pair.prober.all_over_before(until) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let history = pair.watch.history();
        let attempts = pair.prober.attempts(at);
        let (during, after) = attempts.split_at(attempts.partition_point(|attempt| attempt.start < over));
        Ok(Report {
            fault: self.fault,
            victim,
            outage: outage(during, at),
            after: outage(after, at),
            without_owner: history.longest_without_owner(at, until),
            with_two_owners: history.longest_with_two_owners(at, until),
            settled: history.settled_after(at, until),
            story: history.describe(at) + &describe(&attempts, at),
        })
    }
}
