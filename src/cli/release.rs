//! `relevo release`: removes every virtual address this node left behind.

use std::process::ExitCode;

use clap::Args;

use super::{on_this_thread, output};
use crate::process::lock;

/// Remove every virtual address this node left behind; refuses while it runs
///
/// For systemd's ExecStopPost. An address that nobody removes goes by itself when its lease runs out.
#[derive(Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> ExitCode {
    let _lock = match lock::try_take() {
        Ok(lock) => lock,
        Err(lock::Error::Taken) => {
            output::complain(
                "refused: a node runs here and looks after its addresses (it has the socket @relevo, `ss -xap` \
                 names its process); stop it first",
            );
            return ExitCode::FAILURE;
        }
        Err(error) => {
            output::complain(error);
            return ExitCode::FAILURE;
        }
    };
    match on_this_thread(relevo_ha::address::release_all()) {
        Ok(released) if released.is_empty() => output::report("no address was left behind\n"),
        Ok(released) => {
            let line = |(interface, address): &(String, _)| format!("removed {address} from {interface}\n");
            output::report(&released.iter().map(line).collect::<String>())
        }
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}
