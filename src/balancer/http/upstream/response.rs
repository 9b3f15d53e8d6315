//! The head of a response: what it says, how its body is framed, and whether its connection can serve again.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Response, StatusCode};

use super::Malformed;
use super::decoder::{Chunked, Decoder};

/// Longest head.
const MAX_HEAD: usize = 64 * 1024;
/// Most headers of a head, or of a body's trailers.
pub(super) const MAX_HEADERS: usize = 100;

/// A response without its body.
#[derive(Debug)]
pub(super) struct Head {
    /// Status and headers.
    pub(super) response: Response<()>,
    /// Its body.
    pub(super) body: Decoder,
    /// The connection is good for another request.
    pub(super) is_kept: bool,
}

/// What a server says.
#[derive(Debug)]
pub(super) enum Said {
    /// A final response, or 101.
    Response(Head),
    /// That there will be one (1xx, RFC 9110 §15.2), which goes no further.
    InBetween,
}

/// Takes a head from what has been received; `None`: more has to come first.
///
/// # Errors
/// When it is no HTTP/1, too long, or says two things about where its body ends.
pub(super) fn parse(received: &mut BytesMut, is_head_request: bool) -> Result<Option<Said>, Malformed> {
    let Some((response, is_1_1)) = parse_one(received)? else { return Ok(None) };
    if response.status().is_informational() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Some(Said::InBetween));
    }
    frame(response, is_1_1, is_head_request).map(|head| Some(Said::Response(head)))
}

fn parse_one(received: &mut BytesMut) -> Result<Option<(Response<()>, bool)>, Malformed> {
    let mut room = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // RFC 9112 §5.1: a proxy takes that space away.
    config.allow_spaces_after_header_name_in_responses(true);
    let status = config.parse_response_with_uninit_headers(&mut parsed, received, &mut room).map_err(|_| Malformed)?;
    let httparse::Status::Complete(length) = status else {
        return if received.len() > MAX_HEAD { Err(Malformed) } else { Ok(None) };
    };

    let is_1_1 = parsed.version == Some(1);
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
    let reason = parsed.reason.filter(|reason| !reason.is_empty() && status.canonical_reason() != Some(reason));
    let reason = reason.map(|reason| ReasonPhrase::try_from(reason.as_bytes())).transpose().map_err(|_| Malformed)?;
    let places = places(received, parsed.headers);
    let head = received.split_to(length).freeze();

    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers_from(&head, &places)?;
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    Ok(Some((response, is_1_1)))
}

/// Where a header stands in its block.
pub(super) struct Place {
    name: Range<usize>,
    value: Range<usize>,
}

/// Where headers stand that were found in `block`.
pub(super) fn places(block: &[u8], headers: &[httparse::Header<'_>]) -> Vec<Place> {
    let start = block.as_ptr() as usize;
    let place = |part: &[u8]| {
        let at = (part.as_ptr() as usize).saturating_sub(start);
        at..at + part.len()
    };
    headers.iter().map(|header| Place { name: place(header.name.as_bytes()), value: place(header.value) }).collect()
}

/// Headers whose values share the block they came in.
pub(super) fn headers_from(block: &Bytes, places: &[Place]) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(places.len());
    for Place { name, value } in places {
        let name = block.get(name.clone()).ok_or(Malformed)?;
        let name = HeaderName::from_bytes(name).map_err(|_| Malformed)?;
        if block.len() < value.end {
            return Err(Malformed);
        }
        let value = HeaderValue::from_maybe_shared(block.slice(value.clone())).map_err(|_| Malformed)?;
        headers.try_append(name, value).map_err(|_| Malformed)?;
    }
    Ok(headers)
}

/// How the body ends (RFC 9112 §6.3), and what becomes of the connection then (§9.3).
fn frame(mut response: Response<()>, is_1_1: bool, is_head_request: bool) -> Result<Head, Malformed> {
    let (status, headers) = (response.status(), response.headers_mut());
    let is_kept = !says(headers, "close") && (is_1_1 || says(headers, "keep-alive"));
    let length = content_length(headers)?;
    let is_encoded = headers.contains_key(TRANSFER_ENCODING);

    // Of HTTP/1.0 it may mean either (RFC 9112 §6.1). What is not chunked we cannot decode, and cannot pass on either: it is for
    // one hop alone.
    if is_encoded && !(is_1_1 && is_chunked(headers)) {
        return Err(Malformed);
    }
    if is_encoded {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let (body, is_kept) = if is_head_request || has_no_body(status) {
        (Decoder::NOTHING, is_kept)
    } else if is_encoded {
        // A length beside it may be an attempt to make two responses of one.
        (Decoder::Chunked(Chunked::Size), is_kept && length.is_none())
    } else if let Some(length) = length {
        (Decoder::Length(length), is_kept)
    } else {
        (Decoder::UntilClose, false)
    };
    Ok(Head { response, body, is_kept })
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn says(headers: &HeaderMap, option: &str) -> bool {
    let lines = headers.get_all(CONNECTION).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(|said| is(said, option))
}

fn is(said: &[u8], option: &str) -> bool {
    said.trim_ascii().eq_ignore_ascii_case(option.as_bytes())
}

/// Is it `chunked`, once, and nothing else? Elements of the list may be empty (RFC 9110 §5.6.1.2).
fn is_chunked(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TRANSFER_ENCODING).into_iter();
    let mut codings =
        lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).filter(|coding| !is(coding, ""));
    codings.next().is_some_and(|coding| is(coding, "chunked")) && codings.next().is_none()
}

/// The length that all Content-Length headers agree on; of several one stays.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut agreed = None;
    let mut lines = 0;
    for line in headers.get_all(CONTENT_LENGTH) {
        lines += 1;
        for length in line.as_bytes().split(|byte| *byte == b',') {
            let length = number(length.trim_ascii())?;
            if agreed.is_some_and(|agreed| agreed != length) {
                return Err(Malformed);
            }
            lines += usize::from(agreed.is_some());
            agreed = Some(length);
        }
    }
    if let Some(length) = agreed.filter(|_| lines > 1) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(agreed)
}

fn number(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The next final response's.
    fn next(received: &mut BytesMut, is_head_request: bool) -> Result<Option<Head>, Malformed> {
        loop {
            match parse(received, is_head_request)? {
                Some(Said::Response(head)) => return Ok(Some(head)),
                Some(Said::InBetween) => {}
                None => return Ok(None),
            }
        }
    }

    fn head(lines: &str) -> Result<Option<Head>, Malformed> {
        next(&mut BytesMut::from(format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_str()), false)
    }

    #[test]
    fn the_body_ends_where_the_head_says() {
        let cases = [
            ("HTTP/1.1 200 OK\nContent-Length: 5", Decoder::Length(5), true),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nConnection: x, Close", Decoder::Length(5), false),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5, 5", Decoder::Length(5), true),
            ("HTTP/1.1 200 OK\nContent-Length : 5", Decoder::Length(5), true),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked", Decoder::Chunked(Chunked::Size), true),
            ("HTTP/1.1 200 OK\nTransfer-Encoding\t: chunked", Decoder::Chunked(Chunked::Size), true),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: , chunked\t,", Decoder::Chunked(Chunked::Size), true),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 5", Decoder::Chunked(Chunked::Size), false),
            ("HTTP/1.1 200 OK", Decoder::UntilClose, false),
            ("HTTP/1.1 204 No Content", Decoder::NOTHING, true),
            ("HTTP/1.1 304 Not Modified\nContent-Length: 5", Decoder::NOTHING, true),
            ("HTTP/1.1 101 Switching Protocols\nUpgrade: x", Decoder::NOTHING, true),
            ("HTTP/1.0 200 OK\nContent-Length: 5", Decoder::Length(5), false),
            ("HTTP/1.0 200 OK\nContent-Length: 5\nConnection: keep-alive", Decoder::Length(5), true),
            ("HTTP/1.0 200 OK\nContent-Length: 5\nConnection: keep-alive, close", Decoder::Length(5), false),
        ];
        for (lines, body, is_kept) in cases {
            let head = head(lines).unwrap().unwrap();
            assert_eq!((head.body, head.is_kept), (body, is_kept), "{lines}");
            assert!(head.response.headers().get_all(CONTENT_LENGTH).iter().count() <= 1, "{lines}");
            let codings: Vec<_> = head.response.headers().get_all(TRANSFER_ENCODING).iter().collect();
            assert!(codings.is_empty() || codings == ["chunked"], "{lines}");
        }
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let mut received = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        let head = next(&mut received, true).unwrap().unwrap();
        assert_eq!((head.body, head.is_kept), (Decoder::NOTHING, true));
        assert_eq!(head.response.headers()[CONTENT_LENGTH], "5");
    }

    #[test]
    fn what_is_ambiguous_or_no_http_is_refused() {
        let many = format!("HTTP/1.1 200 OK{}", "\nA: b".repeat(MAX_HEADERS + 1));
        let long = format!("HTTP/1.1 200 OK\nA: {}", "b".repeat(MAX_HEAD));
        let cases = [
            "SSH-2.0-OpenSSH_9.2",
            "HTTP/2 200 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 099 OK",
            "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6",
            "HTTP/1.1 200 OK\nContent-Length: 5, 6",
            "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length : 6",
            "HTTP/1.1 200 OK\nContent-Length: +5",
            "HTTP/1.1 200 OK\nContent-Length: ",
            "HTTP/1.1 200 OK\nContent-Length: 18446744073709551616",
            "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\nConnection: keep-alive",
            "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked, gzip",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\nTransfer-Encoding: identity\nContent-Length: 5",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked;a=b",
            "HTTP/1.1 200 OK\nTransfer-Encoding: \"chunked\"",
            "HTTP/1.1 200 OK\nTransfer-Encoding: ",
            "HTTP/1.1 304 Not Modified\nTransfer-Encoding: x",
            "HTTP/1.1 200 OK\nA: b\n c",
            &many,
        ];
        for lines in cases {
            assert!(matches!(head(lines), Err(Malformed)), "{}", &lines[..lines.len().min(60)]);
        }
        let unfinished = &mut BytesMut::from(long.replace('\n', "\r\n").as_str());
        assert!(matches!(next(unfinished, false), Err(Malformed)), "a head without an end");
    }

    #[test]
    fn a_head_comes_in_pieces_and_what_is_said_before_it_goes_no_further() {
        let wire = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                    HTTP/1.1 404 Nothing Here\r\nX-A: b\r\nContent-Length: 4\r\n\r\nrest";
        let mut received = BytesMut::new();
        let end = wire.len() - "rest".len();
        for byte in &wire.as_bytes()[..end - 1] {
            received.extend_from_slice(&[*byte]);
            assert!(next(&mut received, false).unwrap().is_none());
        }
        received.extend_from_slice(&wire.as_bytes()[end - 1..]);
        let head = next(&mut received, false).unwrap().unwrap();
        assert_eq!(
            (head.response.status(), &head.response.headers()["x-a"]),
            (StatusCode::NOT_FOUND, &"b".parse().unwrap())
        );
        assert_eq!(head.response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), b"Nothing Here");
        assert!(head.response.headers().get("link").is_none());
        assert_eq!(received, "rest");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, is_head_request: bool) {
            let _ = parse(&mut BytesMut::from(bytes.as_slice()), is_head_request);
            let mut begun = BytesMut::from("HTTP/1.1 200 OK\r\n");
            begun.extend_from_slice(&bytes);
            begun.extend_from_slice(b"\r\n\r\n");
            let _ = parse(&mut begun, is_head_request);
        }
    }
}
