//! What is done where servers fail: further attempts, connections that are kept or not, pages of one's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `retry_on` and what goes with it: which failures cost another attempt instead of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// There was no connection: nothing of the request was sent.
    pub connection_failure: bool,
    /// The connection ended before anything of a response came.
    pub empty_response: bool,
    /// What came is no response, or not the whole head of one.
    pub junk_response: bool,
    /// The server was silent for too long.
    pub response_timeout: bool,
    /// The response has one of these statuses.
    pub statuses: Vec<u16>,
    /// What was sent of a request may be sent again whatever its method (RFC 9110 §9.2.2 warns of that).
    pub non_idempotent: bool,
    /// Bytes of a body that are awaited and held, so that it can be sent again.
    pub buffer: Option<usize>,
    /// How many requests may be sent again.
    pub budget: RetryBudget,
}

impl Retry {
    /// Is anything sent again that was sent?
    pub fn repeats(&self) -> bool {
        self.empty_response || self.junk_response || self.response_timeout || !self.statuses.is_empty()
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            connection_failure: true,
            empty_response: false,
            junk_response: false,
            response_timeout: false,
            statuses: Vec::new(),
            non_idempotent: false,
            buffer: None,
            budget: RetryBudget { percent: 20, min_per_second: 10 },
        }
    }
}

/// `retry_budget`: over the last ten seconds at most so many percent of the requests are sent again, and so many a second
/// in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct RetryBudget {
    pub percent: u32,
    pub min_per_second: u32,
}

/// `reuse`: which requests go over connections to servers that have carried others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Those of the same client's connection.
    Never,
    /// All but a client's first, where it could not be sent again: a server may close a connection just then.
    #[default]
    Safe,
    /// All.
    Always,
}

/// `connection`: what becomes of connections after a response. Where a frontend and a backend differ, the later one holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionMode {
    /// Both are kept.
    #[default]
    KeepAlive,
    /// The client's is kept.
    ServerClose,
    /// Neither is.
    Close,
}

/// `errors`: pages in the place of ours, by the status of ours.
pub type ErrorPages = BTreeMap<u16, ErrorPage>;

/// An answer of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPage {
    /// Its status.
    pub status: u16,
    /// Its headers, lower case, without those that say how the message is framed.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}
