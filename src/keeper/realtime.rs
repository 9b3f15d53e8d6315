//! Load never delays the election: real-time scheduling and locked memory, as far as they can be had.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MlockAllFlags, MmapAdvise, madvise, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Low among real-time priorities: above every ordinary process, below the kernel's own threads that matter.
const PRIORITY: i32 = 10;
/// A keeper that computes for so long without ever waiting has gone wrong: the kernel kills it, and the guard starts a new one.
const CPU_LIMIT_US: u64 = 1_000_000;

/// Tries everything, and returns in words what could not be had.
pub(super) fn acquire(has_election: bool) -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = limit_cpu().and_then(|()| schedule()) {
        let consequence = if has_election { ", so that load may delay the election" } else { "" };
        missing.push(format!("no real-time priority ({error}){consequence}"));
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

/// Locks what is in memory and what will be, but only where no limit applies: with one, a later allocation would fail.
///
/// Whether one applies is found by trying under a limit that this process exceeds already.
fn lock_memory() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    let is_limited = hard != libc::RLIM_INFINITY;
    setrlimit(Resource::RLIMIT_MEMLOCK, if is_limited { 0 } else { hard }, hard)?;
    // Without "on fault" the address space that the allocator keeps in reserve would become memory.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let locked = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault);
    if is_limited {
        // Of no use to a process that is exempt from it, but what it starts inherits it.
        setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    }
    locked?;
    load_program()
}

/// Brings the whole program into memory: the code of a takeover has never run when it is needed.
#[expect(unsafe_code, reason = "madvise is about raw addresses")]
fn load_program() -> Result<(), Errno> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|_| Errno::ENOENT)?;
    for (start, length) in maps.lines().filter_map(file_mapping) {
        // SAFETY: it reads pages of a mapping that the kernel has just listed, and changes nothing.
        match unsafe { madvise(start, length, MmapAdvise::MADV_POPULATE_READ) } {
            // Kernels before 5.14 do not know it; pages then come as they are used.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `55d0c0000000-55d0c0123000 r-xp 00001000 fe:00 1234 /usr/bin/relevo`: start and length, where it is a readable file.
fn file_mapping(line: &str) -> Option<(NonNull<c_void>, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_readable = fields.next()?.starts_with('r');
    let is_file = fields.nth(3)?.starts_with('/');
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let address = NonNull::new(start as *mut c_void)?;
    (is_readable && is_file).then_some((address, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readable_files_are_brought_into_memory() {
        let file = file_mapping("7f00a000-7f00c000 r-xp 00001000 fe:00 1234    /usr/bin/relevo").unwrap();
        assert_eq!((file.0.as_ptr() as usize, file.1), (0x7f00_a000, 0x2000));
        assert_eq!(file_mapping("7f00a000-7f00c000 ---p 00001000 fe:00 1234    /usr/bin/relevo"), None);
        assert_eq!(file_mapping("7f00a000-7f00c000 rw-p 00000000 00:00 0       [heap]"), None);
        assert_eq!(file_mapping("7f00a000-7f00c000 rw-p 00000000 00:00 0"), None);
    }
}
