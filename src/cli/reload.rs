//! `relevo reload`: has the running node read its configuration again.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::control::{self, ControlSocket};

/// For the whole answer: a little longer than the node gives itself.
const PATIENCE: Duration = Duration::from_secs(25);

/// Have the running node read its configuration again, without breaking a connection
///
/// The file that `relevo run` was started with is checked whole; if anything in it is wrong, or needs a restart, nothing changes.
/// Prints what has changed, or why nothing has.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    control: ControlSocket,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let answer = arguments.control.path().and_then(|socket| control::ask(&socket, "reload", PATIENCE));
    match answer {
        Ok(answer) => show(&String::from_utf8_lossy(&answer)),
        Err(error) => {
            eprintln!("relevo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(answer: &str) -> ExitCode {
    let answer = answer.trim_end();
    if let Some(changes) = answer.strip_prefix("ok: ") {
        println!("the configuration was reloaded: {changes}");
        return ExitCode::SUCCESS;
    }
    let reason = answer.strip_prefix("error: ").unwrap_or(answer);
    // What is wrong in a file takes many lines, and is shown as `relevo check` shows it.
    let separator = if reason.contains('\n') { "\n" } else { " " };
    eprintln!("relevo: the configuration stays as it is:{separator}{reason}");
    ExitCode::FAILURE
}
