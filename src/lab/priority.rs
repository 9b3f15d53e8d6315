//! Clients, servers and observers stand for other machines: they should not wait for what this one has to do beside them.

use nix::errno::Errno;
use nix::libc;

/// The lowest of the real-time priorities: below a keeper.
const PRIORITY: libc::c_int = 1;

/// Puts the calling thread before all ordinary ones; threads and processes it starts are ordinary. Without the right to,
/// measurements are noisier and nothing else.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
pub(super) fn before_ordinary_threads() {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel only reads the parameters, which live until the call returns; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    let _ = Errno::result(result);
}
