//! What this node lacks: an error of its own says nothing of a server.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// Is it this node that has no descriptor, port, memory or address left, or may not do this?
pub fn is_ours(error: &io::Error) -> bool {
    use Errno::{
        EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM,
    };
    let Some(number) = error.raw_os_error() else {
        return matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::AddrNotAvailable);
    };
    matches!(
        Errno::from_raw(number),
        EMFILE
            | ENFILE
            | ENOMEM
            | ENOBUFS
            | ENOSPC
            | EADDRNOTAVAIL
            | EADDRINUSE
            | EACCES
            | EPERM
            | EAGAIN
            | EAFNOSUPPORT
    )
}

const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

/// Says what is lacking, and not with every single thing that fails for it.
#[derive(Debug, Default)]
pub struct Complaint(Mutex<Option<Instant>>);

impl Complaint {
    /// Says it, unless that was done a moment ago.
    pub fn make(&self, say: impl FnOnce()) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= BETWEEN_COMPLAINTS) {
            *last = Some(Instant::now());
            drop(last);
            say();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_does_is_not_what_a_node_lacks() {
        use Errno::{
            EACCES, EADDRNOTAVAIL, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM,
            EPIPE, ETIMEDOUT,
        };
        for ours in [EMFILE, ENFILE, ENOMEM, ENOBUFS, EADDRNOTAVAIL, EACCES, EPERM] {
            assert!(is_ours(&io::Error::from(ours)), "{ours}");
        }
        for theirs in [ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ETIMEDOUT, EPIPE] {
            assert!(!is_ours(&io::Error::from(theirs)), "{theirs}");
        }
        assert!(!is_ours(&io::Error::other("the server's name does not resolve")));
    }

    #[test]
    fn it_is_said_once() {
        let (complaint, mut said) = (Complaint::default(), 0);
        for _ in 0..3 {
            complaint.make(|| said += 1);
        }
        assert_eq!(said, 1);
    }
}
