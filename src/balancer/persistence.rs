//! Sessions kept by a cookie, in the request's `Cookie` and the response's `Set-Cookie` (RFC 6265).
//!
//! Mode `prefix`: the application's own cookie goes out as `NAME=SERVER~value` and comes in as `NAME=value`, so the
//! application never sees the prefix. Mode `insert`: a cookie of ours, `NAME=SERVER; path=/`, which the server never sees.

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderName, HeaderValue, SET_COOKIE};

use crate::config::model::{CookieMode, CookiePersistence, Server};

/// Between the server and the application's value in mode `prefix`.
const DELIMITER: u8 = b'~';

/// The server that the client's cookie names; `None` if it has no such cookie or it names a server that is not there.
pub fn requested_server(cookie: &CookiePersistence, servers: &[Server], headers: &HeaderMap) -> Option<usize> {
    let pieces = headers.get_all(COOKIE).iter().flat_map(|line| pieces(line.as_bytes()));
    pieces.filter_map(|piece| value_of(cookie, piece)).find_map(|value| {
        let (_, inner) = unquote(value);
        let named = match cookie.mode {
            CookieMode::Prefix => split_prefix(inner)?.0,
            CookieMode::Insert => inner.strip_suffix(b"\"").unwrap_or(inner),
        };
        servers.iter().position(|server| server.cookie.as_bytes() == named)
    })
}

/// Take from the request what the server is not to see: the prefix, or the whole of our cookie.
///
/// A prefix goes even if it names no server we know: it is ours from before a change of the configuration.
pub fn prepare_request(cookie: &CookiePersistence, headers: &mut HeaderMap) {
    edit_lines(
        headers,
        COOKIE,
        |line| pieces(line).any(|piece| value_of(cookie, piece).is_some()),
        |line| {
            let kept: Vec<Vec<u8>> = pieces(line).filter_map(|piece| for_server(cookie, piece)).collect();
            let line = kept.join(&b';');
            let line = line.trim_ascii();
            (!line.is_empty()).then(|| line.to_vec())
        },
    );
}

/// Put into the response what brings the client back to `server`.
///
/// `client_had_it`: the request's cookie named this very server (see [`requested_server`]), so mode `insert` need not set it.
pub fn prepare_response(cookie: &CookiePersistence, server: &Server, client_had_it: bool, headers: &mut HeaderMap) {
    let concerns = |line: &[u8]| pieces(line).next().is_some_and(|piece| value_of(cookie, piece).is_some());
    match cookie.mode {
        CookieMode::Prefix => edit_lines(headers, SET_COOKIE, concerns, |line| {
            let value = pieces(line).next().and_then(|piece| value_of(cookie, piece))?;
            let (quote, inner) = unquote(value);
            let attributes =
                line.iter().position(|byte| *byte == b';').and_then(|end| line.get(end..)).unwrap_or_default();
            let name = cookie.name.as_bytes();
            Some([name, b"=", quote, server.cookie.as_bytes(), &[DELIMITER], inner, attributes].concat())
        }),
        CookieMode::Insert => {
            edit_lines(headers, SET_COOKIE, concerns, |_| None);
            if client_had_it {
                return;
            }
            if let Ok(line) = HeaderValue::try_from(format!("{}={}; path=/", cookie.name, server.cookie)) {
                headers.append(SET_COOKIE, line);
            }
        }
    }
}

/// One piece of a `Cookie` line as the server sees it; `None`: not at all.
fn for_server(cookie: &CookiePersistence, piece: &[u8]) -> Option<Vec<u8>> {
    let Some(value) = value_of(cookie, piece) else {
        return Some(piece.to_vec());
    };
    if cookie.mode == CookieMode::Insert {
        return None;
    }
    let (quote, inner) = unquote(value);
    match split_prefix(inner) {
        Some((_, own)) => Some([b" ", cookie.name.as_bytes(), b"=", quote, own].concat()),
        None => Some(piece.to_vec()),
    }
}

fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';')
}

/// The value in ` NAME = value `, if it is this cookie.
fn value_of<'a>(cookie: &CookiePersistence, piece: &'a [u8]) -> Option<&'a [u8]> {
    let equals = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (piece.get(..equals)?, piece.get(equals + 1..)?);
    (name.trim_ascii() == cookie.name.as_bytes()).then(|| value.trim_ascii())
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

/// Edit every line of a header if any of them concerns us; a line edited to `None` is dropped.
fn edit_lines(
    headers: &mut HeaderMap,
    name: HeaderName,
    concerns: impl Fn(&[u8]) -> bool,
    edit: impl Fn(&[u8]) -> Option<Vec<u8>>,
) {
    if !headers.get_all(&name).iter().any(|line| concerns(line.as_bytes())) {
        return;
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balancer::state::tests::server;

    fn cookie(mode: CookieMode) -> CookiePersistence {
        CookiePersistence { name: "SID".into(), mode }
    }

    fn servers() -> Vec<Server> {
        vec![Server { cookie: "A".into(), ..server("a", 1) }, Server { cookie: "B".into(), ..server("b", 1) }]
    }

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_str(line).unwrap())).collect()
    }

    fn lines(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
        headers.get_all(name).iter().map(|line| line.to_str().unwrap()).collect()
    }

    /// The request's lines, which server they name, and the lines that the server gets.
    fn check_request(mode: CookieMode, before: &[&str], named: Option<usize>, after: &[&str]) {
        let mut request = headers(COOKIE, before);
        assert_eq!(requested_server(&cookie(mode), &servers(), &request), named, "{before:?}");
        prepare_request(&cookie(mode), &mut request);
        assert_eq!(lines(&request, COOKIE), after, "{before:?}");
    }

    #[test]
    fn prefix_shows_the_application_its_own_value() {
        let check = |before: &[&str], named, after: &[&str]| check_request(CookieMode::Prefix, before, named, after);
        check(&["SID=A~x"], Some(0), &["SID=x"]);
        check(&["SID=B~x~y"], Some(1), &["SID=x~y"]);
        check(&["a=1; SID=B~x; b=2"], Some(1), &["a=1; SID=x; b=2"]);
        check(&["a=1;SID = B~x ;b=2"], Some(1), &["a=1; SID=x;b=2"]);
        check(&["SID=\"B~x\""], Some(1), &["SID=\"x\""]);
        check(&["SID=B~\"x\""], Some(1), &["SID=\"x\""]);
        check(&["a=1", "SID=B~x", "b=2"], Some(1), &["a=1", "SID=x", "b=2"]);
        check(&["SID=A~"], Some(0), &["SID="]);
        // A server that is gone; one that never was; the first that names a server counts.
        check(&["SID=GONE~x"], None, &["SID=x"]);
        check(&["SID=x"], None, &["SID=x"]);
        check(&["SID=old~x; SID=B~y"], Some(1), &["SID=x; SID=y"]);
        // Other cookies, whatever their names and values are made of.
        check(&["sid=A~x; XSID=A~x; SIDX=A~x; SID; a=SID=A~x"], None, &["sid=A~x; XSID=A~x; SIDX=A~x; SID; a=SID=A~x"]);
        check(&[], None, &[]);
    }

    #[test]
    fn insert_hides_our_cookie_from_the_server() {
        let check = |before: &[&str], named, after: &[&str]| check_request(CookieMode::Insert, before, named, after);
        check(&["SID=A"], Some(0), &[]);
        check(&["a=1; SID=B; b=2"], Some(1), &["a=1; b=2"]);
        check(&["SID=B; b=2"], Some(1), &["b=2"]);
        check(&["SID=\"B\""], Some(1), &[]);
        check(&["SID=GONE; a=1"], None, &["a=1"]);
        check(&["a=1", "SID=B", "b=2"], Some(1), &["a=1", "b=2"]);
        check(&["a=1;b=2"], None, &["a=1;b=2"]);
    }

    #[test]
    fn prefix_marks_the_applications_cookie_alone() {
        let before = ["SID=x; Path=/; HttpOnly", "other=A~1; SID=2", "SID=\"y z\"", " SID = ", "SID"];
        let mut response = headers(SET_COOKIE, &before);
        prepare_response(&cookie(CookieMode::Prefix), &servers()[1], true, &mut response);
        let after = ["SID=B~x; Path=/; HttpOnly", "other=A~1; SID=2", "SID=\"B~y z\"", "SID=B~", "SID"];
        assert_eq!(lines(&response, SET_COOKIE), after);
    }

    #[test]
    fn insert_sets_our_cookie_unless_the_client_has_it() {
        for (client_had_it, after) in [(false, vec!["a=1", "SID=A; path=/"]), (true, vec!["a=1"])] {
            let mut response = headers(SET_COOKIE, &["a=1", "SID=the application's, which ours replaces"]);
            prepare_response(&cookie(CookieMode::Insert), &servers()[0], client_had_it, &mut response);
            assert_eq!(lines(&response, SET_COOKIE), after);
        }
    }

    proptest! {
        #[test]
        fn what_the_application_set_comes_back_to_it_at_the_same_server(
            value in "[!#-+\\--:<-\\[\\]-~]{0,20}", quoted: bool, attributes in "(; [A-Za-z]{1,8}){0,3}", server in 0..2_usize,
        ) {
            let value = if quoted { format!("\"{value}\"") } else { value };
            let cookie = cookie(CookieMode::Prefix);
            let mut response = headers(SET_COOKIE, &[&format!("SID={value}{attributes}")]);
            prepare_response(&cookie, &servers()[server], false, &mut response);

            let set = lines(&response, SET_COOKIE)[0];
            let mut request = headers(COOKIE, &["first=1", set.split(';').next().unwrap()]);
            prop_assert_eq!(requested_server(&cookie, &servers(), &request), Some(server));
            prepare_request(&cookie, &mut request);
            prop_assert_eq!(lines(&request, COOKIE), ["first=1".to_owned(), format!("SID={value}")]);
        }

        #[test]
        fn no_bytes_confuse_it(
            lines in proptest::collection::vec("([ \t;=~\"A]|SID|\u{80}){0,12}", 0..3), insert: bool,
        ) {
            let cookie = cookie(if insert { CookieMode::Insert } else { CookieMode::Prefix });
            for name in [COOKIE, SET_COOKIE] {
                let mut headers: HeaderMap =
                    lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap())).collect();
                requested_server(&cookie, &servers(), &headers);
                prepare_request(&cookie, &mut headers);
                prepare_response(&cookie, &servers()[0], false, &mut headers);
                if insert {
                    prop_assert_eq!(requested_server(&cookie, &servers(), &headers), None);
                }
            }
        }
    }
}
