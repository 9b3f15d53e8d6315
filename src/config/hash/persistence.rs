//! How sessions are kept.

use serde_json::Value;

use super::{Table, microseconds};
use crate::config::model::{CookieMode, CookiePersistence, InsertedCookie, Stick, StickBy};

pub(super) fn cookie(cookie: &CookiePersistence) -> Value {
    let CookiePersistence { name, mode } = cookie;
    let table = |mode: &str| Table::new().with("name", name.as_str(), Value::Null).with("mode", mode, Value::Null);
    let inserted = match mode {
        CookieMode::Prefix => return table("prefix").done(),
        CookieMode::Rewrite => return table("rewrite").done(),
        CookieMode::Insert(inserted) => inserted,
    };
    let InsertedCookie { indirect, nocache, postonly, httponly, secure, domain, max_idle, max_life } = inserted;
    table("insert")
        .with("indirect", *indirect, true)
        .with("nocache", *nocache, false)
        .with("postonly", *postonly, false)
        .with("httponly", *httponly, false)
        .with("secure", *secure, false)
        .with("domain", domain.clone(), Value::Null)
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
