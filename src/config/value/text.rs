//! Strings that not every text will do for.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::address::is_host_name;
use super::{FromText, Hint};
use crate::config::model::Password;

/// A name that logs, cookies and commands can carry.
#[derive(Debug, Clone)]
pub(in crate::config) struct Name(pub(in crate::config) String);

impl FromText for Name {
    const ACCEPTED: &'static str = "a name of letters, digits, `-`, `_`, `.` and `:`";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if is_name(text) { Ok(Name(text.to_owned())) } else { Err(None) }
    }
}

pub(in crate::config) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    !text.is_empty() && text.bytes().all(allowed)
}

/// A cookie's name or value, an HTTP method: RFC 9110 §5.6.2 without `~`, which parts a server from a session.
#[derive(Debug, Clone)]
pub(in crate::config) struct Token(pub(in crate::config) String);

impl FromText for Token {
    const ACCEPTED: &'static str = "letters, digits, and `!#$%&'*+-.^_`|`";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|".contains(&byte);
        if !text.is_empty() && text.bytes().all(allowed) { Ok(Token(text.to_owned())) } else { Err(None) }
    }
}

/// A server's value in a cookie: a [`Token`] without `|`, which parts it from dates.
#[derive(Debug, Clone)]
pub(in crate::config) struct CookieValue(pub(in crate::config) String);

impl FromText for CookieValue {
    const ACCEPTED: &'static str = "letters, digits, and `!#$%&'*+-.^_`";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let Token(value) = Token::from_text(text)?;
        if value.contains('|') { Err(None) } else { Ok(CookieValue(value)) }
    }
}

/// The hosts that a cookie is for (RFC 6265 §5.2.3).
#[derive(Debug, Clone)]
pub(in crate::config) struct CookieDomain(pub(in crate::config) String);

impl FromText for CookieDomain {
    const ACCEPTED: &'static str = "a domain of at least two labels, such as \"example.com\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let name = text.strip_prefix('.').unwrap_or(text);
        let is_domain = is_host_name(name) && name.trim_end_matches('.').contains('.');
        if is_domain { Ok(CookieDomain(text.to_owned())) } else { Err(None) }
    }
}

/// A path of a URL, or its beginning.
#[derive(Debug, Clone)]
pub(in crate::config) struct UrlPath(pub(in crate::config) String);

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
pub(in crate::config) struct PathSuffix(pub(in crate::config) String);

impl FromText for PathSuffix {
    const ACCEPTED: &'static str = "the end of a path, such as \".png\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if is_visible(text) { Ok(PathSuffix(text.to_owned())) } else { Err(None) }
    }
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a request's Host is compared with: lower case, no port, no brackets, no dot of the root.
#[derive(Debug, Clone)]
pub(in crate::config) struct RouteHost(pub(in crate::config) String);

impl FromText for RouteHost {
    const ACCEPTED: &'static str = "a host name or address without port, such as \"www.example.com\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if is_host_name(text) {
            return Ok(RouteHost(text.trim_end_matches('.').to_ascii_lowercase()));
        }
        if let Some(address) = address_of_host(text) {
            return Ok(RouteHost(address.to_string()));
        }
        let authority = authority(text);
        let without_port = authority.rsplit_once(':').map(|(host, _)| host);
        let mut hosts = [Some(authority), without_port].into_iter().flatten();
        if let Some(host) = hosts.find(|host| is_host_name(host) || address_of_host(host).is_some()) {
            return Err(Some(format!("did you mean \"{host}\"?")));
        }
        Err(text.contains('*').then(|| match text.strip_prefix("*.") {
            Some(rest) if is_host_name(rest) => format!("write `host_suffix = \".{rest}\"`"),
            _ => "patterns are `host_suffix` and `host_regex`".to_owned(),
        }))
    }
}

/// Of a URL: host and port, without scheme and path.
pub(super) fn authority(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(authority, _)| authority)
}

/// With or without the brackets of an IPv6 address.
fn address_of_host(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The end of a request's host, lower case.
#[derive(Debug, Clone)]
pub(in crate::config) struct HostSuffix(pub(in crate::config) String);

impl FromText for HostSuffix {
    const ACCEPTED: &'static str = "the end of a host name, such as \".example.com\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if is_host_name(text.strip_prefix('.').unwrap_or(text)) {
            return Ok(HostSuffix(text.trim_end_matches('.').to_ascii_lowercase()));
        }
        let rest = text.trim_start_matches('*');
        Err((rest.len() < text.len() && is_host_name(rest.trim_start_matches('.')))
            .then(|| format!("did you mean \"{rest}\"?")))
    }
}

/// Segments of a path, without slashes at either end.
#[derive(Debug, Clone)]
pub(in crate::config) struct PathDirectory(pub(in crate::config) String);

impl FromText for PathDirectory {
    const ACCEPTED: &'static str = "one or more whole segments of a path, such as \"images\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let segments = text.trim_matches('/');
        if is_visible(segments) { Ok(PathDirectory(segments.to_owned())) } else { Err(None) }
    }
}

/// A parameter's name as it stands in the query.
#[derive(Debug, Clone)]
pub(in crate::config) struct ParameterName(pub(in crate::config) String);

impl FromText for ParameterName {
    const ACCEPTED: &'static str = "a parameter's name as it stands in the query, without spaces, `=`, `&` and `#`";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let is_name = is_visible(text) && !text.contains(['=', '&', '#']);
        if is_name { Ok(ParameterName(text.to_owned())) } else { Err(None) }
    }
}

/// What a header, a cookie or a parameter is compared with.
#[derive(Debug, Clone)]
pub(in crate::config) struct FieldValue(pub(in crate::config) String);

impl FromText for FieldValue {
    const ACCEPTED: &'static str = "one line without spaces at either end";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let is_value = text.trim() == text && !text.contains(|c: char| c.is_control() && c != '\t');
        if is_value { Ok(FieldValue(text.to_owned())) } else { Err(None) }
    }
}

/// The Host header of a check.
#[derive(Debug, Clone)]
pub(in crate::config) struct HostHeader(pub(in crate::config) String);

impl FromText for HostHeader {
    const ACCEPTED: &'static str = "a host name, with or without port";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let host = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(text, |(host, _)| host);
        if is_host_name(host) || address_of_host(host).is_some() { Ok(HostHeader(text.to_owned())) } else { Err(None) }
    }
}

/// A header's value (RFC 9110 §5.5), ASCII alone.
#[derive(Debug, Clone)]
pub(in crate::config) struct HeaderText(pub(in crate::config) String);

impl FromText for HeaderText {
    const ACCEPTED: &'static str = "a header's value: printable ASCII without spaces at its ends";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if is_printable && text.trim() == text { Ok(HeaderText(text.to_owned())) } else { Err(None) }
    }
}

/// What is looked for in a body.
#[derive(Debug, Clone)]
pub(in crate::config) struct SearchedText(pub(in crate::config) String);

impl FromText for SearchedText {
    const ACCEPTED: &'static str = "a text of 1 to 1000 bytes";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if (1..=1000).contains(&text.len()) { Ok(SearchedText(text.to_owned())) } else { Err(None) }
    }
}

/// What an agent is sent.
#[derive(Debug, Clone)]
pub(in crate::config) struct SentText(pub(in crate::config) String);

impl FromText for SentText {
    const ACCEPTED: &'static str = "a text of at most 1000 bytes";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.len() <= 1000 { Ok(SentText(text.to_owned())) } else { Err(None) }
    }
}

/// Statuses that a check expects, both ends included.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct StatusRange(pub(in crate::config) u16, pub(in crate::config) u16);

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
pub(in crate::config) struct Account(pub(in crate::config) String);

impl FromText for Account {
    const ACCEPTED: &'static str = "the name of a user or group of this host";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != ':' && c != '/';
        if !text.is_empty() && text.chars().all(allowed) { Ok(Account(text.to_owned())) } else { Err(None) }
    }
}

/// A network interface's name.
#[derive(Debug, Clone)]
pub(in crate::config) struct Interface(pub(in crate::config) String);

impl FromText for Interface {
    const ACCEPTED: &'static str = "the name of a network interface, such as \"eth1\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
        let is_interface = (1..=15).contains(&text.len()) && text.chars().all(allowed) && text != "." && text != "..";
        if text == "lo" {
            return Err(Some(
                "nobody else is on the loopback: name the interface that leads to the other node".to_owned(),
            ));
        }
        if is_interface { Ok(Interface(text.to_owned())) } else { Err(None) }
    }
}

/// `$6$salt$hash` or `$6$rounds=5000$salt$hash`, with so many characters of hash.
fn is_hash(text: &str, length: usize) -> bool {
    let hash = text.rsplit('$').next().unwrap_or_default();
    hash.len() == length && text.matches('$').count() >= 3 && sha_crypt::PasswordHashRef::new(text).is_ok()
}

/// What a browser shows when it asks for a password (RFC 9110 §11.5).
#[derive(Debug, Clone)]
pub(in crate::config) struct Realm(pub(in crate::config) String);

impl FromText for Realm {
    const ACCEPTED: &'static str = "a name of printable ASCII characters without `\"` and `\\`";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if !text.is_empty() && text.bytes().all(is_plain) { Ok(Realm(text.to_owned())) } else { Err(None) }
    }
}

impl FromText for Password {
    const ACCEPTED: &'static str = "a password, or its hash as `openssl passwd -6` makes it";

    fn from_text(text: &str) -> Result<Self, Hint> {
        if text.is_empty() {
            return Err(Some("an empty password keeps nobody out".to_owned()));
        }
        let mut parts = text.split('$');
        let (Some(""), Some(scheme), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(Password::Plain(text.to_owned()));
        };
        match scheme {
            "5" if is_hash(text, 43) => Ok(Password::ShaCrypt(text.to_owned())),
            "6" if is_hash(text, 86) => Ok(Password::ShaCrypt(text.to_owned())),
            "5" | "6" => Err(Some("this hash is not complete".to_owned())),
            _ => Err(Some("this looks like a hash of another kind; make one with `openssl passwd -6`".to_owned())),
        }
    }
}
