//! Numbers of descriptors: which are passed on, and which are high.
//!
//! A socket is put on a high number: when a process dies its kernel closes the highest first, so whoever watches
//! such a socket sees the death first (design rule 1).
#![expect(
    unsafe_code,
    reason = "F_DUPFD_CLOEXEC hands its new descriptor out as a bare number, close_range has no wrapper"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Marks every descriptor but the standard ones: no process started later has what this one inherited or opened so far.
///
/// # Errors
/// When the kernel does not. (Before 5.11 it cannot: then nothing is done, and nothing is said.)
pub fn pass_nothing_on() -> io::Result<()> {
    // SAFETY: the call changes flags of descriptors, and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ENOSYS | Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Moves `descriptor` to the lowest free number from `first` on; CLOEXEC is set. Where that cannot be (`first` is beyond
/// RLIMIT_NOFILE) it stays where it is: it works the same, a death is only noticed later.
pub fn to_high_descriptor(descriptor: OwnedFd, first: RawFd) -> OwnedFd {
    match fcntl(&descriptor, FcntlArg::F_DUPFD_CLOEXEC(first)) {
        // SAFETY: the kernel made this descriptor just now and nobody else knows its number.
        Ok(number) => unsafe { OwnedFd::from_raw_fd(number) },
        Err(_) => descriptor,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use nix::fcntl::FdFlag;

    use super::*;

    #[test]
    fn moves_up_and_is_not_inherited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let moved = to_high_descriptor(listener.into(), 500);
        assert!(moved.as_raw_fd() >= 500);
        assert_eq!(fcntl(&moved, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
        assert_eq!(TcpListener::from(moved).local_addr().unwrap(), address);
    }

    #[test]
    fn stays_where_the_limit_forbids() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.as_raw_fd();
        assert_eq!(to_high_descriptor(listener.into(), RawFd::MAX).as_raw_fd(), number);
    }
}
