//! What is in a file: not more than it may hold, and where nobody waits for a pipe, of a regular file alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_NONBLOCK;

/// Of a configuration. One of 3,000 servers has a tenth of that; what is read takes many times as much memory.
pub(super) const LONGEST: u64 = 8 << 20;

/// What is in a regular file of at most so many bytes.
///
/// # Errors
/// It cannot be read, is something else (which a reader may have to wait for), or is longer.
pub(crate) fn of_regular_file(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    // Not to hang where the path is a pipe.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    up_to(file, longest)
}

/// The same of whatever can be read, such as `/dev/stdin`.
///
/// # Errors
/// It cannot be read, or is longer.
pub(super) fn of_anything(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    up_to(File::open(path)?, longest)
}

fn up_to(file: File, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::other(format!("it has more than {longest} bytes")));
    }
    Ok(bytes)
}
