//! `tcp_keep_alive`: whether a quiet connection is asked now and then if its other end is still there (RFC 9293 §3.8.4).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How; `None`: as the system does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpKeepAlive {
    /// For the first time after so long a silence.
    pub idle: Option<Duration>,
    /// Again after so long.
    pub interval: Option<Duration>,
    /// So many questions without an answer end it.
    pub count: Option<u32>,
}
