//! `relevo check` and `relevo key` as a person meets them: the built binary, its output and its exit status.

mod commands;
mod mistakes;
mod reference;
mod report;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SMALLEST: &str = r#"
[frontends.web]
bind = ["*:80"]
default_backend = "app"

[backends.app]
servers = [{ name = "one", address = "192.0.2.21:80" }]
"#;

fn check(name: &str, text: &str) -> Output {
    relevo(&["check", "-c", write(name, text).to_str().unwrap()])
}

fn write(name: &str, text: &str) -> PathBuf {
    let file = directory(name).join(format!("{name}.toml"));
    fs::write(&file, text).unwrap();
    file
}

/// Empty, and a test's own.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn relevo(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
    command.args(arguments).env_remove("NO_COLOR");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
