//! What we answer ourselves: a plain page for each error.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::balancer::connect::Unreachable;
use crate::balancer::http::body::ResponseBody;
use crate::config::model::ErrorPage;

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
        retry_after: u64,
    },
    /// RFC 9112 §3.2: the target has a form that its method does not have.
    BadTarget,
    /// RFC 9112 §6.1: a transfer coding other than chunked.
    UnknownCoding,
    /// RFC 6455 §4.1: a WebSocket is asked for without a key, or with one that is none.
    BadUpgrade,
    /// What a rule made of the target is too long or no target.
    RewrittenTarget,
    /// The client did not send the rest of its request.
    ClientTimeout(BodyUse),
    /// It went before that.
    ClientGone(BodyUse),
    /// It sent something else.
    BadBody(BodyUse),
    /// No server is up, or none could be reached.
    Unavailable(Unreachable),
    /// The server closed or reset the connection.
    BadGateway,
    /// What it answered is no answer: not HTTP, too long, its end unclear, or another protocol than was asked for.
    BadResponse,
    /// The server did not answer in time.
    ServerTimeout,
}

/// What a request's body was read for when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyUse {
    /// To be held until it is there, or a part of it, before anybody is asked.
    Held,
    /// To be passed on to a server.
    PassedOn,
}

impl Refusal {
    /// Its page, or this one in its place.
    pub(super) fn response(self, instead: Option<&ErrorPage>) -> Response<ResponseBody> {
        let mut response = instead.map_or_else(|| self.own(), of_file);
        let headers = response.headers_mut();
        if let Self::TooMany { retry_after } = self {
            headers.insert(RETRY_AFTER, retry_after.into());
        }
        if self.ends_connection() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Is what follows on this connection not to be trusted?
    pub(super) fn ends_connection(self) -> bool {
        match self {
            Self::BadHost
            | Self::BadTarget
            | Self::UnknownCoding
            | Self::BadUpgrade
            | Self::BadBody(_)
            | Self::ClientGone(_)
            | Self::ClientTimeout(_)
            | Self::Connect => true,
            Self::NoRoute | Self::Denied(_) | Self::TooMany { .. } | Self::RewrittenTarget => false,
            Self::Unavailable(_) | Self::BadGateway | Self::BadResponse | Self::ServerTimeout => false,
        }
    }

    fn own(self) -> Response<ResponseBody> {
        let page = match self {
            Self::Denied(status) => denial(status),
            other => Bytes::from_static(other.page().as_bytes()),
        };
        let mut response = Response::new(ResponseBody::Page(Some(page)));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    /// Did a rule refuse what could have been answered?
    pub(super) fn is_denial(self) -> bool {
        matches!(self, Self::Denied(_) | Self::TooMany { .. })
    }

    /// Who ended it and when, for the log.
    pub(super) fn termination(self) -> [u8; 2] {
        *match self {
            Self::BadHost | Self::BadTarget | Self::UnknownCoding | Self::BadUpgrade => b"PR",
            Self::Connect | Self::NoRoute => b"PR",
            Self::Denied(_) | Self::TooMany { .. } | Self::RewrittenTarget => b"PR",
            Self::ClientTimeout(BodyUse::Held) => b"cR",
            Self::ClientTimeout(BodyUse::PassedOn) => b"cD",
            Self::ClientGone(BodyUse::Held) => b"CR",
            Self::ClientGone(BodyUse::PassedOn) => b"CD",
            Self::BadBody(BodyUse::Held) => b"PR",
            Self::BadBody(BodyUse::PassedOn) => b"PH",
            Self::Unavailable(reason) => return reason.termination(),
            Self::BadGateway => b"SH",
            Self::BadResponse => b"PH",
            Self::ServerTimeout => b"sH",
        }
    }

    /// Its status, unless a page in its place has another.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadHost | Self::BadTarget | Self::BadUpgrade => StatusCode::BAD_REQUEST,
            Self::BadBody(_) | Self::ClientGone(_) => StatusCode::BAD_REQUEST,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Denied(status) => status,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::RewrittenTarget => StatusCode::URI_TOO_LONG,
            Self::ClientTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadGateway | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::ServerTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn page(self) -> &'static str {
        match self {
            Self::BadHost => page!("400 Bad Request", "The request does not say clearly which host it is for."),
            Self::BadTarget => page!("400 Bad Request", "The request does not say clearly what it is for."),
            Self::BadUpgrade => {
                page!("400 Bad Request", "The request asks for a WebSocket without the key that it takes.")
            }
            Self::UnknownCoding => {
                page!("501 Not Implemented", "The request's body is encoded in a way not known here.")
            }
            Self::Connect => page!("405 Method Not Allowed", "This is no forward proxy."),
            Self::NoRoute => page!("404 Not Found", "Nothing is served at this address."),
            Self::Denied(_) => "",
            Self::TooMany { .. } => page!("429 Too Many Requests", "There were too many requests; try again later."),
            Self::RewrittenTarget => page!("414 URI Too Long", "The address is too long."),
            Self::ClientTimeout(_) => page!("408 Request Timeout", "The request took too long to arrive."),
            Self::BadBody(_) | Self::ClientGone(_) => {
                page!("400 Bad Request", "The request's body is not what its head announced.")
            }
            Self::Unavailable(Unreachable::QueueFull | Unreachable::QueueTimeout) => {
                page!("503 Service Unavailable", "All servers are busy; try again later.")
            }
            Self::Unavailable(_) => page!("503 Service Unavailable", "No server is there to answer this request."),
            Self::BadGateway | Self::BadResponse => page!("502 Bad Gateway", "The server gave no valid answer."),
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

/// A page of the user's.
fn of_file(page: &ErrorPage) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Page(Some(Bytes::copy_from_slice(page.body.as_bytes()))));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    for (name, value) in &page.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The answer to a head that never became complete, as it is written to a socket that hyper has left.
pub(super) fn head_timeout(instead: Option<&ErrorPage>) -> (u16, Cow<'static, [u8]>) {
    let Some(page) = instead else { return (408, Cow::Borrowed(HEAD_TIMEOUT)) };
    let reason = StatusCode::from_u16(page.status).ok().and_then(|status| status.canonical_reason()).unwrap_or("-");
    let headers: String = page.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!("HTTP/1.1 {} {reason}\r\n{headers}connection: close\r\n\r\n{}", page.status, page.body);
    (page.status, Cow::Owned(text.into_bytes()))
}

const HEAD_TIMEOUT: &[u8] = concat!(
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
