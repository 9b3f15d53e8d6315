//! What is done to a request before it is routed, and to its response.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Condition, FieldName, Pattern, Template};

/// `[[frontends.NAME.rules]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// For which requests.
    pub when: Condition,
    /// What is done.
    pub action: Action,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Answer with an error.
    Deny(u16),
    /// Send the client elsewhere.
    Redirect {
        /// Where.
        to: Destination,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// Change the path.
    Rewrite(Rewrite),
    /// Change the request's headers.
    RequestHeaders(HeaderEdits),
    /// Change the response's headers.
    ResponseHeaders {
        /// Inclusive ranges; empty: whatever its status.
        status: Vec<(u16, u16)>,
        /// How.
        edits: HeaderEdits,
    },
    /// Answer with this.
    Respond {
        /// 200 to 599.
        status: u16,
        /// Of the body.
        content_type: Template,
        /// As it is.
        body: String,
    },
    /// Refuse what comes too often.
    RateLimit(RateLimit),
    /// Answer with an error if something is found in the beginning of the body.
    DenyBody {
        /// What.
        pattern: Pattern,
        /// In so many bytes.
        first: usize,
        /// The error.
        status: u16,
    },
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// The same with another beginning.
    Prefix(PrefixChange),
    /// There.
    Location(Template),
    /// The same by another scheme.
    Scheme(String),
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewrite {
    /// Its beginning.
    Prefix(PrefixChange),
    /// All of it; the query stays unless there is one in it.
    Path(Template),
    /// What is found in it.
    Regex {
        /// This.
        pattern: Pattern,
        /// Becomes this, with `$1` for its groups.
        with: String,
    },
    /// Whatever means the same is written the same.
    Normalize,
}

/// Put before a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixChange {
    /// In the place of this, if the path begins so; else nothing is done.
    pub replace: Option<String>,
    /// What.
    pub prefix: String,
}

/// First what is removed, then what is set, then what is added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderEdits {
    /// All lines of these.
    pub remove: Vec<FieldName>,
    /// In the place of all lines of that name.
    pub set: Vec<(FieldName, Template)>,
    /// A line more.
    pub add: Vec<(FieldName, Template)>,
}

/// `rate_limit`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// So many requests.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
    /// So many at once.
    pub burst: u32,
    /// Whose requests are counted together.
    pub by: LimitKey,
    /// How many are remembered.
    pub size: usize,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// The client's address (IPv6: its /64).
    Source,
    /// A header's first value; those without it are one.
    Header(FieldName),
}

/// How servers are told of the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// X-Forwarded-For.
    pub forwarded_for: Option<ForwardedFor>,
    /// Forwarded (RFC 7239).
    pub forwarded: bool,
    /// X-Forwarded-Proto.
    pub proto: bool,
    /// X-Forwarded-Host.
    pub host: bool,
}

/// `forwarded_for`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedFor {
    /// Not for clients from here.
    pub except: Vec<super::Network>,
    /// Not where there is one already.
    pub only_if_absent: bool,
}

/// `request_id`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestId {
    /// Where it is.
    pub header: FieldName,
    /// One that the client sent stays, if it is short and visible.
    pub keep: bool,
}
