//! Rules, and what else is done to a request, in words.

use super::condition;
use crate::config::model::{
    Action, Destination, Frontend, HeaderEdits, LimitKey, PrefixChange, RateLimit, Rewrite, Rule,
};

/// Such as ", adds X-Forwarded-For, Forwarded".
pub(super) fn additions(frontend: &Frontend) -> String {
    let mut names = Vec::new();
    if let Some(forwarding) = &frontend.forwarding {
        let known = [
            (forwarding.forwarded_for.is_some(), "X-Forwarded-For"),
            (forwarding.forwarded, "Forwarded"),
            (forwarding.proto, "X-Forwarded-Proto"),
            (forwarding.host, "X-Forwarded-Host"),
        ];
        names.extend(known.into_iter().filter(|(is_on, _)| *is_on).map(|(_, name)| name));
    }
    names.extend(frontend.request_id.as_ref().map(|id| id.header.0.as_str()));
    if names.is_empty() { String::new() } else { format!(", adds {}", names.join(", ")) }
}

/// Such as "path begins with /old/: redirects to /new/ (301)".
pub(super) fn words(rule: &Rule) -> String {
    let Rule { when, action } = rule;
    let action = self::action(action);
    if when.0.is_empty() { format!("always: {action}") } else { format!("{}: {action}", condition::words(when)) }
}

fn action(action: &Action) -> String {
    match action {
        Action::Deny(status) => format!("denied with {status}"),
        Action::Redirect { to, status } => {
            let to = match to {
                Destination::Prefix(change) => prefix(change),
                Destination::Location(location) => location.to_string(),
                Destination::Scheme(scheme) => format!("the same by {scheme}"),
            };
            format!("redirected to {to} ({status})")
        }
        Action::Rewrite(Rewrite::Prefix(change)) => format!("the path becomes {}", prefix(change)),
        Action::Rewrite(Rewrite::Path(path)) => format!("the path becomes {path}"),
        Action::Rewrite(Rewrite::Regex { pattern, with }) => {
            format!("in the path {} becomes {with}", pattern.as_str())
        }
        Action::Rewrite(Rewrite::Normalize) => "the path is normalized".to_owned(),
        Action::RequestHeaders(edits) => format!("request headers: {}", edited(edits)),
        Action::ResponseHeaders { status, edits } if status.is_empty() => {
            format!("response headers: {}", edited(edits))
        }
        Action::ResponseHeaders { status, edits } => {
            let ranges: Vec<_> = status.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            format!("response headers of {}: {}", ranges.join(" or "), edited(edits))
        }
        Action::Respond { status, body, .. } => format!("answered with {status} and {} bytes", body.len()),
        Action::RateLimit(RateLimit { requests, per, burst, by, .. }) => {
            let by = match by {
                LimitKey::Source => "each client".to_owned(),
                LimitKey::Header(name) => format!("each {}", name.0),
            };
            format!("{by} has {requests} requests in {per:?}, {burst} at once")
        }
        Action::DenyBody { pattern, first, status } => {
            format!("denied with {status} if the first {first} bytes of the body match {}", pattern.as_str())
        }
    }
}

fn prefix(change: &PrefixChange) -> String {
    match &change.replace {
        Some(replaced) => format!("{} instead of {replaced}", change.prefix),
        None => format!("{} before it", change.prefix),
    }
}

fn edited(edits: &HeaderEdits) -> String {
    let HeaderEdits { remove, set, add } = edits;
    let mut parts = Vec::new();
    for (verb, list) in [("sets", set), ("adds", add)] {
        parts.extend(list.iter().map(|(name, value)| format!("{verb} {}: {value}", name.0)));
    }
    parts.extend(remove.iter().map(|name| format!("removes {}", name.0)));
    parts.join(", ")
}
