//! Whether a condition holds for a request: of routes and of rules.
//!
//! What a request names is compared byte by byte as it came, its percent-encoding left alone. Nothing is allocated.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{COOKIE, HOST};
use hyper::http::request::Parts;

use crate::config::model::{Condition, Test, ValueTest};

/// What conditions look at.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The client's address; IPv4 as IPv4.
    pub source: IpAddr,
    /// The port that it connected to.
    pub destination_port: u16,
    /// Its request; in TCP mode there is none, and no test of one holds.
    pub request: Option<&'a Parts>,
}

impl Subject<'_> {
    /// Do all tests of a condition hold?
    pub fn fulfils(&self, condition: &Condition) -> bool {
        condition.0.iter().all(|test| self.passes(test))
    }

    fn passes(&self, test: &Test) -> bool {
        match test {
            Test::Source(networks) => networks.iter().any(|network| network.contains(self.source)),
            Test::DestinationPort(ports) => ports.contains(&self.destination_port),
            Test::Any(conditions) => conditions.iter().any(|condition| self.fulfils(condition)),
            Test::All(conditions) => conditions.iter().all(|condition| self.fulfils(condition)),
            Test::Not(condition) => !self.fulfils(condition),
            of_request => self.request.is_some_and(|request| passes(request, of_request)),
        }
    }
}

fn passes(request: &Parts, test: &Test) -> bool {
    let path = || request.uri.path();
    match test {
        Test::Host(hosts) => hosts.iter().any(|name| name.eq_ignore_ascii_case(host(request))),
        Test::HostSuffix(suffixes) => suffixes.iter().any(|suffix| ends_in_any_case(host(request), suffix)),
        Test::HostRegex(patterns) => patterns.iter().any(|pattern| pattern.is_match(host(request).as_bytes())),
        Test::Path(paths) => paths.iter().any(|whole| path() == whole),
        Test::PathPrefix(prefixes) => prefixes.iter().any(|prefix| path().starts_with(prefix)),
        Test::PathSuffix(suffixes) => suffixes.iter().any(|suffix| path().ends_with(suffix)),
        Test::PathDirectory(directories) => directories.iter().any(|directory| has_segments(path(), directory)),
        Test::PathRegex(patterns) => patterns.iter().any(|pattern| pattern.is_match(path().as_bytes())),
        Test::Method(methods) => methods.iter().any(|method| method.0 == request.method),
        Test::Header(headers) => headers.iter().any(|test| {
            request.headers.get_all(&test.name.0).iter().any(|value| value_passes(&test.value, value.as_bytes()))
        }),
        Test::Cookie(tests) => {
            tests.iter().any(|test| cookies(&request.headers, &test.name).any(|value| value_passes(&test.value, value)))
        }
        Test::Query(tests) => tests.iter().any(|test| {
            let query = request.uri.query().unwrap_or_default();
            parameters(query, &test.name).any(|value| value_passes(&test.value, value.as_bytes()))
        }),
        Test::Source(_) | Test::DestinationPort(_) | Test::Any(_) | Test::All(_) | Test::Not(_) => false,
    }
}

/// The host that a request names, in the case it was written in, without port and without the root's dot; an IPv6 literal
/// without its brackets.
pub fn host(request: &Parts) -> &str {
    request.headers.get(HOST).and_then(|host| host.to_str().ok()).map(host_name).unwrap_or_default()
}

fn host_name(host: &str) -> &str {
    if let Some((literal, _port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return literal;
    }
    let name = match host.split_once(':') {
        Some((_, more)) if more.contains(':') => return host,
        Some((name, _port)) => name,
        None => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn ends_in_any_case(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len());
    start.and_then(|start| text.as_bytes().get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
}

/// Are these whole segments of the path?
fn has_segments(path: &str, segments: &str) -> bool {
    path.match_indices('/').any(|(slash, _)| {
        let rest = path.get(slash + 1..).and_then(|rest| rest.strip_prefix(segments));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn value_passes(test: &ValueTest, text: &[u8]) -> bool {
    let ValueTest { value, prefix, suffix, regex } = test;
    let one_of = |list: &[String], holds: fn(&[u8], &[u8]) -> bool| {
        list.is_empty() || list.iter().any(|item| holds(text, item.as_bytes()))
    };
    one_of(value, |text, whole| text == whole)
        && one_of(prefix, <[u8]>::starts_with)
        && one_of(suffix, <[u8]>::ends_with)
        && (regex.is_empty() || regex.iter().any(|pattern| pattern.is_match(text)))
}

/// The values of a cookie, without quotes (RFC 6265 §4.1.1).
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let value =
            pair.trim_ascii().strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
        Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// The values of a parameter; one without `=` is empty.
fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}
