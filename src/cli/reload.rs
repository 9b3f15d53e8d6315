//! `relevo reload`: has the running node read its configuration again.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::control::{self, ControlSocket};
use super::output;
use crate::process::messages::Refused;

/// For the whole answer: a little longer than the node gives itself.
const PATIENCE: Duration = Duration::from_secs(25);

/// The exit status that tells a script to restart the node.
const NEEDS_RESTART: u8 = 3;

/// Have the running node read its configuration again, without breaking a connection
///
/// The file that `relevo run` was started with is checked whole; if anything in it is wrong, or needs a restart, nothing changes.
/// Prints what has changed, or why nothing has; ends with the status 3 where something in the file counts only when the node
/// starts, and with 1 where something is wrong.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    control: ControlSocket,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let answer = arguments.control.path().and_then(|socket| control::ask(&socket, "reload", PATIENCE));
    let outcome = answer
        .map_err(|error| Refused::from(error.to_string()))
        .and_then(|answer| outcome(&String::from_utf8_lossy(&answer)));
    match outcome {
        Ok(said) => output::report(&(said + "\n")),
        Err(Refused { reason, needs_restart }) => {
            output::complain(reason);
            if needs_restart { ExitCode::from(NEEDS_RESTART) } else { ExitCode::FAILURE }
        }
    }
}

/// What is said of the node's answer.
fn outcome(answer: &str) -> Result<String, Refused> {
    let answer = answer.trim_end();
    if let Some(changes) = answer.strip_prefix("ok: ") {
        return Ok(format!("the configuration was reloaded: {changes}"));
    }
    if answer.is_empty() {
        let reason = "the node gave no answer: it ends, or its keeper has died; its log tells what became of it";
        return Err(reason.to_owned().into());
    }
    let (reason, needs_restart) = match (answer.strip_prefix("restart: "), answer.strip_prefix("error: ")) {
        (Some(reason), _) => (reason, true),
        (None, Some(reason)) => (reason, false),
        (None, None) => return Err(answer.to_owned().into()),
    };
    // What is wrong in a file takes many lines, and is shown as `relevo check` shows it.
    let separator = if reason.contains('\n') { "\n" } else { " " };
    Err(Refused { reason: format!("the configuration stays as it is:{separator}{reason}"), needs_restart })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_says_so_has_followed_or_stays_as_it_is() {
        let rows = [
            ("ok: server app/a came\n", Ok("the configuration was reloaded: server app/a came")),
            ("error: the file is bad\n", Err(("the configuration stays as it is: the file is bad", false))),
            ("error: two\nlines\n", Err(("the configuration stays as it is:\ntwo\nlines", false))),
            ("restart: a counts later\n", Err(("the configuration stays as it is: a counts later", true))),
            ("nothing is known after 20 s\n", Err(("nothing is known after 20 s", false))),
        ];
        for (answer, expected) in rows {
            let expected = expected
                .map(str::to_owned)
                .map_err(|(reason, needs_restart)| Refused { reason: reason.to_owned(), needs_restart });
            assert_eq!(outcome(answer), expected);
        }
        assert!(outcome("").unwrap_err().reason.starts_with("the node gave no answer"));
    }
}
