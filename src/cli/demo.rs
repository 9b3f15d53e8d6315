//! `relevo demo`: a whole pair with servers on this machine, in network namespaces.

use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::lab::isolation::{run_isolated, settle};
use crate::lab::pair::{Options, Pair};
use crate::lab::show::{Show, say};
use crate::lab::trial::READY_TIMEOUT;
use crate::lab::{Error, tour};

/// A whole pair with servers on this machine: kill the active node and watch the other take over
///
/// It lives in namespaces of its own, as root or as any user where the kernel allows user namespaces, and leaves nothing
/// behind.
#[derive(Args)]
pub(super) struct Arguments {
    /// Do every fault in turn, print the outage of each beside its limit; exit 0 only if each was within it
    #[arg(long)]
    script: bool,
    /// The demo runs itself again as the first process of its own namespace, with the id of its parent
    #[arg(long, hide = true, value_name = "PID")]
    inner: Option<u32>,
}

/// Runs until somebody quits, or to the end of the script.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let outcome = match arguments.inner {
        None => outer(arguments),
        Some(parent) => inner(arguments, parent),
    };
    outcome.unwrap_or_else(|error| {
        if !error.is_broken_pipe() {
            output::complain_plainly(format_args!("relevo demo: {error}"));
        }
        ExitCode::FAILURE
    })
}

fn outer(arguments: &Arguments) -> Result<ExitCode, Error> {
    let script = arguments.script.then_some("--script");
    let status = run_isolated(["demo"].into_iter().chain(script))?;
    // Without a code it was killed.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn inner(arguments: &Arguments, parent: u32) -> Result<ExitCode, Error> {
    let (directory, terminal) = settle(parent)?;
    let binary = std::env::current_exe().map_err(|error| Error::new("cannot find this program", error.to_string()))?;
    let options = Options { preempt: false, ..Options::new(&binary, &directory) };
    say(&format!("Starting two nodes and {} web servers …\n", options.servers))?;
    let mut pair = Pair::start(&options)?;
    if arguments.script {
        let within = tour::run(&mut pair, options.interval)?;
        return Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    pair.wait_ready(READY_TIMEOUT)?;
    Show::new(&mut pair).run(&terminal)?;
    Ok(ExitCode::SUCCESS)
}
