//! A running pair with its client and servers, alone on the machine.

use std::path::Path;
use std::sync::MutexGuard;

use relevo::lab::directory::Directory;
use relevo::lab::pair::{Options, Pair};

use super::node::BINARY;
use super::place::switch;

/// One at a time, or the clock would measure the neighbours.
pub(crate) struct Lab {
    pub(crate) pair: Pair,
    /// Where its configurations, its key and its messages are.
    pub(crate) directory: Directory,
    _alone: MutexGuard<'static, ()>,
}

/// Starts the pair. `None` where namespaces cannot be made, which CI does not accept.
pub(crate) fn lab(change: impl FnOnce(&mut Options)) -> Option<Lab> {
    let (_, alone) = switch()?;
    let directory = Directory::new().unwrap();
    let mut options = Options::new(Path::new(BINARY), directory.path());
    change(&mut options);
    let pair = Pair::start(&options).unwrap();
    Some(Lab { pair, directory, _alone: alone })
}
