//! The values of the file that are more than a string or a number: each is read whole, or refused with what is accepted.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use relevo_ha::VirtualAddress;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, SeqAccess, Unexpected, Visitor};
use toml::Spanned;

use super::model::{AccessLog, Balance, CookieMode, LogLevel, Mode, ServerAddress};
use super::nearest::nearest;

/// Why a value is refused, where more can be said than what is accepted.
pub(super) type Hint = Option<String>;

/// A value that is written as a string.
pub(super) trait FromText: Sized {
    /// Ends the sentence "expected …".
    const ACCEPTED: &'static str;

    fn from_text(text: &str) -> Result<Self, Hint>;

    /// A number where a string is expected.
    fn from_number(_number: i64) -> Result<Self, Hint> {
        Err(None)
    }
}

/// Reads a [`FromText`].
#[derive(Debug, Clone)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::ACCEPTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
        T::from_text(text).map(Text).map_err(|hint| with_hint(E::invalid_value(Unexpected::Str(text), &self), hint))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Text<T>, E> {
        T::from_number(number)
            .map(Text)
            .map_err(|hint| with_hint(E::invalid_type(Unexpected::Signed(number), &self), hint))
    }
}

/// A hint travels on a line of its own behind serde's message, which never has more than one.
fn with_hint<E: Error>(error: E, hint: Hint) -> E {
    match hint {
        Some(hint) => E::custom(format!("{}\n{hint}", error.to_string().trim_end())),
        None => error,
    }
}

/// A whole number within limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor::<MIN, MAX>)
    }
}

struct NumberVisitor<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> NumberVisitor<MIN, MAX> {
    fn within(number: i64) -> Option<Number<MIN, MAX>> {
        u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).map(Number)
    }
}

impl<const MIN: u32, const MAX: u32> Visitor<'_> for NumberVisitor<MIN, MAX> {
    type Value = Number<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Self::within(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let number = text.trim().parse().ok().and_then(Self::within);
        let hint = number.map(|number| format!("write it without quotes: `{}`", number.0));
        Err(with_hint(E::invalid_type(Unexpected::Str(text), &self), hint))
    }
}

/// A value, or a list of at least one.
#[derive(Debug, Clone)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<Spanned<T>>),
}

impl<T> OneOrMany<T> {
    /// Each with its place.
    pub(super) fn elements(this: Spanned<Self>) -> Vec<Spanned<T>> {
        let span = this.span();
        match this.into_inner() {
            OneOrMany::One(value) => vec![Spanned::new(span, value)],
            OneOrMany::Many(values) => values,
        }
    }

    /// Without their places.
    pub(super) fn values(self) -> Vec<T> {
        match self {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values.into_iter().map(Spanned::into_inner).collect(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(OneOrMany::Many(values))
    }
}

impl FromText for Duration {
    const ACCEPTED: &'static str = "a time with its unit (ms, s, m, h), such as \"100ms\" or \"5s\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        match parse_duration(text) {
            Some(Duration::ZERO) => Err(Some("it must be longer than zero".to_owned())),
            Some(duration) => Ok(duration),
            None => Err(meant_duration(text).map(|meant| format!("did you mean \"{meant}\"?"))),
        }
    }

    fn from_number(number: i64) -> Result<Self, Hint> {
        Err((number > 0).then(|| format!("a number alone has no unit: write \"{number}s\" or \"{number}ms\"")))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let nanoseconds: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let fraction = fraction.parse::<u64>().ok()? * nanoseconds / 10u64.pow(fraction.len() as u32);
    let whole = whole.parse::<u64>().ok()?.checked_mul(nanoseconds)?;
    Some(Duration::from_nanos(whole.checked_add(fraction)?))
}

/// What somebody who wrote "5", "5 s" or "5sec" probably wanted.
fn meant_duration(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit = match unit.trim() {
        "" => "s",
        unit if unit.starts_with("ms") || unit.starts_with("mil") => "ms",
        unit if unit.starts_with('s') => "s",
        unit if unit.starts_with('m') => "m",
        unit if unit.starts_with('h') => "h",
        _ => return None,
    };
    let meant = format!("{number}{unit}");
    parse_duration(&meant).is_some_and(|duration| !duration.is_zero()).then_some(meant)
}

/// Where a frontend listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct BindAddress(pub(super) SocketAddr);

impl FromText for BindAddress {
    const ACCEPTED: &'static str =
        "an address with its port, such as \"*:80\" (every IPv4 address), \"192.0.2.1:80\" or \"[::]:80\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let parse = |text: &str| match text.strip_prefix("*:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            None => text.parse::<SocketAddr>().ok(),
        };
        if let Some(address) = parse(text) {
            return if address.port() == 0 { Err(Some(PORT.to_owned())) } else { Ok(BindAddress(address)) };
        }
        let port = text.strip_prefix(':').unwrap_or(text);
        if port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(Some(format!("did you mean \"*:{port}\"?")));
        }
        Err(None)
    }
}

const PORT: &str = "the port is a number from 1 to 65535";

impl FromText for SocketAddr {
    const ACCEPTED: &'static str = "an IP address with its port, such as \"192.0.2.1:8650\" or \"[2001:db8::1]:8650\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(Some(PORT.to_owned())),
            Ok(address) => Ok(address),
            Err(_) => Err(text.parse::<IpAddr>().ok().map(|_| "the port is missing".to_owned())),
        }
    }
}

impl FromText for IpAddr {
    const ACCEPTED: &'static str = "an IP address without port, such as \"192.0.2.1\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let without_port =
            |_| text.parse::<SocketAddr>().ok().map(|address| format!("did you mean \"{}\"?", address.ip()));
        text.parse::<IpAddr>().map_err(without_port)
    }
}

impl FromText for Ipv4Addr {
    const ACCEPTED: &'static str = "an IPv4 address, such as \"192.0.2.1\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if !is_unicast(address) => Err(Some(NOT_UNICAST.to_owned())),
            Ok(IpAddr::V4(address)) => Ok(address),
            Ok(IpAddr::V6(_)) => Err(Some(NO_IPV6.to_owned())),
            Err(_) => Err(None),
        }
    }
}

const NO_IPV6: &str = "IPv6 is not supported in this version";
const NOT_UNICAST: &str = "it must be the address of one host";

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
}

impl FromText for VirtualAddress {
    const ACCEPTED: &'static str = "an address with the prefix length of its network, such as \"192.0.2.20/24\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let (address, prefix_length) = text.split_once('/').map_or((text, None), |(a, length)| (a, Some(length)));
        let Ok(address) = address.parse::<IpAddr>() else { return Err(None) };
        let IpAddr::V4(address) = address else { return Err(Some(NO_IPV6.to_owned())) };
        let Some(prefix_length) = prefix_length else {
            return Err(Some(format!("the prefix length is missing: write \"{address}/24\" if its network is a /24")));
        };
        match prefix_length.parse() {
            Ok(1..) if !is_unicast(address) => Err(Some(NOT_UNICAST.to_owned())),
            Ok(prefix_length @ 1..=32) => Ok(VirtualAddress { address, prefix_length }),
            _ => Err(Some("the prefix length is a number from 1 to 32".to_owned())),
        }
    }
}

impl FromText for ServerAddress {
    const ACCEPTED: &'static str = "an address or a host name with its port, such as \"192.0.2.21:80\", \"[2001:db8::21]:80\" or \"app.example:80\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(Some(PORT.to_owned())) } else { Ok(ServerAddress::Socket(address)) };
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(is_host_name(text).then(|| format!("the port is missing: write \"{text}:80\" for port 80")));
        };
        let port = match port.parse() {
            Ok(port @ 1..) => port,
            _ => return Err(Some(PORT.to_owned())),
        };
        if !is_host_name(host) {
            return Err(None);
        }
        Ok(ServerAddress::Name { host: host.to_owned(), port })
    }
}

/// RFC 1123 §2.1, and underscores, which people use. A last label of digits is an IPv4 address gone wrong.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && !last_is_number
}

/// A name that logs, cookies and commands can carry.
#[derive(Debug, Clone)]
pub(super) struct Name(pub(super) String);

impl FromText for Name {
    const ACCEPTED: &'static str = "a name of letters, digits, `-`, `_`, `.` and `:`";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if is_name(text) { Ok(Name(text.to_owned())) } else { Err(None) }
    }
}

pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    !text.is_empty() && text.bytes().all(allowed)
}

/// A cookie's name or value, an HTTP method: RFC 9110 §5.6.2 without `~`, which parts a server from a session.
#[derive(Debug, Clone)]
pub(super) struct Token(pub(super) String);

impl FromText for Token {
    const ACCEPTED: &'static str = "letters, digits, and `!#$%&'*+-.^_`|`";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|".contains(&byte);
        if !text.is_empty() && text.bytes().all(allowed) { Ok(Token(text.to_owned())) } else { Err(None) }
    }
}

/// A path of a URL, or its beginning.
#[derive(Debug, Clone)]
pub(super) struct UrlPath(pub(super) String);

impl FromText for UrlPath {
    const ACCEPTED: &'static str = "a path that starts with `/` and has no spaces";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.starts_with('/') && is_visible(text) {
            return Ok(UrlPath(text.to_owned()));
        }
        Err(is_visible(text).then(|| format!("did you mean \"/{text}\"?")))
    }
}

/// The end of a path.
#[derive(Debug, Clone)]
pub(super) struct PathSuffix(pub(super) String);

impl FromText for PathSuffix {
    const ACCEPTED: &'static str = "the end of a path, such as \".png\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if is_visible(text) { Ok(PathSuffix(text.to_owned())) } else { Err(None) }
    }
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a request's Host is compared with: lower case, no port.
#[derive(Debug, Clone)]
pub(super) struct RouteHost(pub(super) String);

impl FromText for RouteHost {
    const ACCEPTED: &'static str = "a host name or address without port, such as \"www.example.com\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let is_address = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if is_host_name(text) || is_address(text) {
            return Ok(RouteHost(text.to_ascii_lowercase()));
        }
        match text.rsplit_once(':') {
            Some((host, _)) if is_host_name(host) || is_address(host) => Err(Some(format!("did you mean \"{host}\"?"))),
            _ => Err(text.contains('*').then(|| "patterns are not supported in this version".to_owned())),
        }
    }
}

/// The Host header of a check.
#[derive(Debug, Clone)]
pub(super) struct HostHeader(pub(super) String);

impl FromText for HostHeader {
    const ACCEPTED: &'static str = "a host name, with or without port";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let host = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(text, |(host, _)| host);
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if is_host_name(host) || is_address { Ok(HostHeader(text.to_owned())) } else { Err(None) }
    }
}

/// Statuses that a check expects, both ends included.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusRange(pub(super) u16, pub(super) u16);

impl FromText for StatusRange {
    const ACCEPTED: &'static str = "a status or a range of them, such as \"204\" or \"200-399\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if (100..=599).contains(&first) && (first..=599).contains(&last) => {
                Ok(StatusRange(first, last))
            }
            (Ok(_), Ok(_)) => Err(Some("statuses are 100 to 599, the lower one first".to_owned())),
            _ => Err(None),
        }
    }

    fn from_number(number: i64) -> Result<Self, Hint> {
        Self::from_text(&number.to_string())
    }
}

impl FromText for PathBuf {
    const ACCEPTED: &'static str = "an absolute path, such as \"/etc/relevo/pair.key\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if Path::new(text).is_absolute() && !text.contains('\0') { Ok(PathBuf::from(text)) } else { Err(None) }
    }
}

/// A user's or group's name.
#[derive(Debug, Clone)]
pub(super) struct Account(pub(super) String);

impl FromText for Account {
    const ACCEPTED: &'static str = "the name of a user or group of this host";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != ':' && c != '/';
        if !text.is_empty() && text.chars().all(allowed) { Ok(Account(text.to_owned())) } else { Err(None) }
    }
}

/// A network interface's name.
#[derive(Debug, Clone)]
pub(super) struct Interface(pub(super) String);

impl FromText for Interface {
    const ACCEPTED: &'static str = "the name of a network interface, such as \"eth1\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
        let is_interface = (1..=15).contains(&text.len()) && text.chars().all(allowed) && text != "." && text != "..";
        if is_interface { Ok(Interface(text.to_owned())) } else { Err(None) }
    }
}

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
pub(super) struct LogTarget;

impl FromText for LogTarget {
    const ACCEPTED: &'static str = "\"stderr\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.starts_with('/') {
            return Err(Some("a file is not supported in this version".to_owned()));
        }
        word(text, &[("stderr", LogTarget)], &["journald", "syslog"])
    }
}
