//! What protocol a client asks its connection to become, and whether a server's 101 is an answer to that (RFC 9110 §7.8,
//! RFC 6455 §4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use sha1::{Digest, Sha1};

use crate::balancer::http::headers::tokens;
use crate::balancer::http::page::Refusal;

const WEBSOCKET: &str = "websocket";
/// RFC 6455 §1.3: what makes a server's answer to a key one of a server that speaks WebSocket.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key before it is encoded (RFC 6455 §4.1).
const KEY_BYTES: usize = 16;

/// A client's wish for another protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upgrade {
    /// Upgrade as it came.
    asked: HeaderValue,
    /// Of WebSocket: what Sec-WebSocket-Accept has to say.
    accept: Option<String>,
}

impl Upgrade {
    /// What a request asks for by this value of its Upgrade.
    ///
    /// # Errors
    /// It asks for WebSocket in a way that no server may agree to: without GET, or without one key of 16 bytes.
    pub(super) fn asked(request: &Parts, asked: HeaderValue) -> Result<Self, Refusal> {
        let accept = match protocols(&asked).any(|protocol| protocol.eq_ignore_ascii_case(WEBSOCKET)) {
            true => Some(accept(request).ok_or(Refusal::BadUpgrade)?),
            false => None,
        };
        Ok(Self { asked, accept })
    }

    /// Upgrade, for the server.
    pub(super) fn header(&self) -> HeaderValue {
        self.asked.clone()
    }

    /// Does a 101 agree to what was asked, and to that alone?
    pub(super) fn is_agreed_to(&self, headers: &HeaderMap) -> bool {
        let mut agreed = tokens(headers, UPGRADE).peekable();
        if agreed.peek().is_none() {
            return false;
        }
        agreed.all(|protocol| {
            let is_asked = protocols(&self.asked).any(|asked| asked.eq_ignore_ascii_case(protocol));
            is_asked && (!protocol.eq_ignore_ascii_case(WEBSOCKET) || self.is_accepted(headers))
        })
    }

    fn is_accepted(&self, headers: &HeaderMap) -> bool {
        let said = only(headers, SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        said.is_some_and(|said| self.accept.as_deref().is_some_and(|accept| accept.as_bytes() == said))
    }
}

fn accept(request: &Parts) -> Option<String> {
    let key = only(&request.headers, SEC_WEBSOCKET_KEY)?.as_bytes();
    let is_key = STANDARD.decode(key).is_ok_and(|decoded| decoded.len() == KEY_BYTES);
    (is_key && request.method == Method::GET)
        .then(|| STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize()))
}

fn protocols(upgrade: &HeaderValue) -> impl Iterator<Item = &str> {
    upgrade.to_str().unwrap_or_default().split(',').map(str::trim)
}

fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}
