//! What of a head is meant for the next hop alone, and ends here (RFC 9110 §7.6, RFC 9112 §9).

use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode, Version};

use crate::balancer::http::own::{request_binds, response_binds};
use crate::balancer::http::page::Refusal;
use crate::balancer::http::upgrade::Upgrade;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a client wants of its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    /// That it becomes another protocol, should the server agree. Mostly there is none: so it is a pointer.
    pub(super) upgrade: Option<Box<Upgrade>>,
    /// That it ends with the response (RFC 9112 §9.3).
    pub(super) end: bool,
    /// That its server's connection is known for its own.
    pub(super) bound: bool,
}

/// Removes what is meant for us alone from a request.
///
/// # Errors
/// Its body is encoded as we cannot decode it, or it asks for another protocol in a way that none may agree to.
pub(super) fn make_request_end_to_end(request: &mut Parts) -> Result<Wishes, Refusal> {
    let found = Found::in_headers(&request.headers);
    if found.transfer_encoding {
        check_coding(&mut request.headers)?;
    }
    let mut upgrade = None;
    // Where a body ends and the other protocol begins is not ours to guess: with a body there is no upgrade.
    let has_body = found.transfer_encoding || request.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if found.upgrade && found.connection && !has_body && request.version == Version::HTTP_11 {
        // HTTP/2 in the clear would bypass everything here (RFC 9113 does away with this upgrade).
        let is_named = tokens(&request.headers, CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
        let is_http2 = tokens(&request.headers, UPGRADE).any(|token| token.eq_ignore_ascii_case("h2c"));
        upgrade = request.headers.get(UPGRADE).filter(|_| is_named && !is_http2).cloned();
    }
    let trailers = found.te && tokens(&request.headers, TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let end = wants_end(request, &found);
    let bound = found.authentication && request_binds(&request.headers);

    remove_hop_by_hop(&mut request.headers, &found);
    if trailers {
        request.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let Some(upgrade) = upgrade else { return Ok(Wishes { upgrade: None, end, bound }) };
    let upgrade = Upgrade::asked(request, upgrade)?;
    request.headers.insert(UPGRADE, upgrade.header());
    request.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    Ok(Wishes { upgrade: Some(Box::new(upgrade)), end: false, bound })
}

/// Is it clear that the client wants its connection to end?
fn wants_end(request: &Parts, found: &Found) -> bool {
    let says = |word: &str| tokens(&request.headers, CONNECTION).any(|token| token.eq_ignore_ascii_case(word));
    match found.connection {
        true => says("close") && !says("keep-alive"),
        false => request.version == Version::HTTP_10,
    }
}

/// hyper asks only that `chunked` comes last. A server may see something else in what stands before it, in a repetition or in
/// how it is written, and so another end of the body: there is one line, which reads as we would write it.
fn check_coding(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err(Refusal::UnknownCoding),
    }
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    Ok(())
}

/// Removes what is meant for us alone from a response. Says whether its connection is bound to its client from now on.
///
/// What another protocol is agreed on by, or demanded by (426, RFC 9110 §15.5.22), stays. That it is merely offered is
/// meant for us.
pub(super) fn make_response_end_to_end(headers: &mut HeaderMap, status: StatusCode) -> bool {
    let found = Found::in_headers(headers);
    let is_bound = found.authentication && response_binds(headers);
    let names_protocol = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    let upgrade: Vec<HeaderValue> = match names_protocol {
        true => headers.get_all(UPGRADE).iter().cloned().collect(),
        false => Vec::new(),
    };
    remove_hop_by_hop(headers, &found);
    if found.transfer_encoding {
        headers.remove(CONTENT_LENGTH);
    }
    if !upgrade.is_empty() {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    for upgrade in upgrade {
        headers.append(UPGRADE, upgrade);
    }
    is_bound
}

/// Which headers that end here are there, or say who somebody is: found in one pass, since mostly there are none.
#[derive(Default)]
struct Found {
    authentication: bool,
    connection: bool,
    keep_alive: bool,
    proxy_connection: bool,
    te: bool,
    transfer_encoding: bool,
    upgrade: bool,
}

impl Found {
    fn in_headers(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match *name {
                CONNECTION => found.connection = true,
                TE => found.te = true,
                TRANSFER_ENCODING => found.transfer_encoding = true,
                UPGRADE => found.upgrade = true,
                AUTHORIZATION | PROXY_AUTHORIZATION | WWW_AUTHENTICATE | PROXY_AUTHENTICATE => {
                    found.authentication = true
                }
                _ => match name.as_str() {
                    "keep-alive" => found.keep_alive = true,
                    "proxy-connection" => found.proxy_connection = true,
                    "persistent-auth" => found.authentication = true,
                    _ => {}
                },
            }
        }
        found
    }
}

/// Transfer-Encoding stays: hyper frames the body again by it.
fn remove_hop_by_hop(headers: &mut HeaderMap, found: &Found) {
    if found.connection {
        let named: Vec<HeaderName> = tokens(headers, CONNECTION).filter_map(named_by_connection).collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    let known = [
        (found.keep_alive, KEEP_ALIVE),
        (found.proxy_connection, PROXY_CONNECTION),
        (found.te, TE),
        (found.upgrade, UPGRADE),
    ];
    for (_, name) in known.into_iter().filter(|(is_there, _)| *is_there) {
        headers.remove(name);
    }
}

/// The header that an element of Connection takes away, if it takes any: not those that say where a message goes and where
/// it ends, whose loss would make it another message, nor those in which a proxy of ours says whose it is: not every proxy
/// looks at what its client says of Connection before it passes that on.
fn named_by_connection(token: &str) -> Option<HeaderName> {
    if token.eq_ignore_ascii_case("close") || token.eq_ignore_ascii_case("keep-alive") {
        return None;
    }
    let name = HeaderName::from_bytes(token.as_bytes()).ok()?;
    let stays = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, FORWARDED].contains(&name);
    (!stays && !name.as_str().starts_with("x-forwarded-")).then_some(name)
}

/// The elements of a list, which may be empty (RFC 9110 §5.6.1.2).
pub(super) fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use hyper::Request;

    use super::*;

    pub(in crate::balancer::http) type Headers<'text> = &'text [(&'text str, &'text str)];

    pub(in crate::balancer::http) fn request(target: &str, headers: Headers) -> Parts {
        let mut builder = Request::builder().uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    fn upgrades(request: &mut Parts) -> Result<bool, Refusal> {
        make_request_end_to_end(request).map(|wishes| wishes.upgrade.is_some())
    }

    /// What hyper does not close must not be taken for the end: the answer would wait for it.
    #[test]
    fn a_connection_ends_where_that_is_clear() {
        let cases: [(Version, Headers, bool); 8] = [
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &[("connection", "close")], true),
            (Version::HTTP_11, &[("connection", "x-a, Close")], true),
            (Version::HTTP_11, &[("connection", "close"), ("connection", "keep-alive")], false),
            (Version::HTTP_11, &[("connection", "close, upgrade"), ("upgrade", "chat")], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &[("connection", "keep-alive")], false),
            (Version::HTTP_10, &[("connection", "close")], true),
        ];
        for (version, headers, ends) in cases {
            let mut request = request("/", headers);
            request.version = version;
            assert_eq!(make_request_end_to_end(&mut request).unwrap().end, ends, "{version:?} {headers:?}");
        }
    }

    #[test]
    fn what_is_for_us_alone_goes_no_further() {
        let mut request = request(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-Secret"),
                ("connection", "host"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip"),
                ("upgrade", "chat"),
                ("accept", "*/*"),
            ],
        );
        assert_eq!(upgrades(&mut request), Ok(false));
        assert_eq!(names(&request.headers), ["host", "accept"]);
    }

    #[test]
    fn nobody_takes_away_whom_a_request_comes_from() {
        let named = "X-Forwarded-For, x-forwarded-proto, Forwarded, x-other";
        let headers = [
            ("connection", named),
            ("x-forwarded-for", "a"),
            ("x-forwarded-proto", "b"),
            ("forwarded", "c"),
            ("x-other", "d"),
        ];
        let mut request = request("/", &headers);
        assert_eq!(upgrades(&mut request), Ok(false));
        let mut left = names(&request.headers);
        left.sort_unstable();
        assert_eq!(left, ["forwarded", "x-forwarded-for", "x-forwarded-proto"]);
    }

    #[test]
    fn a_body_is_encoded_in_one_way() {
        let check = |lines: &[&str]| {
            let headers: Vec<_> = lines.iter().map(|line| ("transfer-encoding", *line)).collect();
            let mut request = request("/", &headers);
            make_request_end_to_end(&mut request).map(|_| request.headers[TRANSFER_ENCODING].clone())
        };
        for lines in [["chunked"], ["Chunked"]] {
            assert_eq!(check(&lines).unwrap(), "chunked");
        }
        for lines in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity", "chunked"],
            &[", chunked"],
        ] {
            assert_eq!(check(lines), Err(Refusal::UnknownCoding), "{lines:?}");
        }
    }

    #[test]
    fn a_request_with_a_body_stays_what_it_is() {
        for (framing, is_upgrade) in [("0", true), ("5", false), ("00", false)] {
            let headers = [("connection", "upgrade"), ("upgrade", "chat"), ("content-length", framing)];
            assert_eq!(upgrades(&mut request("/", &headers)), Ok(is_upgrade), "{framing}");
        }
        let headers = [("connection", "upgrade"), ("upgrade", "chat"), ("transfer-encoding", "chunked")];
        let mut request = request("/", &headers);
        assert_eq!(upgrades(&mut request), Ok(false));
        assert_eq!(names(&request.headers), ["transfer-encoding"]);
    }

    #[test]
    fn trailers_and_an_upgrade_stay() {
        let headers =
            [("host", "a"), ("te", "deflate, trailers"), ("connection", "keep-alive, Upgrade"), ("upgrade", "chat")];
        let mut request = request("/", &headers);
        assert_eq!(upgrades(&mut request), Ok(true));
        assert_eq!(request.headers[TE], "trailers");
        assert_eq!(request.headers[CONNECTION], "upgrade");
        assert_eq!(request.headers[UPGRADE], "chat");
    }

    #[test]
    fn an_upgrade_to_http_2_does_not_stay() {
        let headers = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")];
        let mut request = request("/", &headers);
        assert_eq!(upgrades(&mut request), Ok(false));
        assert_eq!(request.headers.len(), 0);
    }

    #[test]
    fn a_response_has_one_framing() {
        let mut headers = HeaderMap::new();
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        assert!(!make_response_end_to_end(&mut headers, StatusCode::OK));
        assert_eq!(names(&headers), ["transfer-encoding"]);
    }
}
