//! `relevo run`: the node. And the hidden commands that its processes are started with.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, finish, on_this_thread};
use crate::config::Config;
use crate::process::log::{self, Log};
use crate::{guard, keeper};

/// Run the node: the balancer and, where virtual routers are configured, its part in the election
///
/// Runs in the foreground and logs to stderr. SIGTERM and Ctrl-C hand over to the other node first.
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
    with_log(&config, "guard", |log| finish(on_this_thread(guard::run(&arguments.config.config, log))))
}

/// The keeper, which the guard starts.
pub(super) fn keeper(arguments: &Arguments) -> ExitCode {
    let config = match arguments.config.load() {
        Ok(config) => config,
        Err(status) => return status,
    };
    let targets = config.clone();
    with_log(&targets, "keeper", |log| finish(on_this_thread(keeper::run(config, log)).map(|()| ExitCode::SUCCESS)))
}

/// Runs with the log of this process, or says why there is none.
fn with_log(config: &Config, process: &'static str, run: impl FnOnce(Log) -> ExitCode) -> ExitCode {
    match log::init(&config.log_targets, process) {
        Ok(guard) => run(guard.log().clone()),
        Err(error) => finish(Err(error.to_string())),
    }
}
