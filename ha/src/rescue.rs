//! A processor that stands still must not stop the election.
//!
//! The most urgent thread waits for a processor that is in the middle of a long system call (most kernels do not interrupt
//! one), or that its hypervisor does not run; and the kernel moves no thread away from there by itself. So two threads, each
//! on a processor of its own, look whether the election did what was due; if not, the other processor is the one that
//! stands still, and the election's thread is fetched to this one.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use nix::unistd::{Pid, gettid};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use crate::clock::{now, time_spec};
use crate::election::Time;
use crate::netlink::Input;
use crate::thread_priority::ThreadPriority;

/// The part of an interval by which something must be late before the thread is fetched.
const PATIENCE: u32 = 4;

/// When a virtual router must do something next; shown by its task.
#[derive(Debug, Clone)]
pub(crate) struct Due(Arc<AtomicU64>);

impl Due {
    pub(crate) fn show(&self, deadline: Option<Time>) {
        self.0.store(deadline.map_or(u64::MAX, |deadline| deadline.0), Ordering::Release);
    }
}

/// One virtual router, as those who look after its thread see it.
#[derive(Debug)]
struct Charge {
    due: Due,
    patience: Duration,
    inbox: UnboundedSender<Input>,
}

/// What is looked after, for as long as the election runs.
#[derive(Debug)]
pub(crate) struct Charges {
    thread: Pid,
    charges: Vec<Charge>,
    /// Held by the one that fetches.
    fetching: Mutex<()>,
}

impl Charges {
    /// Of the calling thread.
    pub(crate) fn of_this_thread() -> Charges {
        Charges { thread: gettid(), charges: Vec::new(), fetching: Mutex::new(()) }
    }

    pub(crate) fn add(&mut self, advertisement_interval: Duration, inbox: UnboundedSender<Input>) -> Due {
        let due = Due(Arc::new(AtomicU64::new(u64::MAX)));
        self.charges.push(Charge { due: due.clone(), patience: advertisement_interval / PATIENCE, inbox });
        due
    }

    /// Looks after them until they are dropped; only where there are any, two processors and real-time priority, for without it
    /// lateness is nothing special.
    pub(crate) fn look_after(self, priority: ThreadPriority) -> io::Result<Arc<Charges>> {
        let charges = Arc::new(self);
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let mut processors = (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor) == Ok(true));
        let (first, last) = (processors.next(), processors.next_back());
        let is_worth_it = priority.is_real_time() && !charges.charges.is_empty();
        if let (Some(first), Some(last), true) = (first, last, is_worth_it) {
            for processor in [first, last] {
                let charges = Arc::downgrade(&charges);
                let life = move || {
                    if let Err(error) = only(processor).and_then(|only| sched_setaffinity(gettid(), &only)) {
                        return debug!(%error, processor, "nobody looks after the election from this processor");
                    }
                    if let Err(error) = priority.adopt() {
                        return warn!(%error, "a processor that stands still may delay the election");
                    }
                    look_after(&charges, processor);
                };
                std::thread::Builder::new().name(format!("rescue-{processor}")).spawn(life)?;
            }
        }
        Ok(charges)
    }

    /// Those who should have done something by now.
    fn late(&self, now: Time) -> impl Iterator<Item = &Charge> {
        self.charges.iter().filter(move |charge| charge.late_at() <= now)
    }

    /// Always in the future, so that this thread never keeps its processor from the one it looks after.
    fn next_look(&self, now: Time) -> Option<Time> {
        let look = |charge: &Charge| match charge.late_at() {
            late_at if late_at <= now => now + charge.patience,
            // A sooner deadline may be shown meanwhile.
            late_at => late_at.min(now + PATIENCE * charge.patience),
        };
        self.charges.iter().map(look).min()
    }

    /// Has the thread run on this processor, and wakes it: where its own timer was to ring, nothing rings.
    fn fetch(&self, processor: usize, now: Time) -> Result<(), Errno> {
        // Whoever is at it already does the same.
        let Ok(_fetching) = self.fetching.try_lock() else { return Ok(()) };
        let allowed = sched_getaffinity(self.thread)?;
        // A thread that waits for a processor is moved at once by this; the processor that it waits for is not asked.
        sched_setaffinity(self.thread, &only(processor)?)?;
        for charge in self.late(now) {
            // A router that has stopped is never late again.
            let _ = charge.inbox.send(Input::Late);
        }
        // It is on this processor, and does not run before this thread sleeps: nothing that it starts is tied to one
        // processor. Only if somebody had tied it elsewhere it would go back there now.
        if allowed.is_set(processor)? {
            sched_setaffinity(self.thread, &allowed)?;
        }
        Ok(())
    }
}

impl Charge {
    fn late_at(&self) -> Time {
        Time(self.due.0.load(Ordering::Acquire)) + self.patience
    }
}

fn look_after(charges: &Weak<Charges>, processor: usize) {
    while let Some(here) = charges.upgrade() {
        let Some(next_look) = here.next_look(now()) else { return };
        // Or else the last of them would be dropped a sleep too late.
        drop(here);
        // Woken too soon it looks once more than needed.
        let _ = clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &time_spec(next_look));
        let Some(here) = charges.upgrade() else { return };
        let now = now();
        if here.late(now).next().is_some()
            && let Err(error) = here.fetch(processor, now)
        {
            debug!(%error, "the election's thread could not be fetched from a processor that stands still");
        }
    }
}

fn only(processor: usize) -> Result<CpuSet, Errno> {
    let mut only = CpuSet::new();
    only.set(processor)?;
    Ok(only)
}
