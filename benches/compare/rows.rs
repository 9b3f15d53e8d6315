//! What is measured, a row each, and what the project promises for it.

/// One of them.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// At most so much of HAProxy's CPU time.
    pub(crate) limit: Option<f64>,
    pub(crate) path: &'static str,
    /// A connection for every request.
    pub(crate) closes: bool,
    pub(crate) is_tcp: bool,
    /// A line for each request.
    pub(crate) is_logged: bool,
    pub(crate) workers: usize,
    pub(crate) feature: Feature,
}

/// What else the proxy does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    Nothing,
    /// Sessions kept by the client's address.
    StickTable,
    /// Five that look at the path and do nothing, three that set a header of the request, two of the response.
    TenRules,
}

const SMALL: Row = Row {
    name: "small",
    limit: Some(0.95),
    path: "/",
    closes: false,
    is_tcp: false,
    is_logged: false,
    workers: 1,
    feature: Feature::Nothing,
};

pub(crate) const ROWS: &[Row] = &[
    SMALL,
    Row { name: "small, log", is_logged: true, ..SMALL },
    Row { name: "16 KiB", limit: Some(0.9), path: "/16k", ..SMALL },
    Row { name: "1 MiB", limit: Some(0.7), path: "/1m", ..SMALL },
    Row { name: "a connection per request", limit: Some(1.0), closes: true, ..SMALL },
    Row { name: "tcp, small", limit: Some(1.0), is_tcp: true, ..SMALL },
    Row { name: "tcp, 1 MiB", limit: Some(1.0), path: "/1m", is_tcp: true, ..SMALL },
    Row { name: "tcp, connection per request", limit: Some(1.0), closes: true, is_tcp: true, ..SMALL },
    Row { name: "small, stick table", limit: None, feature: Feature::StickTable, ..SMALL },
    Row { name: "small, ten rules", limit: None, feature: Feature::TenRules, ..SMALL },
    Row { name: "small, two workers", limit: None, workers: 2, ..SMALL },
];
