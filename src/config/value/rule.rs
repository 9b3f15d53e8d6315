//! What rules answer with and change: texts with variables, places to redirect to.

use super::{FromText, Hint};
use crate::config::model::{Template, TemplateError, Variable};
use crate::config::nearest::nearest;

impl FromText for Template {
    const ACCEPTED: &'static str = "a line of text, with variables such as \"{host}\" in it";

    fn from_text(text: &str) -> Result<Self, Hint> {
        Template::parse(text).map_err(|error| match &error {
            TemplateError::Unknown(name) => Some(match nearest(name, Variable::names()) {
                Some(meant) => format!("{error}: did you mean `{{{meant}}}`?"),
                None => format!("{error}; there are {}", Variable::names().collect::<Vec<_>>().join(", ")),
            }),
            _ => Some(error.to_string()),
        })
    }
}

/// What stands before the path in the place that a client is sent to.
#[derive(Debug, Clone)]
pub(in crate::config) struct RedirectPrefix(pub(in crate::config) String);

impl FromText for RedirectPrefix {
    const ACCEPTED: &'static str =
        "the beginning of a path or of a URL, such as \"/new/\" or \"https://www.example.com\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_visible && leads_somewhere(text) {
            return Ok(RedirectPrefix(text.to_owned()));
        }
        Err(None)
    }
}

/// A path of this host, or a URL with a host. `//` would be another host.
pub(in crate::config) fn leads_somewhere(text: &str) -> bool {
    let has_host = |scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    has_host("http://") || has_host("https://") || text.starts_with('/') && !text.starts_with("//")
}

/// What a pattern's find becomes in a path.
#[derive(Debug, Clone)]
pub(in crate::config) struct Replacement(pub(in crate::config) String);

impl FromText for Replacement {
    const ACCEPTED: &'static str = "a part of a path without spaces, such as \"/v2/$1\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_visible { Ok(Replacement(text.to_owned())) } else { Err(None) }
    }
}

/// The scheme that a client is sent to.
#[derive(Debug, Clone)]
pub(in crate::config) struct Scheme(pub(in crate::config) &'static str);

impl FromText for Scheme {
    const ACCEPTED: &'static str = "\"https\" or \"http\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        ["https", "http"].into_iter().find(|scheme| *scheme == text).map(Scheme).ok_or(None)
    }
}

/// The status of a redirect.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct RedirectStatus(pub(in crate::config) u16);

impl FromText for RedirectStatus {
    const ACCEPTED: &'static str = "301, 302, 303, 307 or 308";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let status = [301, 302, 303, 307, 308].into_iter().find(|status| status.to_string() == text);
        Err(status.map(|status| format!("write it without quotes: `{status}`")))
    }

    fn from_number(number: i64) -> Result<Self, Hint> {
        [301, 302, 303, 307, 308].into_iter().find(|status| i64::from(*status) == number).map(Self).ok_or(None)
    }
}
