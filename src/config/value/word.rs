//! Values of which there are only a few.

use super::{FromText, Hint};
use crate::config::model::{AccessLog, CookieMode, HashMethod, LogLevel, Mode, Observe, WhenAllDown};
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

/// `balance.algorithm`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Algorithm {
    RoundRobin,
    StaticRoundRobin,
    LeastConnections,
    First,
    Random,
    Source,
    Uri,
    Header,
    Parameter,
}

impl FromText for Algorithm {
    const ACCEPTED: &'static str = "\"round_robin\", \"static_round_robin\", \"least_connections\", \"first\", \"random\", \"source\", \"uri\", \"header\" or \"parameter\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let words = [
            ("round_robin", Algorithm::RoundRobin),
            ("static_round_robin", Algorithm::StaticRoundRobin),
            ("least_connections", Algorithm::LeastConnections),
            ("first", Algorithm::First),
            ("random", Algorithm::Random),
            ("source", Algorithm::Source),
            ("uri", Algorithm::Uri),
            ("header", Algorithm::Header),
            ("parameter", Algorithm::Parameter),
        ];
        word(text, &words, &[])
    }
}

impl FromText for HashMethod {
    const ACCEPTED: &'static str = "\"map_based\" or \"consistent\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("map_based", HashMethod::MapBased), ("consistent", HashMethod::Consistent)], &[])
    }
}

impl FromText for WhenAllDown {
    const ACCEPTED: &'static str = "\"reject\" or \"try_all\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("reject", WhenAllDown::Reject), ("try_all", WhenAllDown::TryAll)], &[])
    }
}

impl FromText for Observe {
    const ACCEPTED: &'static str = "\"off\", \"layer4\" or \"layer7\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("off", Observe::Off), ("layer4", Observe::Layer4), ("layer7", Observe::Layer7)], &[])
    }
}

/// `health.on_refused`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum OnRefused {
    Retry,
    MarkDown,
}

impl FromText for OnRefused {
    const ACCEPTED: &'static str = "\"retry\" or \"mark_down\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("retry", OnRefused::Retry), ("mark_down", OnRefused::MarkDown)], &[])
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
