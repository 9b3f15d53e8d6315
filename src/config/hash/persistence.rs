//! How sessions are kept.

use serde_json::Value;

use super::{Table, microseconds};
use crate::config::model::{CookieAttributes, CookieMode, CookiePersistence, InsertedCookie, SameSite, Stick, StickBy};

pub(super) fn cookie(cookie: &CookiePersistence) -> Value {
    let CookiePersistence { name, mode, attributes } = cookie;
    let CookieAttributes { httponly, secure, domain, same_site } = attributes;
    let (word, inserted) = match mode {
        CookieMode::Prefix => ("prefix", None),
        CookieMode::Rewrite => ("rewrite", None),
        CookieMode::Insert(inserted) => ("insert", Some(inserted)),
    };
    let table = Table::new()
        .with("name", name.as_str(), Value::Null)
        .with("mode", word, Value::Null)
        .with("httponly", *httponly, inserted.is_none())
        .with("secure", *secure, false)
        .with("domain", domain.clone(), Value::Null)
        .with("same_site", same_site.map(SameSite::word), Value::Null);
    let Some(InsertedCookie { indirect, nocache, postonly, max_idle, max_life }) = inserted else {
        return table.done();
    };
    table
        .with("indirect", *indirect, true)
        .with("nocache", *nocache, false)
        .with("postonly", *postonly, false)
        .with("max_idle", max_idle.map(microseconds), Value::Null)
        .with("max_life", max_life.map(microseconds), Value::Null)
        .done()
}

pub(super) fn stick(stick: &Stick) -> Value {
    let Stick { by, expire, size } = stick;
    let (by, name) = match by {
        StickBy::Source => ("source", None),
        StickBy::Header(name) => ("header", Some(name.as_str())),
        StickBy::Cookie(name) => ("cookie", Some(name.as_str())),
    };
    Table::new()
        .with("by", by, Value::Null)
        .with("name", name, Value::Null)
        .with("expire", microseconds(*expire), 1_800_000_000)
        .with("size", *size, 100_000)
        .done()
}
