//! `relevo release`: removes every virtual address this node left behind.

use std::process::ExitCode;

use clap::Args;

use super::on_this_thread;
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
            eprintln!(
                "relevo: refused: a node runs here and looks after its addresses (it has the socket @relevo, `ss -xap` \
                 names its process); stop it first"
            );
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("relevo: {error}");
            return ExitCode::FAILURE;
        }
    };
    match on_this_thread(relevo_ha::address::release_all()) {
        Ok(released) if released.is_empty() => println!("no address was left behind"),
        Ok(released) => {
            for (interface, address) in released {
                println!("removed {address} from {interface}");
            }
        }
        Err(error) => {
            eprintln!("relevo: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
