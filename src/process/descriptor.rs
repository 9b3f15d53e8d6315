//! Puts a socket on a high descriptor number: when a process dies its kernel closes the highest first, so whoever watches
//! such a socket sees the death first (design rule 1).
#![expect(unsafe_code, reason = "F_DUPFD_CLOEXEC hands its new descriptor out as a bare number")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};

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
