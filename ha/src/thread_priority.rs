//! Scheduling of a thread: what is urgent for the thread that starts another is urgent for that one too, but the kernel
//! takes it away where SCHED_RESET_ON_FORK is set.
#![allow(unsafe_code)]

use std::io;

/// Policy and priority of a thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadPriority {
    policy: libc::c_int,
    /// All there is in the kernel's `struct sched_param`.
    priority: libc::c_int,
}

impl ThreadPriority {
    /// That of the calling thread.
    pub(crate) fn current() -> io::Result<ThreadPriority> {
        // SAFETY: takes and returns numbers; 0 is the calling thread.
        let policy = checked(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) })?;
        let mut priority: libc::c_int = 0;
        // SAFETY: `priority` is valid for writes during the call.
        checked(unsafe { libc::syscall(libc::SYS_sched_getparam, 0, &raw mut priority) })?;
        Ok(ThreadPriority { policy, priority })
    }

    /// Whether it is put before all ordinary threads.
    pub(crate) fn is_real_time(self) -> bool {
        matches!(self.policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO | libc::SCHED_RR)
    }

    /// Gives it to the calling thread.
    pub(crate) fn adopt(self) -> io::Result<()> {
        // SAFETY: `self.priority` is valid for reads during the call.
        checked(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, self.policy, &raw const self.priority) })
            .map(|_zero| ())
    }
}

/// The system calls themselves, for the functions of these names fail in musl's C library.
fn checked(result: libc::c_long) -> io::Result<libc::c_int> {
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
