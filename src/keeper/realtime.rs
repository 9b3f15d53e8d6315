//! Load never delays the election: real-time scheduling and locked memory, as far as they can be had.

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Low among real-time priorities: above every ordinary process, below the kernel's own threads that matter.
const PRIORITY: i32 = 10;
/// A keeper that computes for so long without ever waiting has gone wrong: the kernel kills it, and the guard starts a new one.
const CPU_LIMIT_US: u64 = 1_000_000;

/// Tries everything, and returns in words what could not be had.
pub(super) fn acquire() -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = limit_cpu().and_then(|()| schedule()) {
        missing.push(format!("no real-time priority ({error}), so that load may delay the election"));
    }
    if let Err(error) = lock_memory() {
        missing.push(format!("its memory is not locked ({error})"));
    }
    missing
}

/// Before the scheduling, so that there is never the one without the other.
fn limit_cpu() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_RTTIME, CPU_LIMIT_US, CPU_LIMIT_US)
}

/// First in, first out among its equals; what it forks (threads too) is ordinary.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
fn schedule() -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel only reads the parameters, which live until the call returns. (The C library's function of this
    // name is missing from some libraries.)
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    Errno::result(result).map(drop)
}

/// Locks all that is and will be mapped, but only where no limit applies: with one, a later allocation would fail.
///
/// Whether one applies is found by trying under a limit that this process exceeds already.
fn lock_memory() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if hard != libc::RLIM_INFINITY {
        setrlimit(Resource::RLIMIT_MEMLOCK, hard.min(4096), hard)?;
    } else {
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard)?;
    }
    let locked = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    // A limit of its own is of no use to a process that is exempt from it, but what it starts inherits it.
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    locked
}
