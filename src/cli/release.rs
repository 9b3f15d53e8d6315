//! `relevo release`: removes every virtual address this node left behind.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, on_this_thread};
use crate::config::DEFAULT_CONTROL_SOCKET;
use crate::keeper;

/// Remove every virtual address this node left behind; refuses while it runs
///
/// For systemd's ExecStopPost. An address that nobody removes goes by itself when its lease runs out.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let control_socket = match crate::config::load(&arguments.config.config) {
        Ok(config) => config.node.control_socket,
        // What was left behind has to go even if the configuration has become wrong since.
        Err(_) => PathBuf::from(DEFAULT_CONTROL_SOCKET),
    };
    if keeper::is_running(&control_socket) {
        eprintln!(
            "relevo: refused: a keeper runs here and looks after its addresses (it has {}); stop it first",
            control_socket.display()
        );
        return ExitCode::FAILURE;
    }
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
