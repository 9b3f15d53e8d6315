//! `relevo key FILE`: makes the key that the nodes share.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::config::key::Key;

/// Make the key that the nodes of a pair share
///
/// Copy the file to every node, and name it there as `peering.key_file`. Only its owner may read it.
#[derive(Args)]
pub(super) struct Arguments {
    /// Where to write it; it must not exist yet
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if let Err(error) = Key::make(&arguments.file) {
        output::complain(error);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
