//! What can go wrong in the lab: an operation, said in words, and the kernel's answer.

use std::io;

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    what: String,
    source: io::Error,
}

/// Of the lab.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Something that no system call says.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), source: io::Error::other(why.into()) }
    }

    /// Has the reader of stdout seen enough?
    pub fn is_broken_pipe(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Context<T> {
    /// `what` in the words of a person: "cannot …".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error { what: what(), source: error.into() })
    }
}
