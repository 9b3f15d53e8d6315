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
    let answer = answer.map_err(|error| error.to_string());
    match answer.and_then(|answer| outcome(&String::from_utf8_lossy(&answer))) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("relevo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is said of the node's answer.
fn outcome(answer: &str) -> Result<String, String> {
    let answer = answer.trim_end();
    if let Some(changes) = answer.strip_prefix("ok: ") {
        return Ok(format!("the configuration was reloaded: {changes}"));
    }
    if answer.is_empty() {
        return Err(
            "the node gave no answer: it ends, or its keeper has died; its log tells what became of it".to_owned()
        );
    }
    let Some(reason) = answer.strip_prefix("error: ") else { return Err(answer.to_owned()) };
    // What is wrong in a file takes many lines, and is shown as `relevo check` shows it.
    let separator = if reason.contains('\n') { "\n" } else { " " };
    Err(format!("the configuration stays as it is:{separator}{reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_says_so_has_followed_or_stays_as_it_is() {
        let rows = [
            ("ok: server app/a came\n", Ok("the configuration was reloaded: server app/a came")),
            ("error: the file is bad\n", Err("the configuration stays as it is: the file is bad")),
            ("error: two\nlines\n", Err("the configuration stays as it is:\ntwo\nlines")),
            ("nothing is known after 20 s\n", Err("nothing is known after 20 s")),
        ];
        for (answer, expected) in rows {
            assert_eq!(outcome(answer), expected.map(str::to_owned).map_err(str::to_owned));
        }
        assert!(outcome("").unwrap_err().starts_with("the node gave no answer"));
    }
}
