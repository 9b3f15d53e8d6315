//! Everything in the lab stands for a machine of its own, which would not wait for what this one has to do beside them.
//!
//! Without the right to these, measurements are noisier and nothing else.

use nix::errno::Errno;
use nix::libc;

/// The lowest of the real-time priorities: below a keeper.
const PRIORITY: libc::c_int = 1;

/// From -20 (first) to 19.
const NICE: libc::c_int = -15;

/// For clients, servers and observers: puts the calling thread before all ordinary ones; threads it starts are ordinary.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
pub(super) fn before_ordinary_threads() {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel only reads the parameters, which live until the call returns; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    let _ = Errno::result(result);
}

/// For nodes: the calling thread and what it starts are ordinary, but come first among their like.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
pub(super) fn first_among_ordinary_threads() {
    // SAFETY: it takes and returns numbers; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    let _ = Errno::result(result);
}
