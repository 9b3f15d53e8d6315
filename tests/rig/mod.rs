//! What the black-box tests run on: a node, raw servers and clients, apache2, nginx and curl, and a network to run them in.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod apache;
pub(crate) mod chromium;
pub(crate) mod curl;
pub(crate) mod gate;
pub(crate) mod http;
pub(crate) mod lab;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod server;

use std::time::{Duration, Instant};

/// Longest wait for anything that has to happen; nothing is expected to take a tenth of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that has to happen; `explain` says how things are if it does not.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, explain: impl FnOnce() -> String) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}\n{}", explain());
        std::thread::sleep(Duration::from_millis(5));
    }
}
