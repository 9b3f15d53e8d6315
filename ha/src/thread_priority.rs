//! Scheduling of a thread: what is urgent for the thread that starts another is urgent for that one too, but the kernel
//! takes it away where SCHED_RESET_ON_FORK is set.
#![allow(unsafe_code)]

use std::io;

/// Policy and priority of a thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadPriority {
    policy: libc::c_int,
    parameters: libc::sched_param,
}

impl ThreadPriority {
    /// That of the calling thread.
    pub(crate) fn current() -> io::Result<ThreadPriority> {
        // SAFETY: takes and returns numbers; 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        if policy < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: `parameters` is valid for writes during the call.
        match unsafe { libc::sched_getparam(0, &raw mut parameters) } {
            0 => Ok(ThreadPriority { policy, parameters }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Gives it to the calling thread.
    pub(crate) fn adopt(self) -> io::Result<()> {
        // SAFETY: `parameters` is valid for reads during the call.
        match unsafe { libc::sched_setscheduler(0, self.policy, &raw const self.parameters) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
