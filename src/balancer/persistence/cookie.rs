//! Sessions kept by a cookie, in the request's `Cookie` and the response's `Set-Cookie` (RFC 6265).
//!
//! Mode `prefix`: the application's own cookie goes out as `NAME=SERVER~value` and comes in as `NAME=value`, so the
//! application never sees the prefix. Mode `rewrite`: the application sets a cookie when it wants its client to come back, and
//! its value becomes the server's. Mode `insert`: a cookie of ours, `NAME=SERVER; path=/`, perhaps with dates.

use hyper::HeaderMap;
use hyper::header::{CACHE_CONTROL, COOKIE, HeaderName, HeaderValue, SET_COOKIE};

use super::dates::{self, Dates, Outdated};
use crate::config::model::{CookieMode, CookiePersistence, InsertedCookie, Server};

/// Between the server and the application's value in mode `prefix`.
const DELIMITER: u8 = b'~';

/// What a request's cookie says of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Where it is.
    pub server: ClaimedServer,
    /// How old it is.
    pub dates: Dates,
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
    /// The request's cookie led there.
    pub was_claimed: bool,
    /// The request was a POST.
    pub is_to_post: bool,
    /// Seconds since 1970; looked at where the cookie is dated.
    pub now: u64,
}

/// What the client's cookie says, at `now` in seconds since 1970; of several cookies the first that names a server.
pub fn claim(cookie: &CookiePersistence, servers: &[Server], headers: &HeaderMap, now: u64) -> Claim {
    let mut claim = Claim { server: ClaimedServer::None, dates: Dates::default() };
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
    let (named, dates) = match &cookie.mode {
        CookieMode::Prefix => (split_prefix(value).map_or(b"".as_slice(), |(server, _)| server), Dates::default()),
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
        return Claim { server: ClaimedServer::Outdated(outdated), dates: Dates::default() };
    }
    let known = servers.iter().position(|server| server.cookie.as_bytes() == named);
    Claim { server: known.map_or(ClaimedServer::Unknown, ClaimedServer::Known), dates }
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
            if was_set { ResponseCookie::Rewritten } else { ResponseCookie::None }
        }
        CookieMode::Rewrite => {
            let was_set = edit_lines(headers, SET_COOKIE, concerns, |line| {
                Some([bytes, b"=", server, attributes(line)].concat())
            });
            if was_set { ResponseCookie::Rewritten } else { ResponseCookie::None }
        }
        CookieMode::Insert(options) => {
            let was_set = edit_lines(headers, SET_COOKIE, concerns, |_| None);
            let is_needed = !answer.was_claimed || claim.dates.are_stale(options, answer.now);
            if !is_needed || options.postonly && !answer.is_to_post {
                return if was_set { ResponseCookie::Deleted } else { ResponseCookie::None };
            }
            insert(name, options, claim, answer, headers);
            if answer.was_claimed { ResponseCookie::Updated } else { ResponseCookie::Inserted }
        }
    }
}

fn insert(name: &str, options: &InsertedCookie, claim: &Claim, answer: &Answer<'_>, headers: &mut HeaderMap) {
    let dates = claim.dates.renewed(options, answer.now);
    let mut line = format!("{name}={}{dates}; path=/", answer.server.cookie);
    if let Some(domain) = &options.domain {
        line.push_str("; domain=");
        line.push_str(domain);
    }
    if options.httponly {
        line.push_str("; HttpOnly");
    }
    if options.secure {
        line.push_str("; Secure");
    }
    if let Ok(line) = HeaderValue::try_from(line) {
        headers.append(SET_COOKIE, line);
    }
    if options.nocache && may_be_cached(headers) {
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
    set.filter_map(|piece| value_of(name, piece)).last()
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
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balancer::state::tests::server;

    const NOW: u64 = 1_795_190_400;

    /// As it is where nothing is written.
    pub(in crate::balancer::persistence) fn inserted() -> InsertedCookie {
        InsertedCookie {
            indirect: true,
            nocache: false,
            postonly: false,
            httponly: false,
            secure: false,
            domain: None,
            max_idle: None,
            max_life: None,
        }
    }

    fn insert(change: impl FnOnce(&mut InsertedCookie)) -> CookieMode {
        let mut cookie = inserted();
        change(&mut cookie);
        CookieMode::Insert(cookie)
    }

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

    fn claim_of(mode: CookieMode, lines: &[&str]) -> Claim {
        claim(&cookie(mode), &servers(), &headers(COOKIE, lines), NOW)
    }

    /// The request's lines, which server they name, and the lines that the server gets.
    fn check_request(mode: CookieMode, before: &[&str], named: ClaimedServer, after: &[&str]) {
        assert_eq!(claim_of(mode.clone(), before).server, named, "{before:?}");
        let mut request = headers(COOKIE, before);
        prepare_request(&cookie(mode), &mut request);
        assert_eq!(lines(&request, COOKIE), after, "{before:?}");
    }

    /// What an answer of server B to a request with these cookies becomes, and the log's word for it.
    fn answer_of_b(mode: CookieMode, request: &[&str], set: &[&str], is_to_post: bool) -> (HeaderMap, ResponseCookie) {
        let claim = claim_of(mode.clone(), request);
        let mut response = headers(SET_COOKIE, set);
        let was_claimed = claim.server == ClaimedServer::Known(1);
        let answer = Answer { server: &servers()[1], was_claimed, is_to_post, now: NOW };
        let done = prepare_response(&cookie(mode), &claim, &answer, &mut response);
        (response, done)
    }

    use ClaimedServer::{Known, Unknown};

    #[test]
    fn prefix_shows_the_application_its_own_value() {
        let check = |before: &[&str], named, after: &[&str]| check_request(CookieMode::Prefix, before, named, after);
        check(&["SID=A~x"], Known(0), &["SID=x"]);
        check(&["SID=B~x~y"], Known(1), &["SID=x~y"]);
        check(&["a=1; SID=B~x; b=2"], Known(1), &["a=1; SID=x; b=2"]);
        check(&["a=1;SID = B~x ;b=2"], Known(1), &["a=1; SID=x;b=2"]);
        check(&["SID=\"B~x\""], Known(1), &["SID=\"x\""]);
        check(&["SID=B~\"x\""], Known(1), &["SID=\"x\""]);
        check(&["a=1", "SID=B~x", "b=2"], Known(1), &["a=1", "SID=x", "b=2"]);
        check(&["SID=A~"], Known(0), &["SID="]);
        // A server that is gone; one that never was; the first that names a server counts.
        check(&["SID=GONE~x"], Unknown, &["SID=x"]);
        check(&["SID=x"], Unknown, &["SID=x"]);
        check(&["SID=old~x; SID=B~y"], Known(1), &["SID=x; SID=y"]);
        // Other cookies, whatever their names and values are made of.
        let others = ["sid=A~x; XSID=A~x; SIDX=A~x; SID; a=SID=A~x"];
        check(&others, ClaimedServer::None, &others);
        check(&[], ClaimedServer::None, &[]);
    }

    #[test]
    fn insert_hides_our_cookie_from_the_server() {
        let check = |before: &[&str], named, after: &[&str]| check_request(insert(|_| {}), before, named, after);
        check(&["SID=A"], Known(0), &[]);
        check(&["a=1; SID=B; b=2"], Known(1), &["a=1; b=2"]);
        check(&["SID=B; b=2"], Known(1), &["b=2"]);
        check(&["SID=\"B\""], Known(1), &[]);
        check(&["SID=GONE; a=1"], Unknown, &["a=1"]);
        check(&["SID="], Unknown, &[]);
        check(&["a=1", "SID=B", "b=2"], Known(1), &["a=1", "b=2"]);
        check(&["SID=B|awBug|awBug; b=2"], Known(1), &["b=2"]);
        check(&["SID=\"A|awBug\""], Known(0), &[]);
        check(&["a=1;b=2"], ClaimedServer::None, &["a=1;b=2"]);
    }

    #[test]
    fn rewrite_and_insert_that_is_not_indirect_leave_the_request_alone() {
        for mode in [CookieMode::Rewrite, insert(|cookie| cookie.indirect = false)] {
            let check = |before: &[&str], named| check_request(mode.clone(), before, named, before);
            check(&["a=1; SID=B; b=2"], Known(1));
            check(&["SID=A|awBug"], Known(0));
            check(&["SID=A~x"], Unknown);
        }
    }

    #[test]
    fn prefix_marks_the_applications_cookie_alone() {
        let before = ["SID=x; Path=/; HttpOnly", "other=A~1; SID=2", "SID=\"y z\"", " SID = ", "SID"];
        let (response, done) = answer_of_b(CookieMode::Prefix, &["SID=B~x"], &before, false);
        let after = ["SID=B~x; Path=/; HttpOnly", "other=A~1; SID=2", "SID=\"B~y z\"", "SID=B~", "SID"];
        assert_eq!((lines(&response, SET_COOKIE), done), (after.to_vec(), ResponseCookie::Rewritten));
        assert_eq!(answer_of_b(CookieMode::Prefix, &[], &["a=1"], true).1, ResponseCookie::None);
    }

    #[test]
    fn rewrite_puts_the_server_in_the_place_of_the_value() {
        let before = ["SID=whatever; Path=/; HttpOnly", "other=1; SID=2", "SID=\"y z\"", "SID="];
        let (response, done) = answer_of_b(CookieMode::Rewrite, &["SID=B"], &before, false);
        let after = ["SID=B; Path=/; HttpOnly", "other=1; SID=2", "SID=B", "SID=B"];
        assert_eq!((lines(&response, SET_COOKIE), done), (after.to_vec(), ResponseCookie::Rewritten));
        let (response, done) = answer_of_b(CookieMode::Rewrite, &[], &["a=1"], true);
        assert_eq!((lines(&response, SET_COOKIE), done), (vec!["a=1"], ResponseCookie::None));
    }

    #[test]
    fn insert_sets_our_cookie_where_the_client_does_not_have_it() {
        use ResponseCookie::{Deleted, Inserted, None, Updated};
        let ours = ["SID=the application's, which ours replaces", "a=1"];
        let with_idle = |cookie: &mut InsertedCookie| cookie.max_idle = Some(std::time::Duration::from_secs(600));
        let with_life = |cookie: &mut InsertedCookie| cookie.max_life = Some(std::time::Duration::from_secs(600));
        let post_only = |cookie: &mut InsertedCookie| cookie.postonly = true;
        /// The mode, the request's cookie, what the application sets, whether it is a POST; what the client gets.
        type Row<'a> = (CookieMode, &'a str, &'a [&'a str], bool, &'a [&'a str], ResponseCookie);
        let rows: [Row<'_>; 14] = [
            (insert(|_| {}), "", &["a=1"], false, &["a=1", "SID=B; path=/"], Inserted),
            (insert(|_| {}), "", &ours, false, &["a=1", "SID=B; path=/"], Inserted),
            (insert(|_| {}), "SID=A", &[], false, &["SID=B; path=/"], Inserted),
            (insert(|_| {}), "SID=B", &["a=1"], false, &["a=1"], None),
            (insert(|_| {}), "SID=B", &ours, false, &["a=1"], Deleted),
            (insert(|_| {}), "SID=B|awBuf", &[], false, &["SID=B; path=/"], Updated),
            (insert(with_idle), "", &[], false, &["SID=B|awBug; path=/"], Inserted),
            (insert(with_idle), "SID=B|awBuf", &[], false, &["SID=B|awBug; path=/"], Updated),
            (insert(with_idle), "SID=B|awBug", &[], false, &[], None),
            (insert(with_life), "SID=B|awBuf|awBue", &[], false, &["SID=B|awBug|awBue; path=/"], Updated),
            // A server that is gone; the session is as old as it is.
            (insert(with_life), "SID=X|awBuf|awBue", &[], false, &["SID=B|awBug|awBue; path=/"], Inserted),
            (insert(with_life), "SID=B|aAAAA|aAAAA", &[], false, &["SID=B|awBug|awBug; path=/"], Inserted),
            (insert(post_only), "", &ours, false, &["a=1"], Deleted),
            (insert(post_only), "", &ours, true, &["a=1", "SID=B; path=/"], Inserted),
        ];
        for (mode, request, set, is_to_post, expected, word) in rows {
            let (response, done) = answer_of_b(mode, &[request], set, is_to_post);
            assert_eq!((lines(&response, SET_COOKIE).as_slice(), done), (expected, word), "{request:?}");
        }
    }

    #[test]
    fn a_cookie_has_the_attributes_it_was_given() {
        let mode = insert(|cookie| {
            (cookie.httponly, cookie.secure, cookie.domain) = (true, true, Some(".example.com".into()));
        });
        let (response, _) = answer_of_b(mode, &[], &[], false);
        assert_eq!(lines(&response, SET_COOKIE), ["SID=B; path=/; domain=.example.com; HttpOnly; Secure"]);
        assert_eq!(lines(&response, CACHE_CONTROL), [""; 0]);
    }

    #[test]
    fn a_response_that_sets_our_cookie_is_kept_from_caches() {
        let rows: [(&[&str], &[&str]); 5] = [
            (&[], &["private"]),
            (&["public, max-age=60"], &["public, max-age=60", "private"]),
            (&["max-age=60, Private"], &["max-age=60, Private"]),
            (&["no-store"], &["no-store"]),
            (&["max-age=60", "no-cache"], &["max-age=60", "no-cache"]),
        ];
        let cookie = cookie(insert(|cookie| cookie.nocache = true));
        for (before, after) in rows {
            for (was_claimed, expected) in [(false, after), (true, before)] {
                let mut response = headers(CACHE_CONTROL, before);
                let claim = Claim { server: ClaimedServer::None, dates: Dates::default() };
                let answer = Answer { server: &servers()[0], was_claimed, is_to_post: false, now: NOW };
                prepare_response(&cookie, &claim, &answer, &mut response);
                assert_eq!(lines(&response, CACHE_CONTROL), expected, "{before:?}");
            }
        }
    }

    #[test]
    fn a_cookie_too_old_names_nobody() {
        let mode = insert(|cookie| {
            cookie.max_idle = Some(std::time::Duration::from_secs(60));
            cookie.max_life = Some(std::time::Duration::from_secs(600));
        });
        let named = |value: &str| claim_of(mode.clone(), &[value]).server;
        assert_eq!(named("SID=A|awBug|awBug"), Known(0));
        assert_eq!(named("SID=A"), Known(0), "one without dates is accepted, and then gets them");
        assert_eq!(named("SID=A|awBAA|awBug"), ClaimedServer::Outdated(Outdated::Idle));
        assert_eq!(named("SID=A|awBug|awAAA"), ClaimedServer::Outdated(Outdated::Old));
        assert_eq!(named("SID=A|awBAA; SID=B"), Known(1));
    }

    proptest! {
        #[test]
        fn what_the_application_set_comes_back_to_it_at_the_same_server(
            value in "[!#-+\\--:<-\\[\\]-~]{0,20}", quoted: bool, attributes in "(; [A-Za-z]{1,8}){0,3}", server in 0..2_usize,
        ) {
            let value = if quoted { format!("\"{value}\"") } else { value };
            let cookie = cookie(CookieMode::Prefix);
            let mut response = headers(SET_COOKIE, &[&format!("SID={value}{attributes}")]);
            let answer = Answer { server: &servers()[server], was_claimed: false, is_to_post: false, now: NOW };
            prepare_response(&cookie, &claim_of(CookieMode::Prefix, &[]), &answer, &mut response);

            let set = lines(&response, SET_COOKIE)[0];
            let mut request = headers(COOKIE, &["first=1", set.split(';').next().unwrap()]);
            prop_assert_eq!(claim(&cookie, &servers(), &request, NOW).server, Known(server));
            prepare_request(&cookie, &mut request);
            prop_assert_eq!(lines(&request, COOKIE), ["first=1".to_owned(), format!("SID={value}")]);
        }

        #[test]
        fn no_bytes_confuse_it(
            lines in proptest::collection::vec("([ \t;=~|\"A/]|SID|\u{80}){0,16}", 0..3), mode in 0..4,
        ) {
            let seconds = std::time::Duration::from_secs;
            let mode = match mode {
                0 => CookieMode::Prefix,
                1 => CookieMode::Rewrite,
                2 => insert(|cookie| cookie.max_life = Some(seconds(60))),
                _ => insert(|cookie| (cookie.indirect, cookie.max_idle) = (false, Some(seconds(60)))),
            };
            let is_hidden = matches!(mode, CookieMode::Insert(InsertedCookie { indirect: true, .. }));
            let cookie = cookie(mode);
            for name in [COOKIE, SET_COOKIE] {
                let mut headers: HeaderMap =
                    lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap())).collect();
                let before = claim(&cookie, &servers(), &headers, NOW);
                prepare_request(&cookie, &mut headers);
                let answer = Answer { server: &servers()[0], was_claimed: false, is_to_post: true, now: NOW };
                prepare_response(&cookie, &before, &answer, &mut headers);
                if is_hidden {
                    prop_assert_eq!(claim(&cookie, &servers(), &headers, NOW).server, ClaimedServer::None);
                }
            }
        }
    }
}
