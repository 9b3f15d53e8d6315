//! `relevo key`, and what goes for every command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::{directory, relevo, stderr, stdout};

#[test]
fn a_key_is_made_once_and_for_its_owner() {
    let directory = directory("key");
    let file = directory.join("pair.key");
    let file_name = file.to_str().unwrap();
    assert_eq!(relevo(&["key", file_name]).status.code(), Some(0));
    let key = fs::read_to_string(&file).unwrap();
    assert_eq!(key.len(), 65);
    assert!(key.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);

    let again = relevo(&["key", file_name]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("exists and is not overwritten"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&file).unwrap(), key);

    let other = directory.join("other.key");
    assert_eq!(relevo(&["key", other.to_str().unwrap()]).status.code(), Some(0));
    assert_ne!(fs::read_to_string(&other).unwrap(), key);

    let nowhere = relevo(&["key", "/nowhere/pair.key"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("cannot write the key file /nowhere/pair.key"), "{}", stderr(&nowhere));
}

#[test]
fn help_and_version_everywhere_and_2_for_wrong_usage() {
    for command in [&[][..], &["check"], &["key"]] {
        for option in ["--help", "--version"] {
            let output = relevo(&[command, &[option]].concat());
            assert_eq!(output.status.code(), Some(0), "{command:?} {option}");
            assert!(!stdout(&output).is_empty());
        }
    }
    assert_eq!(stdout(&relevo(&["help"])), stdout(&relevo(&["--help"])));
    assert_eq!(stdout(&relevo(&["help", "status"])), stdout(&relevo(&["status", "--help"])));
    assert!(stdout(&relevo(&["--help"])).contains("with relevo key"), "the way to a pair leads past its key");
    for words in ["enable", "maint, disable"] {
        assert!(stdout(&relevo(&["server", "--help"])).contains(words), "{words}");
    }
    assert!(stdout(&relevo(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
    for wrong in [&["chek"][..], &["key"], &["check", "--colour"], &[]] {
        assert_eq!(relevo(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn the_test_command_refuses_what_it_does_not_know() {
    for wrong in [&["--lnog"][..], &["--long", "balancer"], &["balancer"]] {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run")).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(stderr(&output).contains("is not known: it takes no argument, or --long"), "{}", stderr(&output));
    }
}
