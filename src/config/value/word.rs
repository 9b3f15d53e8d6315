//! Values of which there are only a few.

use super::{FromText, Hint};
use crate::config::model::{AccessLog, Balance, CookieMode, LogLevel, Mode};
use crate::config::nearest::nearest;

/// One of some words; `later` are those of a later release.
fn word<T: Copy>(text: &str, words: &[(&str, T)], later: &[&str]) -> Result<T, Hint> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    if later.contains(&text) {
        return Err(Some(format!("`{text}` is not supported in this version")));
    }
    Err(nearest(text, words.iter().map(|(word, _)| *word)).map(|word| format!("did you mean \"{word}\"?")))
}

impl FromText for Mode {
    const ACCEPTED: &'static str = "\"http\" or \"tcp\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("http", Mode::Http), ("tcp", Mode::Tcp)], &[])
    }
}

impl FromText for Balance {
    const ACCEPTED: &'static str = "\"round_robin\" or \"least_connections\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let later = ["static_round_robin", "first", "random", "source", "uri", "header", "parameter"];
        word(text, &[("round_robin", Balance::RoundRobin), ("least_connections", Balance::LeastConnections)], &later)
    }
}

impl FromText for CookieMode {
    const ACCEPTED: &'static str = "\"prefix\" or \"insert\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("prefix", CookieMode::Prefix), ("insert", CookieMode::Insert)], &["rewrite"])
    }
}

impl FromText for AccessLog {
    const ACCEPTED: &'static str = "\"httplog\" or \"off\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("httplog", AccessLog::HttpLog), ("off", AccessLog::Off)], &["json"])
    }
}

impl FromText for LogLevel {
    const ACCEPTED: &'static str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let words = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ];
        word(text, &words, &[])
    }
}

/// Where the log goes: there is one place today.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct LogTarget;

impl FromText for LogTarget {
    const ACCEPTED: &'static str = "\"stderr\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.starts_with('/') {
            return Err(Some("a file is not supported in this version".to_owned()));
        }
        word(text, &[("stderr", LogTarget)], &["journald", "syslog"])
    }
}
