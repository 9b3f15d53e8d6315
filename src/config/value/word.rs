//! Values of which there are only a few.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{FromText, Hint};
use crate::config::log_format::LogFormat;
use crate::config::model::{
    AccessLog, ConnectionMode, Facility, HashMethod, LogDestination, LogLevel, LogLines, Mode, Observe, Reuse,
    SameSite, WhenAllDown,
};
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

/// One of `retry_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum RetryOn {
    ConnectionFailure,
    EmptyResponse,
    JunkResponse,
    ResponseTimeout,
    Status(u16),
    All,
}

impl FromText for RetryOn {
    const ACCEPTED: &'static str = "\"connection_failure\", \"empty_response\", \"junk_response\", \"response_timeout\", a status from 400 to 599, or \"all_retryable_errors\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if let Ok(status @ 400..=599) = text.parse::<u16>() {
            return Err(Some(format!("write it without quotes: `{status}`")));
        }
        let words = [
            ("connection_failure", RetryOn::ConnectionFailure),
            ("empty_response", RetryOn::EmptyResponse),
            ("junk_response", RetryOn::JunkResponse),
            ("response_timeout", RetryOn::ResponseTimeout),
            ("all_retryable_errors", RetryOn::All),
        ];
        word(text, &words, &[])
    }

    fn from_number(number: i64) -> Result<Self, Hint> {
        match u16::try_from(number) {
            Ok(status @ 400..=599) => Ok(RetryOn::Status(status)),
            _ => Err(None),
        }
    }
}

impl FromText for Reuse {
    const ACCEPTED: &'static str = "\"never\", \"safe\" or \"always\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("never", Reuse::Never), ("safe", Reuse::Safe), ("always", Reuse::Always)], &[])
    }
}

impl FromText for ConnectionMode {
    const ACCEPTED: &'static str = "\"keep_alive\", \"server_close\" or \"close\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let words = [
            ("keep_alive", ConnectionMode::KeepAlive),
            ("server_close", ConnectionMode::ServerClose),
            ("close", ConnectionMode::Close),
        ];
        word(text, &words, &[])
    }
}

/// `cookie.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum CookieWord {
    Prefix,
    Rewrite,
    Insert,
}

impl FromText for CookieWord {
    const ACCEPTED: &'static str = "\"prefix\", \"insert\" or \"rewrite\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let words = [("prefix", CookieWord::Prefix), ("insert", CookieWord::Insert), ("rewrite", CookieWord::Rewrite)];
        word(text, &words, &[])
    }
}

impl FromText for SameSite {
    const ACCEPTED: &'static str = "\"strict\", \"lax\" or \"none\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)], &[])
    }
}

/// `stick.by`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum StickWord {
    Source,
    Header,
    Cookie,
}

impl FromText for StickWord {
    const ACCEPTED: &'static str = "\"source\", \"header\" or \"cookie\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let words = [("source", StickWord::Source), ("header", StickWord::Header), ("cookie", StickWord::Cookie)];
        word(text, &words, &[])
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
    const ACCEPTED: &'static str = "\"stderr\", \"stdout\", \"journald\", \"syslog\", a file's absolute path, or a syslog daemon such as \"udp:192.0.2.1:514\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.starts_with('/') {
            return PathBuf::from_text(text).map(LogDestination::File);
        }
        if let Some(address) = text.strip_prefix("udp:") {
            return SocketAddr::from_text(address).map(LogDestination::Udp);
        }
        let words = [
            ("stderr", LogDestination::Stderr),
            ("stdout", LogDestination::Stdout),
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

impl FromText for LogLines {
    const ACCEPTED: &'static str = "\"all\", \"requests\" or \"processes\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        word(text, &[("all", Self::All), ("requests", Self::Requests), ("processes", Self::Processes)], &[])
    }
}

impl FromText for Facility {
    const ACCEPTED: &'static str = "a syslog facility: \"daemon\", \"user\", \"local0\" to \"local7\", …";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let near = |()| nearest(text, Facility::NAMES).map(|name| format!("did you mean \"{name}\"?"));
        text.parse().map_err(near)
    }
}
