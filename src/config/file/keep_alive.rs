//! `tcp_keep_alive` of a frontend and of a backend.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::value::{Number, Text};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TcpKeepAlive {
    pub(in crate::config) idle: Option<Spanned<Text<Duration>>>,
    pub(in crate::config) interval: Option<Spanned<Text<Duration>>>,
    pub(in crate::config) count: Option<Number<1, 127>>,
}
