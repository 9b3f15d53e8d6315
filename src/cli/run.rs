//! `relevo run`: the node. And the hidden commands that its processes are started with.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, finish, on_this_thread};
use crate::process::log;
use crate::{guard, keeper};

/// Run the node: the balancer and, where virtual routers are configured, its part in the election
///
/// Runs in the foreground and logs to stderr, or where `log.target` says. SIGTERM and Ctrl-C hand over to the other node first;
/// SIGHUP reads the configuration again, as `relevo reload` does, and SIGUSR1 opens the log's files again.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let config = match arguments.config.load() {
        Ok(config) => config,
        Err(status) => return status,
    };
    // Where it is, from wherever the processes will be.
    let path = match std::path::absolute(&arguments.config.config) {
        Ok(path) => path,
        Err(error) => return finish(Err(error.to_string())),
    };
    let log = match log::init(&config, "guard") {
        Ok(log) => log,
        Err(error) => return finish(Err(error.to_string())),
    };
    log::say_who_is_away(&config.log_targets);
    finish(on_this_thread(guard::run(config, path, log.log().clone())))
}

/// The keeper, which the guard starts and tells what to run.
pub(super) fn keeper() -> ExitCode {
    finish(on_this_thread(keeper::run()).map(|()| ExitCode::SUCCESS))
}
