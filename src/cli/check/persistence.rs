//! How sessions are kept, in words.

use std::fmt::Write as _;

use crate::config::model::{CookieMode, CookiePersistence, InsertedCookie, Stick, StickBy};

pub(super) fn cookie(cookie: &CookiePersistence) -> String {
    let CookiePersistence { name, mode } = cookie;
    let inserted = match mode {
        CookieMode::Prefix => return format!(", sessions kept by prefixing the cookie {name}"),
        CookieMode::Rewrite => return format!(", sessions kept by rewriting the cookie {name}"),
        CookieMode::Insert(inserted) => inserted,
    };
    let InsertedCookie { indirect, nocache, postonly, httponly, secure, domain, max_idle, max_life } = inserted;
    let mut words = format!(", sessions kept by inserting the cookie {name}");
    for (is_so, addition) in [
        (!indirect, " (seen by servers)"),
        (*nocache, " (nocache)"),
        (*postonly, " (after a POST)"),
        (*httponly, " (HttpOnly)"),
        (*secure, " (Secure)"),
    ] {
        words.push_str(if is_so { addition } else { "" });
    }
    if let Some(domain) = domain {
        let _ = write!(words, " for {domain}");
    }
    for (limit, addition) in [(max_idle, "idle for"), (max_life, "old for")] {
        if let Some(limit) = limit {
            let _ = write!(words, ", not when {addition} {limit:?}");
        }
    }
    words
}

pub(super) fn stick(stick: &Stick) -> String {
    let Stick { by, expire, size } = stick;
    let by = match by {
        StickBy::Source => "client address".to_owned(),
        StickBy::Header(name) => format!("header {name}"),
        StickBy::Cookie(name) => format!("cookie {name}"),
    };
    format!("sessions remembered by {by}: {size}, each for {expire:?}")
}
