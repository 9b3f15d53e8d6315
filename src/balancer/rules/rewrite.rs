//! Where a request goes instead: another path here, or another place that its client is sent to.

use bytes::Bytes;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

use super::normal_path::normal_path;
use super::template::Facts;
use crate::balancer::http::page::Refusal;
use crate::balancer::routing::condition::host;
use crate::config::model::{Destination, PrefixChange, Rewrite};

/// Where a redirect leads; `None` where it has nothing to replace.
///
/// # Errors
/// When that cannot be said: there is no host, or it is no location.
pub(super) fn location(to: &Destination, facts: &Facts<'_>) -> Result<Option<HeaderValue>, Refusal> {
    let uri = facts.head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let location = match to {
        Destination::Prefix(change) => match changed(change, uri) {
            Some(location) => location.into_bytes(),
            None => return Ok(None),
        },
        Destination::Location(template) => facts.text(template),
        Destination::Scheme(_) if host(facts.head).is_empty() => return Err(Refusal::BadHost),
        Destination::Scheme(scheme) => {
            let mut location = format!("{scheme}://").into_bytes();
            facts.write_host(&mut location);
            location.extend_from_slice(uri.as_bytes());
            location
        }
    };
    HeaderValue::from_maybe_shared(Bytes::from(of_this_host(location))).map(Some).map_err(|_| Refusal::RewrittenTarget)
}

/// What a rewritten request asks for; `None` where nothing changes.
///
/// # Errors
/// When it is too long, or no path, or has no normal form.
pub(super) fn target(rewrite: &Rewrite, facts: &Facts<'_>) -> Result<Option<Uri>, Refusal> {
    let (path, query) = (facts.head.uri.path(), facts.head.uri.query());
    let new = match rewrite {
        Rewrite::Prefix(change) => changed(change, path).map(String::into_bytes),
        Rewrite::Path(template) => Some(facts.text(template)),
        Rewrite::Regex { pattern, with } if pattern.is_match(path.as_bytes()) => {
            Some(pattern.regex().replace(path.as_bytes(), with.as_bytes()).into_owned())
        }
        Rewrite::Regex { .. } => None,
        Rewrite::Normalize => {
            let normal = normal_path(path).ok_or(Refusal::BadTarget)?;
            (normal != path.as_bytes()).then_some(normal)
        }
    };
    let Some(mut new) = new else { return Ok(None) };
    if !new.starts_with(b"/") {
        new.insert(0, b'/');
    }
    if let Some(query) = query.filter(|_| !new.contains(&b'?')) {
        new.push(b'?');
        new.extend_from_slice(query.as_bytes());
    }
    let target = PathAndQuery::from_maybe_shared(Bytes::from(new)).map_err(|_| Refusal::RewrittenTarget)?;
    Ok(Some(Uri::from(target)))
}

/// The prefix before the path, with one slash between them.
fn changed(change: &PrefixChange, path: &str) -> Option<String> {
    let rest = match &change.replace {
        Some(replaced) => path.strip_prefix(replaced.as_str())?,
        None => path,
    };
    let prefix = &change.prefix;
    let replaces_slash = change.replace.as_ref().is_some_and(|replaced| replaced.ends_with('/'));
    // Right behind a host, what is left of the path would be more of its name, or a host of its own behind an `@`.
    let needs_slash = (replaces_slash || ends_with_host(prefix))
        && !prefix.ends_with('/')
        && !rest.is_empty()
        && !rest.starts_with(['/', '?']);
    let rest = if prefix.ends_with('/') { rest.trim_start_matches('/') } else { rest };
    Some(format!("{prefix}{}{rest}", if needs_slash { "/" } else { "" }))
}

/// Is it a URL without a path?
fn ends_with_host(prefix: &str) -> bool {
    prefix.split_once("://").is_some_and(|(_, host)| !host.contains(['/', '?', '#']))
}

/// A browser takes `//host` and `/\host` for another host: a client's path must not lead there.
fn of_this_host(location: Vec<u8>) -> Vec<u8> {
    let slashes = location.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
    if slashes < 2 {
        return location;
    }
    let rest = location.get(slashes..).unwrap_or_default();
    [b"/", rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(replace: Option<&str>, prefix: &str, path: &str) -> Option<String> {
        changed(&PrefixChange { replace: replace.map(str::to_owned), prefix: prefix.to_owned() }, path)
    }

    #[test]
    fn a_prefix_stands_before_a_path_or_in_the_place_of_its_beginning() {
        for (replace, prefix, path, expected) in [
            (None, "https://www.example.com", "/a?b", Some("https://www.example.com/a?b")),
            (None, "https://www.example.com/", "/a", Some("https://www.example.com/a")),
            (None, "/new/", "/a", Some("/new/a")),
            (None, "/new", "/a", Some("/new/a")),
            (None, "/", "//evil.example/", Some("/evil.example/")),
            (Some("/old/"), "/new/", "/old/a?b", Some("/new/a?b")),
            (Some("/old/"), "/new", "/old/a", Some("/new/a")),
            (Some("/old"), "/new", "/old", Some("/new")),
            (Some("/old"), "/new", "/older", Some("/newer")),
            (Some("/old"), "/new", "/old?b", Some("/new?b")),
            (Some("/old/"), "/", "/old/", Some("/")),
            (Some("/old/"), "/new/", "/older/", None),
            // What stands behind a host stays behind it.
            (Some("/old"), "https://a.example", "/old.evil.example", Some("https://a.example/.evil.example")),
            (
                Some("/old"),
                "https://a.example:8443",
                "/old@evil.example/",
                Some("https://a.example:8443/@evil.example/"),
            ),
            (Some("/old"), "https://a.example", "/old?b", Some("https://a.example?b")),
            (Some("/old"), "https://a.example/new", "/older", Some("https://a.example/newer")),
            (None, "https://a.example", "*", Some("https://a.example/*")),
        ] {
            assert_eq!(change(replace, prefix, path).as_deref(), expected, "{replace:?} {prefix} {path}");
        }
    }

    #[test]
    fn no_path_leads_to_another_host() {
        for path in ["//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example"] {
            assert_eq!(of_this_host(path.into()), b"/evil.example", "{path}");
        }
        for location in ["/a//b", "https://a.example//b", "/"] {
            assert_eq!(of_this_host(location.into()), location.as_bytes());
        }
    }
}
