//! ansible-lint, at its strictest, in an environment of its own that is made once and kept under target/.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::directory;
use crate::containers::succeed;

/// Another version has other opinions.
const LINT: &str = "ansible-lint==26.10.1";
/// What it takes playbooks for.
const ANSIBLE: &str = "ansible-core==2.19.14";

#[test]
fn ansible_lint_has_no_complaint_at_its_production_profile() {
    let mut lint = Command::new(environment().join("bin/ansible-lint"));
    lint.current_dir(directory()).args(["--offline", "--strict", "--profile=production", "--nocolor"]);
    // Not a complaint about the place that it was started from.
    lint.env("PATH", format!("{}:{}", environment().join("bin").display(), std::env::var("PATH").unwrap()));
    let output = lint.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("Passed: 0 failure(s), 0 warning(s)") && text.contains("Profile 'production' was required"),
        "{text}"
    );
}

fn environment() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(LINT);
    if !place.join("complete").exists() {
        succeed(Command::new("virtualenv").args(["--quiet", "--clear"]).arg(&place));
        succeed(Command::new(place.join("bin/pip")).args(["install", "--quiet", LINT, ANSIBLE]));
        std::fs::write(place.join("complete"), "").unwrap();
    }
    place
}
