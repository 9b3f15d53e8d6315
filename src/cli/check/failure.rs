//! What is done where servers fail, in words.

use std::time::Duration;

use crate::config::model::{Backend, ConnectionMode, ErrorPages, Retry, Reuse, TcpKeepAlive};

/// What a backend does otherwise than by default, a line each.
pub(super) fn lines(backend: &Backend) -> Vec<String> {
    let mut lines = Vec::new();
    if backend.retry != Retry::default() {
        lines.push(retry(&backend.retry));
    }
    match backend.reuse {
        Reuse::Safe => {}
        Reuse::Never => lines.push("connections to servers are shared by no two clients".to_owned()),
        Reuse::Always => lines.push("connections to servers are shared by all requests".to_owned()),
    }
    lines.extend(connection(backend.connection).map(str::to_owned));
    lines.extend(backend.tcp_keep_alive.as_ref().map(tcp_keep_alive));
    lines.extend(pages(&backend.errors));
    lines
}

fn retry(retry: &Retry) -> String {
    let words = [
        (retry.connection_failure, "no connection"),
        (retry.empty_response, "no response"),
        (retry.junk_response, "no valid response"),
        (retry.response_timeout, "no response in time"),
    ];
    let words = words.into_iter().filter(|(is_on, _)| *is_on).map(|(_, word)| word.to_owned());
    let failures: Vec<_> = words.chain(retry.statuses.iter().map(u16::to_string)).collect();
    if failures.is_empty() {
        return "nothing is tried again".to_owned();
    }
    let held = retry.buffer.map(|bytes| format!(", bodies of up to {bytes} bytes too")).unwrap_or_default();
    let methods = if retry.non_idempotent { ", whatever the method" } else { "" };
    let budget = match retry.repeats() {
        true => {
            format!(", for {} % of the requests and {} a second", retry.budget.percent, retry.budget.min_per_second)
        }
        false => String::new(),
    };
    format!("tried again on {}{held}{methods}{budget}", failures.join(", "))
}

/// What becomes of connections after a response, if not both are kept.
pub(super) fn connection(mode: ConnectionMode) -> Option<&'static str> {
    match mode {
        ConnectionMode::KeepAlive => None,
        ConnectionMode::ServerClose => Some("connections to servers are closed after each response"),
        ConnectionMode::Close => Some("connections are closed after each response"),
    }
}

/// How it is found out that the other end of a quiet connection is gone.
pub(super) fn tcp_keep_alive(keep_alive: &TcpKeepAlive) -> String {
    let TcpKeepAlive { idle, interval, count } = keep_alive;
    let after = |what: &str, time: &Option<Duration>| time.map(|time| format!("{what} {time:?}"));
    let count = count.map(|count| format!("{count} times"));
    let words: Vec<_> = [after("after", idle), after("every", interval), count].into_iter().flatten().collect();
    let how = if words.is_empty() { "as the system does".to_owned() } else { words.join(", ") };
    format!("quiet connections are asked by TCP if they are still there: {how}")
}

/// Which pages are not the balancer's own.
pub(super) fn pages(errors: &ErrorPages) -> Option<String> {
    let statuses: Vec<_> = errors.keys().map(u16::to_string).collect();
    (!statuses.is_empty()).then(|| format!("pages of its own for {}", statuses.join(", ")))
}
