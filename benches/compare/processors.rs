//! Who runs where. A proxy of one worker has a processor to itself, and clients and servers have the others, so that no figure
//! depends on which of them the kernel has put beside which: left to it, the ratio of a whole round is one of two values a
//! tenth apart.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::peers::Result;
use crate::rows::Row;

/// And what it starts from then on.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Where the programs of a row run.
pub(crate) struct Processors {
    proxy: CpuSet,
    others: CpuSet,
}

impl Processors {
    /// Divides all that there are. Nothing is divided where there is one, or where the proxy has more workers. Whatever this
    /// thread starts from now on is among the others.
    pub(crate) fn divide(all: CpuSet, row: &Row) -> Result<Self> {
        let mut numbers = (0..CpuSet::count()).filter(|number| all.is_set(*number).unwrap_or(false));
        let (mut proxy, mut others) = (all, all);
        if let (Some(first), Some(_), 1) = (numbers.next(), numbers.next(), row.workers) {
            proxy = CpuSet::new();
            proxy.set(first)?;
            others.unset(first)?;
        }
        sched_setaffinity(THIS_THREAD, &others)?;
        Ok(Self { proxy, others })
    }

    /// Starts proxies where they belong.
    pub(crate) fn start<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        sched_setaffinity(THIS_THREAD, &self.proxy)?;
        let started = start();
        sched_setaffinity(THIS_THREAD, &self.others)?;
        started
    }
}

/// Those that this program may run on.
pub(crate) fn all() -> Result<CpuSet> {
    Ok(sched_getaffinity(THIS_THREAD)?)
}
