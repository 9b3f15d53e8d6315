//! What is written of a rule, and of what servers are told of the client.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::{Condition, Number, OneOrMany, StatusRange, Table, Text, UrlPath};
use crate::config::model::{FieldName, Network, Pattern, Template};
use crate::config::value::{RedirectPrefix, RedirectStatus, Replacement, Scheme};

/// `[[frontends.NAME.rules]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Rule {
    pub(in crate::config) when: Option<Spanned<Table<Condition>>>,
    pub(in crate::config) deny: Option<Spanned<Number<400, 599>>>,
    pub(in crate::config) redirect: Option<Spanned<Table<Redirect>>>,
    pub(in crate::config) rewrite: Option<Spanned<Table<Rewrite>>>,
    pub(in crate::config) request_headers: Option<Spanned<Table<HeaderEdits>>>,
    pub(in crate::config) response_headers: Option<Spanned<Table<HeaderEdits>>>,
    pub(in crate::config) respond: Option<Spanned<Table<Respond>>>,
    pub(in crate::config) rate_limit: Option<Spanned<Table<RateLimit>>>,
    pub(in crate::config) deny_body: Option<Spanned<Table<DenyBody>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Redirect {
    pub(in crate::config) prefix: Option<Spanned<Text<RedirectPrefix>>>,
    pub(in crate::config) replace: Option<Spanned<Text<UrlPath>>>,
    pub(in crate::config) location: Option<Spanned<Text<Template>>>,
    pub(in crate::config) scheme: Option<Spanned<Text<Scheme>>>,
    pub(in crate::config) status: Option<Text<RedirectStatus>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Rewrite {
    pub(in crate::config) prefix: Option<Spanned<Text<UrlPath>>>,
    pub(in crate::config) replace: Option<Spanned<Text<UrlPath>>>,
    pub(in crate::config) path: Option<Spanned<Text<Template>>>,
    pub(in crate::config) regex: Option<Spanned<Text<Pattern>>>,
    pub(in crate::config) with: Option<Spanned<Text<Replacement>>>,
    pub(in crate::config) normalize: Option<Spanned<bool>>,
}

/// `request_headers`, and `response_headers`, which alone has `status`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct HeaderEdits {
    pub(in crate::config) set: BTreeMap<Spanned<String>, Spanned<Text<Template>>>,
    pub(in crate::config) add: BTreeMap<Spanned<String>, Spanned<Text<Template>>>,
    pub(in crate::config) remove: Option<Spanned<OneOrMany<Text<FieldName>>>>,
    pub(in crate::config) status: Option<Spanned<OneOrMany<Text<StatusRange>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Respond {
    pub(in crate::config) status: Option<Number<200, 599>>,
    pub(in crate::config) content_type: Option<Spanned<Text<Template>>>,
    pub(in crate::config) body: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RateLimit {
    pub(in crate::config) requests: Option<Number<1, 1_000_000>>,
    pub(in crate::config) per: Option<Text<Duration>>,
    pub(in crate::config) burst: Option<Number<1, 1_000_000>>,
    pub(in crate::config) header: Option<Text<FieldName>>,
    pub(in crate::config) size: Option<Number<1, 10_000_000>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct DenyBody {
    pub(in crate::config) regex: Option<Text<Pattern>>,
    pub(in crate::config) first: Option<Number<1, 65_536>>,
    pub(in crate::config) status: Option<Number<400, 599>>,
}

/// `request_id`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RequestId {
    pub(in crate::config) header: Option<Spanned<Text<FieldName>>>,
    pub(in crate::config) keep: Option<bool>,
}

/// `forwarded_for`: whether, or how.
#[derive(Debug)]
pub(in crate::config) enum ForwardedFor {
    Whether(bool),
    How { except: Option<OneOrMany<Text<Network>>>, only_if_absent: bool },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ForwardedForTable {
    except: Option<OneOrMany<Text<Network>>>,
    only_if_absent: bool,
}

impl<'de> Deserialize<'de> for ForwardedFor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ForwardedForVisitor)
    }
}

struct ForwardedForVisitor;

impl<'de> Visitor<'de> for ForwardedForVisitor {
    type Value = ForwardedFor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`true`, `false`, or a table with `except` or `only_if_absent`")
    }

    fn visit_bool<E>(self, whether: bool) -> Result<ForwardedFor, E> {
        Ok(ForwardedFor::Whether(whether))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ForwardedFor, A::Error> {
        let table = ForwardedForTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ForwardedFor::How { except: table.except, only_if_absent: table.only_if_absent })
    }
}
