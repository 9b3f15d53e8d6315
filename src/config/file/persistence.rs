//! `[backends.NAME]`'s `cookie` and `stick`.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::model::SameSite;
use crate::config::value::{CookieDomain, CookieWord, Number, StickWord, Text, Token};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Cookie {
    pub(in crate::config) name: Option<Spanned<Text<Token>>>,
    pub(in crate::config) mode: Option<Text<CookieWord>>,
    pub(in crate::config) indirect: Option<Spanned<bool>>,
    pub(in crate::config) nocache: Option<Spanned<bool>>,
    pub(in crate::config) postonly: Option<Spanned<bool>>,
    pub(in crate::config) httponly: Option<Spanned<bool>>,
    pub(in crate::config) secure: Option<Spanned<bool>>,
    pub(in crate::config) domain: Option<Spanned<Text<CookieDomain>>>,
    pub(in crate::config) same_site: Option<Spanned<Text<SameSite>>>,
    pub(in crate::config) max_idle: Option<Spanned<Text<Duration>>>,
    pub(in crate::config) max_life: Option<Spanned<Text<Duration>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Stick {
    pub(in crate::config) by: Option<Spanned<Text<StickWord>>>,
    pub(in crate::config) name: Option<Spanned<Text<Token>>>,
    pub(in crate::config) expire: Option<Text<Duration>>,
    pub(in crate::config) size: Option<Number<1, 10_000_000>>,
}

impl Stick {
    /// What mode `"tcp"` does not have.
    pub(in crate::config) fn needs_a_request(&self) -> bool {
        matches!(self.by.as_ref().map(|by| by.get_ref().0), Some(StickWord::Header | StickWord::Cookie))
    }
}
