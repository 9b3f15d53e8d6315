//! How sessions are kept, in words.

use std::fmt::Write as _;

use crate::config::model::{CookieAttributes, CookieMode, CookiePersistence, InsertedCookie, Stick, StickBy};

pub(super) fn cookie(cookie: &CookiePersistence) -> String {
    let CookiePersistence { name, mode, attributes } = cookie;
    let CookieAttributes { httponly, secure, domain, same_site } = attributes;
    let (manner, inserted) = match mode {
        CookieMode::Prefix => ("prefixing", None),
        CookieMode::Rewrite => ("rewriting", None),
        CookieMode::Insert(inserted) => ("inserting", Some(inserted)),
    };
    let mut words = format!(", sessions kept by {manner} the cookie {name}");
    let is_so = |is_so: fn(&InsertedCookie) -> bool| inserted.is_some_and(is_so);
    for (is_so, addition) in [
        (is_so(|cookie| !cookie.indirect), " (seen by servers)"),
        (is_so(|cookie| cookie.nocache), " (nocache)"),
        (is_so(|cookie| cookie.postonly), " (after a POST)"),
        (*httponly && inserted.is_some(), " (HttpOnly)"),
        (!httponly && inserted.is_none(), " (not HttpOnly)"),
        (*secure, " (Secure)"),
    ] {
        words.push_str(if is_so { addition } else { "" });
    }
    if let Some(same_site) = same_site {
        let _ = write!(words, " (SameSite={})", same_site.word());
    }
    if let Some(domain) = domain {
        let _ = write!(words, " for {domain}");
    }
    let Some(InsertedCookie { max_idle, max_life, .. }) = inserted else { return words };
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
