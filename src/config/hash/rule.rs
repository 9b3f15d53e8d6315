//! Rules, and what else is done to a request, as they go into the digest.

use serde_json::{Value, json};

use super::{Table, condition, microseconds};
use crate::config::model::{
    Action, Destination, FieldName, ForwardedFor, HeaderEdits, LimitKey, Network, PrefixChange, RateLimit, RequestId,
    Rewrite, Rule, Template,
};

pub(super) fn rule(rule: &Rule) -> Value {
    let Rule { when, action } = rule;
    let (key, action) = self::action(action);
    Table::new().with("when", condition::members(when), json!({})).with(key, action, Value::Null).done()
}

pub(super) fn forwarded_for(how: &ForwardedFor) -> Value {
    let ForwardedFor { except, only_if_absent } = how;
    if except.is_empty() && !only_if_absent {
        return true.into();
    }
    json!({ "except": networks(except), "only_if_absent": only_if_absent })
}

pub(super) fn networks(networks: &[Network]) -> Value {
    networks.iter().map(ToString::to_string).collect()
}

pub(super) fn request_id(id: &RequestId) -> Value {
    let RequestId { header, keep } = id;
    Table::new().with("header", header.0.as_str(), "x-request-id").with("keep", *keep, true).done()
}

fn action(action: &Action) -> (&'static str, Value) {
    match action {
        Action::Deny(status) => ("deny", json!(status)),
        Action::Redirect { to, status } => {
            let to = match to {
                Destination::Prefix(change) => prefix(change),
                Destination::Location(location) => json!({ "location": location.to_string() }),
                Destination::Scheme(scheme) => json!({ "scheme": scheme }),
            };
            ("redirect", Table::new().with("to", to, Value::Null).with("status", *status, 302).done())
        }
        Action::Rewrite(rewrite) => {
            let rewrite = match rewrite {
                Rewrite::Prefix(change) => prefix(change),
                Rewrite::Path(path) => json!({ "path": path.to_string() }),
                Rewrite::Regex { pattern, with } => json!({ "regex": pattern.as_str(), "with": with }),
                Rewrite::Normalize => json!({ "normalize": true }),
            };
            ("rewrite", rewrite)
        }
        Action::RequestHeaders(edits) => ("request_headers", header_edits(edits).done()),
        Action::ResponseHeaders { status, edits } => {
            let status: Vec<_> = status.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            ("response_headers", header_edits(edits).with("status", status, json!([])).done())
        }
        Action::Respond { status, content_type, body } => {
            ("respond", json!({ "status": status, "content_type": content_type.to_string(), "body": body }))
        }
        Action::RateLimit(limit) => ("rate_limit", rate_limit(limit)),
        Action::DenyBody { pattern, first, status } => {
            ("deny_body", json!({ "regex": pattern.as_str(), "first": first, "status": status }))
        }
    }
}

fn prefix(change: &PrefixChange) -> Value {
    let PrefixChange { replace, prefix } = change;
    json!({ "prefix": prefix, "replace": replace })
}

fn header_edits(edits: &HeaderEdits) -> Table {
    let HeaderEdits { remove, set, add } = edits;
    let names: Vec<_> = remove.iter().map(|name| name.0.as_str()).collect();
    let fields = |list: &[(FieldName, Template)]| {
        list.iter().map(|(name, value)| json!([name.0.as_str(), value.to_string()])).collect::<Vec<_>>()
    };
    Table::new().with("remove", names, json!([])).with("set", fields(set), json!([])).with(
        "add",
        fields(add),
        json!([]),
    )
}

fn rate_limit(limit: &RateLimit) -> Value {
    let RateLimit { requests, per, burst, by, size } = limit;
    let header = match by {
        LimitKey::Source => None,
        LimitKey::Header(name) => Some(name.0.as_str()),
    };
    Table::new()
        .with("requests", *requests, Value::Null)
        .with("per", microseconds(*per), 1_000_000)
        .with("burst", *burst, *requests)
        .with("header", header, Value::Null)
        .with("size", *size, 65_536)
        .done()
}
