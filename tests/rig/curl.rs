//! The real curl.

use std::process::{Command, Output, Stdio};

use relevo::lab::namespace::Namespace;

/// Runs it where the test is and returns what it printed; a failure is the test's.
#[track_caller]
pub(crate) fn curl(arguments: &[&str]) -> String {
    text(command(arguments).output().expect("curl has to be installed: tests/run does that"))
}

/// The same from a host of the lab.
#[track_caller]
pub(crate) fn curl_from(namespace: &Namespace, arguments: &[&str]) -> String {
    text(namespace.spawn(command(arguments)).unwrap().wait_with_output().unwrap())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--no-progress-meter", "--max-time", "60"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn text(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
