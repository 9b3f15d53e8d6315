//! What is done where servers fail, as the digest has it.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Table, hex, microseconds};
use crate::config::model::{ConnectionMode, ErrorPage, ErrorPages, Retry, RetryBudget, Reuse, TcpKeepAlive};

pub(super) fn retry(retry: &Retry) -> Value {
    let Retry {
        connection_failure,
        empty_response,
        junk_response,
        response_timeout,
        statuses,
        non_idempotent,
        buffer,
        budget: RetryBudget { percent, min_per_second },
    } = retry;
    Table::new()
        .with("connection_failure", *connection_failure, true)
        .with("empty_response", *empty_response, false)
        .with("junk_response", *junk_response, false)
        .with("response_timeout", *response_timeout, false)
        .with("statuses", statuses.clone(), Value::Array(Vec::new()))
        .with("non_idempotent", *non_idempotent, false)
        .with("buffer", *buffer, Value::Null)
        .with("budget.percent", *percent, 20)
        .with("budget.min_per_second", *min_per_second, 10)
        .done()
}

pub(super) fn tcp_keep_alive(keep_alive: &TcpKeepAlive) -> Value {
    let TcpKeepAlive { idle, interval, count } = keep_alive;
    Table::new()
        .with("idle", idle.map(microseconds), Value::Null)
        .with("interval", interval.map(microseconds), Value::Null)
        .with("count", *count, Value::Null)
        .done()
}

pub(super) fn reuse(reuse: Reuse) -> &'static str {
    match reuse {
        Reuse::Never => "never",
        Reuse::Safe => "safe",
        Reuse::Always => "always",
    }
}

pub(super) fn connection(mode: ConnectionMode) -> &'static str {
    match mode {
        ConnectionMode::KeepAlive => "keep_alive",
        ConnectionMode::ServerClose => "server_close",
        ConnectionMode::Close => "close",
    }
}

/// By what is in the files, wherever they are.
pub(super) fn errors(errors: &ErrorPages) -> Map<String, Value> {
    let page = |page: &ErrorPage| {
        let ErrorPage { status, headers, body } = page;
        json!({ "status": status, "headers": headers, "body": hex(&Sha256::digest(body)) })
    };
    errors.iter().map(|(status, it)| (status.to_string(), page(it))).collect()
}
