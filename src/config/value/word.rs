//! Values of which there are only a few.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{FromText, Hint};
use crate::config::log_format::LogFormat;
use crate::config::model::{AccessLog, Balance, CookieMode, Facility, LogDestination, LogLevel, Mode};
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
    const ACCEPTED: &'static str =
        "\"httplog\", \"json\", \"off\", or a format of HAProxy's fields such as \"%ci [%tr] %{+Q}r %ST\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.contains('%') {
            return LogFormat::parse(text).map(AccessLog::Custom).map_err(Some);
        }
        let words = ["httplog", "json", "off"];
        match text {
            "httplog" => Ok(AccessLog::HttpLog),
            "json" => Ok(AccessLog::Json),
            "off" => Ok(AccessLog::Off),
            _ => Err(nearest(text, words).map(|word| format!("did you mean \"{word}\"?"))),
        }
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

impl FromText for LogDestination {
    const ACCEPTED: &'static str = "\"stderr\", \"journald\", \"syslog\", a file's absolute path, or a syslog daemon such as \"udp:192.0.2.1:514\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.starts_with('/') {
            return PathBuf::from_text(text).map(LogDestination::File);
        }
        if let Some(address) = text.strip_prefix("udp:") {
            return SocketAddr::from_text(address).map(LogDestination::Udp);
        }
        let words = [
            ("stderr", LogDestination::Stderr),
            ("journald", LogDestination::Journald),
            ("syslog", LogDestination::Syslog),
        ];
        let hint = || text.parse::<SocketAddr>().ok().map(|address| format!("did you mean \"udp:{address}\"?"));
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, destination)| destination.clone());
        let near =
            || nearest(text, words.iter().map(|(word, _)| *word)).map(|word| format!("did you mean \"{word}\"?"));
        found.ok_or_else(|| hint().or_else(near))
    }
}

impl FromText for Facility {
    const ACCEPTED: &'static str = "a syslog facility: \"daemon\", \"user\", \"local0\" to \"local7\", …";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let near = |()| nearest(text, Facility::NAMES).map(|name| format!("did you mean \"{name}\"?"));
        text.parse().map_err(near)
    }
}
