//! What we answer ourselves: a plain page for each error.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::balancer::connect::Unreachable;
use crate::balancer::http::body::ResponseBody;

macro_rules! page {
    ($title:literal, $text:literal) => {
        concat!("<html><body><h1>", $title, "</h1>\n", $text, "\n</body></html>\n")
    };
}

/// Why a request is not answered by a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// RFC 9110 §7.2: the host is missing, repeated, malformed, or not the one of the target.
    BadHost,
    /// CONNECT is for forward proxies.
    Connect,
    /// No route and no default backend.
    NoRoute,
    /// A rule says so.
    Denied(StatusCode),
    /// A rule's limit is reached.
    TooMany {
        /// Seconds until it no longer is.
        retry_after: u32,
    },
    /// What a rule made of the target is too long or no target.
    BadTarget,
    /// The client did not send the rest of its request.
    ClientTimeout,
    /// It sent something else.
    BadBody,
    /// No server is up, or none could be reached.
    Unavailable(Unreachable),
    /// The server closed or reset the connection, or did not speak HTTP.
    BadGateway,
    /// The server did not answer in time.
    ServerTimeout,
}

impl Refusal {
    /// Its page.
    pub(super) fn response(self) -> Response<ResponseBody> {
        let status = self.status();
        let page = match self {
            Self::Denied(status) => denial(status),
            other => Bytes::from_static(other.page().as_bytes()),
        };
        let mut response = Response::new(ResponseBody::Page(Some(page)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Self::TooMany { retry_after } = self {
            headers.insert(RETRY_AFTER, retry_after.into());
        }
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT | StatusCode::METHOD_NOT_ALLOWED) {
            // What follows on this connection is not to be trusted.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Did a rule refuse what could have been answered?
    pub(super) fn is_denial(self) -> bool {
        matches!(self, Self::Denied(_) | Self::TooMany { .. })
    }

    /// Who ended it and when, for the log.
    pub(super) fn termination(self) -> [u8; 2] {
        *match self {
            Self::BadHost | Self::Connect | Self::NoRoute => b"PR",
            Self::Denied(_) | Self::TooMany { .. } | Self::BadTarget => b"PR",
            Self::ClientTimeout => b"cD",
            Self::BadBody => b"CD",
            Self::Unavailable(Unreachable::NoServer | Unreachable::Failed) => b"SC",
            Self::Unavailable(Unreachable::Timeout) => b"sC",
            Self::BadGateway => b"SH",
            Self::ServerTimeout => b"sH",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadHost | Self::BadBody => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Denied(status) => status,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::BadTarget => StatusCode::URI_TOO_LONG,
            Self::ClientTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::ServerTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn page(self) -> &'static str {
        match self {
            Self::BadHost => page!("400 Bad Request", "The request does not say clearly which host it is for."),
            Self::Connect => page!("405 Method Not Allowed", "This is no forward proxy."),
            Self::NoRoute => page!("404 Not Found", "Nothing is served at this address."),
            Self::Denied(_) => "",
            Self::TooMany { .. } => page!("429 Too Many Requests", "There were too many requests; try again later."),
            Self::BadTarget => page!("414 URI Too Long", "The address is too long."),
            Self::ClientTimeout => page!("408 Request Timeout", "The request took too long to arrive."),
            Self::BadBody => page!("400 Bad Request", "The request's body is not what its head announced."),
            Self::Unavailable(_) => page!("503 Service Unavailable", "No server is there to answer this request."),
            Self::BadGateway => page!("502 Bad Gateway", "The server gave no valid answer."),
            Self::ServerTimeout => page!("504 Gateway Timeout", "The server did not answer in time."),
        }
    }
}

/// The page of a status that a rule chose.
fn denial(status: StatusCode) -> Bytes {
    let reason = status.canonical_reason().unwrap_or("Denied");
    let code = status.as_u16();
    Bytes::from(format!("<html><body><h1>{code} {reason}</h1>\nThis request is not allowed here.\n</body></html>\n"))
}

/// The answer to a head that never became complete, as it is written to a socket that hyper has left.
pub(super) const HEAD_TIMEOUT: &[u8] = concat!(
    "HTTP/1.1 408 Request Timeout\r\ncontent-type: text/html\r\ncache-control: no-cache\r\nconnection: close\r\n\r\n",
    "<html><body><h1>408 Request Timeout</h1>\nThe request took too long to arrive.\n</body></html>\n"
)
.as_bytes();

/// The answer to the preface of HTTP/2, which hyper takes for no request that it could answer.
pub(super) const HTTP_2_PREFACE: &[u8] = concat!(
    "HTTP/1.1 400 Bad Request\r\ncontent-type: text/html\r\ncache-control: no-cache\r\nconnection: close\r\n\r\n",
    "<html><body><h1>400 Bad Request</h1>\nHTTP/2 is not spoken here.\n</body></html>\n"
)
.as_bytes();
