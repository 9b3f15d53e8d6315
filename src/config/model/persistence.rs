//! `backends.NAME.cookie` and `backends.NAME.stick`: how a session stays at its server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `cookie`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookiePersistence {
    /// The cookie's name.
    pub name: String,
    /// How it carries the server.
    pub mode: CookieMode,
    /// Those of a cookie that we set ourselves.
    pub attributes: CookieAttributes,
}

/// What a browser is told of a cookie (RFC 6265 §4.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookieAttributes {
    /// Scripts of a page do not see it.
    pub httponly: bool,
    /// Browsers send it over TLS alone.
    pub secure: bool,
    /// The hosts that browsers send it to; `None`: the one that set it.
    pub domain: Option<String>,
    /// Whether it comes with requests that another site causes; `None`: as the browser likes.
    pub same_site: Option<SameSite>,
}

/// `cookie.same_site`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SameSite {
    /// With none.
    Strict,
    /// With those that lead a browser from there to here.
    Lax,
    /// With all.
    None,
}

impl SameSite {
    /// As it stands in Set-Cookie.
    pub fn word(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

impl CookiePersistence {
    /// Does its value carry dates?
    pub fn is_dated(&self) -> bool {
        matches!(&self.mode, CookieMode::Insert(cookie) if cookie.max_idle.is_some() || cookie.max_life.is_some())
    }
}

/// `cookie.mode`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CookieMode {
    /// The application's own cookie, its value prefixed with `SERVER~` on the way out and stripped on the way in.
    Prefix,
    /// A cookie that the application sets when it wants to, its value replaced by the server's.
    Rewrite,
    /// A cookie of ours, set when the client brought none that is valid.
    Insert(InsertedCookie),
}

/// What goes with mode `insert` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsertedCookie {
    /// The server does not see it.
    pub indirect: bool,
    /// A response that sets it is `private` to caches.
    pub nocache: bool,
    /// Only responses to POST set it.
    pub postonly: bool,
    /// Ignored when it has not been used for so long.
    pub max_idle: Option<Duration>,
    /// Ignored when it was first set so long ago.
    pub max_life: Option<Duration>,
}

/// `stick`: a table of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stick {
    /// What a session is known by.
    pub by: StickBy,
    /// Forgotten when not used for so long.
    pub expire: Duration,
    /// So many are remembered, the ones used last.
    pub size: usize,
}

/// `stick.by`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StickBy {
    /// The client's address.
    Source,
    /// The first value of this header of the request. The name is in lower case.
    Header(String),
    /// The value of this cookie, which the application sets.
    Cookie(String),
}
