//! What a process holds, as the kernel tells it.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    /// Resident memory, in KiB.
    pub(crate) resident: i64,
    /// Open descriptors.
    pub(crate) descriptors: usize,
    /// Threads.
    pub(crate) threads: usize,
}

impl Holding {
    /// Now.
    pub(crate) fn of(process: Pid) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
        let count = |what: &str| fs::read_dir(format!("/proc/{process}/{what}")).unwrap().count();
        Self { resident: kib(&rollup, "Rss:"), descriptors: count("fd"), threads: count("task") }
    }
}

fn kib(text: &str, key: &str) -> i64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok());
    value.unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// As many descriptors as may be had, for this process and what it starts.
pub(crate) fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
