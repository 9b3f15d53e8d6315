//! The Debian package, of the program under test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that is tested.
const BINARY: &str = env!("CARGO_BIN_EXE_relevo");

/// The program alone, without its debug information, in `directory`: less than half as much to copy to machines.
#[track_caller]
pub(crate) fn program(directory: &Path) -> PathBuf {
    let program = directory.join("relevo");
    super::succeed(Command::new("strip").arg("-o").arg(&program).arg(BINARY));
    program
}

/// Makes the package with this revision in `directory`. The binary is the one under test, without its debug information: to build
/// what users get would take minutes, and prove nothing more about package and unit.
#[track_caller]
pub(crate) fn make(directory: &Path, revision: u32) -> PathBuf {
    let found = Command::new("cargo").args(["deb", "--version"]).output().is_ok_and(|output| output.status.success());
    assert!(found, "there is no cargo-deb: cargo install --locked cargo-deb@3.8.0 (tests/run does it)");
    let target = directory.join("target");
    std::fs::create_dir_all(target.join("release")).unwrap();
    std::fs::copy(BINARY, target.join("release/relevo")).unwrap();
    let package = directory.join(format!("relevo_{revision}.deb"));
    let mut cargo = Command::new("cargo");
    cargo.args([
        "deb",
        "--no-build",
        "--strip",
        "--fast",
        "--offline",
        "--locked",
        "--deb-revision",
        &revision.to_string(),
    ]);
    cargo.arg("--output").arg(&package).env("CARGO_TARGET_DIR", target);
    super::succeed(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    package
}
