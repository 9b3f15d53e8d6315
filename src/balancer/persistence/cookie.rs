//! Sessions kept by a cookie, in the request's `Cookie` and the response's `Set-Cookie` (RFC 6265).
//!
//! Mode `prefix`: the application's own cookie goes out as `NAME=SERVER~value` and comes in as `NAME=value`, so the
//! application never sees the prefix. Mode `rewrite`: the application sets a cookie when it wants its client to come back, and
//! its value becomes the server's. Mode `insert`: a cookie of ours, `NAME=SERVER; path=/`, perhaps with dates.

use hyper::HeaderMap;
use hyper::header::{CACHE_CONTROL, COOKIE, HeaderName, HeaderValue, SET_COOKIE};

use super::dates::{self, Dates, Outdated};
use crate::config::model::{CookieAttributes, CookieMode, CookiePersistence, InsertedCookie, Server};

/// Between the server and the application's value in mode `prefix`.
const DELIMITER: u8 = b'~';

/// What a request's cookie says of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Where it is.
    pub server: ClaimedServer,
    /// How old it is.
    pub dates: Dates,
    /// Mode `prefix`: a server stands before the application's value.
    pub is_prefixed: bool,
}

/// Where a session is, by its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimedServer {
    /// There is no such cookie.
    None,
    /// The cookie names no server that is there.
    Unknown,
    /// It is not to be used any more.
    Outdated(Outdated),
    /// The index of the server it names.
    Known(usize),
}

/// What became of the response's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseCookie {
    /// There is none.
    None,
    /// Ours, where the client had none that leads to this server.
    Inserted,
    /// Ours again, for its dates.
    Updated,
    /// The application's, with our server in it.
    Rewritten,
    /// The application set one of this name, which the client does not get.
    Deleted,
}

/// A response that may set the cookie.
pub struct Answer<'a> {
    /// Who gave it.
    pub server: &'a Server,
    /// The headers of the request as the server got it.
    pub request: &'a HeaderMap,
    /// The request's cookie led there.
    pub was_claimed: bool,
    /// The request was a POST.
    pub is_to_post: bool,
    /// Seconds since 1970; looked at where the cookie is dated.
    pub now: u64,
}

/// What the client's cookie says, at `now` in seconds since 1970; of several cookies the first that names a server.
pub fn claim(cookie: &CookiePersistence, servers: &[Server], headers: &HeaderMap, now: u64) -> Claim {
    let mut claim = Claim { server: ClaimedServer::None, dates: Dates::default(), is_prefixed: false };
    let pieces = headers.get_all(COOKIE).iter().flat_map(|line| pieces(line.as_bytes()));
    for value in pieces.filter_map(|piece| value_of(&cookie.name, piece)) {
        claim = judge(cookie, servers, unquote(value).1, now);
        if matches!(claim.server, ClaimedServer::Known(_)) {
            break;
        }
    }
    claim
}

fn judge(cookie: &CookiePersistence, servers: &[Server], value: &[u8], now: u64) -> Claim {
    let mut is_prefixed = false;
    let (named, dates) = match &cookie.mode {
        CookieMode::Prefix => {
            let split = split_prefix(value);
            is_prefixed = split.is_some();
            (split.map_or(value, |(server, _)| server), Dates::default())
        }
        CookieMode::Rewrite | CookieMode::Insert(_) => {
            let value = value.strip_suffix(b"\"").unwrap_or(value);
            let end = value.iter().position(|byte| *byte == dates::DELIMITER).unwrap_or(value.len());
            let (named, dates) = value.split_at(end);
            (named, Dates::parse(dates))
        }
    };
    if let CookieMode::Insert(cookie) = &cookie.mode
        && let Err(outdated) = dates.check(cookie, now)
    {
        return Claim { server: ClaimedServer::Outdated(outdated), dates: Dates::default(), is_prefixed };
    }
    let known = servers.iter().position(|server| server.cookie.as_bytes() == named);
    Claim { server: known.map_or(ClaimedServer::Unknown, ClaimedServer::Known), dates, is_prefixed }
}

/// Take from the request what the server is not to see: the prefix, or the whole of our cookie.
///
/// A prefix goes even if it names no server we know: it is ours from before a change of the configuration.
pub fn prepare_request(cookie: &CookiePersistence, headers: &mut HeaderMap) {
    let edit_piece: fn(&str, &[u8]) -> Option<Vec<u8>> = match &cookie.mode {
        CookieMode::Prefix => without_prefix,
        CookieMode::Insert(InsertedCookie { indirect: true, .. }) => without_cookie,
        CookieMode::Insert(_) | CookieMode::Rewrite => return,
    };
    edit_lines(
        headers,
        COOKIE,
        |line| pieces(line).any(|piece| value_of(&cookie.name, piece).is_some()),
        |line| {
            let kept: Vec<Vec<u8>> = pieces(line).filter_map(|piece| edit_piece(&cookie.name, piece)).collect();
            let line = kept.join(&b';');
            let line = line.trim_ascii();
            (!line.is_empty()).then(|| line.to_vec())
        },
    );
}

/// Put into the response what brings the client back to the server that gave it.
pub fn prepare_response(
    cookie: &CookiePersistence,
    claim: &Claim,
    answer: &Answer<'_>,
    headers: &mut HeaderMap,
) -> ResponseCookie {
    let server = answer.server.cookie.as_bytes();
    let (name, bytes) = (cookie.name.as_str(), cookie.name.as_bytes());
    let concerns = |line: &[u8]| pieces(line).next().is_some_and(|piece| value_of(name, piece).is_some());
    match &cookie.mode {
        CookieMode::Prefix => {
            let was_set = edit_lines(headers, SET_COOKIE, concerns, |line| {
                let value = pieces(line).next().and_then(|piece| value_of(name, piece))?;
                let (quote, inner) = unquote(value);
                Some([bytes, b"=", quote, server, &[DELIMITER], inner, attributes(line)].concat())
            });
            if was_set {
                return ResponseCookie::Rewritten;
            }
            // It went to another server, and the application, which does not know that, leaves it at what the client has.
            if claim.is_prefixed && !answer.was_claimed {
                return move_session(cookie, answer, headers);
            }
            ResponseCookie::None
        }
        CookieMode::Rewrite => {
            let was_set = edit_lines(headers, SET_COOKIE, concerns, |line| {
                Some([bytes, b"=", server, attributes(line)].concat())
            });
            if was_set {
                return ResponseCookie::Rewritten;
            }
            if matches!(claim.server, ClaimedServer::Known(_)) && !answer.was_claimed {
                return move_session(cookie, answer, headers);
            }
            ResponseCookie::None
        }
        CookieMode::Insert(options) => {
            let was_set = edit_lines(headers, SET_COOKIE, concerns, |_| None);
            let is_needed = !answer.was_claimed || claim.dates.are_stale(options, answer.now);
            if !is_needed || options.postonly && !answer.is_to_post {
                return if was_set { ResponseCookie::Deleted } else { ResponseCookie::None };
            }
            let dates = claim.dates.renewed(options, answer.now).to_string();
            let value = [server, dates.as_bytes()].concat();
            set(cookie, &value, options.nocache && !answer.is_to_post, headers);
            if answer.was_claimed { ResponseCookie::Updated } else { ResponseCookie::Inserted }
        }
    }
}

/// Makes the client's cookie lead to the server that has its session now.
#[cold]
fn move_session(cookie: &CookiePersistence, answer: &Answer<'_>, headers: &mut HeaderMap) -> ResponseCookie {
    let server = answer.server.cookie.as_bytes();
    let value = match &cookie.mode {
        CookieMode::Prefix => {
            let Some(value) = value_in_request(&cookie.name, answer.request) else { return ResponseCookie::None };
            let (quote, inner) = unquote(value);
            [quote, server, &[DELIMITER], inner].concat()
        }
        CookieMode::Rewrite | CookieMode::Insert(_) => server.to_vec(),
    };
    // It is one client's own, which its application has not said of this response.
    set(cookie, &value, !answer.is_to_post, headers);
    ResponseCookie::Inserted
}

/// Sets a cookie of ours. What a POST is answered no cache keeps unasked.
fn set(cookie: &CookiePersistence, value: &[u8], is_private: bool, headers: &mut HeaderMap) {
    let CookieAttributes { httponly, secure, domain, same_site } = &cookie.attributes;
    let mut line = [cookie.name.as_bytes(), b"=", value, b"; path=/"].concat();
    if let Some(domain) = domain {
        line.extend_from_slice(b"; domain=");
        line.extend_from_slice(domain.as_bytes());
    }
    if *httponly {
        line.extend_from_slice(b"; HttpOnly");
    }
    if *secure {
        line.extend_from_slice(b"; Secure");
    }
    if let Some(same_site) = same_site {
        line.extend_from_slice(b"; SameSite=");
        line.extend_from_slice(same_site.word().as_bytes());
    }
    if let Ok(line) = HeaderValue::try_from(line) {
        headers.append(SET_COOKIE, line);
    }
    if is_private && may_be_cached(headers) {
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

/// May a cache that many share keep it, as far as it says itself (RFC 9111 §5.2.2)?
fn may_be_cached(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let mut directives = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    !directives.any(|directive| {
        [b"private".as_slice(), b"no-store", b"no-cache"].iter().any(|word| directive.eq_ignore_ascii_case(word))
    })
}

/// The value of a cookie of the request.
pub fn value_in_request<'a>(name: &str, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    headers.get_all(COOKIE).iter().flat_map(|line| pieces(line.as_bytes())).find_map(|piece| value_of(name, piece))
}

/// The value of a cookie that a response sets.
pub fn value_in_response<'a>(name: &str, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let set = headers.get_all(SET_COOKIE).iter().filter_map(|line| pieces(line.as_bytes()).next());
    set.filter_map(|piece| value_of(name, piece)).next_back()
}

fn without_cookie(name: &str, piece: &[u8]) -> Option<Vec<u8>> {
    value_of(name, piece).is_none().then(|| piece.to_vec())
}

fn without_prefix(name: &str, piece: &[u8]) -> Option<Vec<u8>> {
    let own = value_of(name, piece).and_then(|value| {
        let (quote, inner) = unquote(value);
        Some([b" ", name.as_bytes(), b"=", quote, split_prefix(inner)?.1].concat())
    });
    own.or_else(|| Some(piece.to_vec()))
}

/// What stands behind the value, with its semicolon.
fn attributes(line: &[u8]) -> &[u8] {
    line.iter().position(|byte| *byte == b';').and_then(|end| line.get(end..)).unwrap_or_default()
}

fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';')
}

/// The value in ` NAME = value `, if it is this cookie.
fn value_of<'a>(name: &str, piece: &'a [u8]) -> Option<&'a [u8]> {
    let equals = piece.iter().position(|byte| *byte == b'=')?;
    let (own, value) = (piece.get(..equals)?, piece.get(equals + 1..)?);
    (own.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
}

/// The opening quote, if there is one, and all that follows it (a closing quote stays where it is).
fn unquote(value: &[u8]) -> (&[u8], &[u8]) {
    match value {
        [b'"', inner @ ..] => (b"\"", inner),
        _ => (b"", value),
    }
}

/// The server's part and the application's.
fn split_prefix(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let delimiter = value.iter().position(|byte| *byte == DELIMITER)?;
    Some((value.get(..delimiter)?, value.get(delimiter + 1..)?))
}

/// Edit every line of a header if any of them concerns us, and say whether one does; a line edited to `None` is dropped.
fn edit_lines(
    headers: &mut HeaderMap,
    name: HeaderName,
    concerns: impl Fn(&[u8]) -> bool,
    edit: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> bool {
    if !headers.get_all(&name).iter().any(|line| concerns(line.as_bytes())) {
        return false;
    }
    let lines: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
    headers.remove(&name);
    for line in lines {
        if !concerns(line.as_bytes()) {
            headers.append(&name, line);
        } else if let Some(edited) = edit(line.as_bytes()) {
            headers.append(&name, HeaderValue::try_from(edited).unwrap_or(line));
        }
    }
    true
}

#[cfg(test)]
pub(super) mod tests;
