//! Each mode on requests and responses as they come.

use proptest::prelude::*;

use super::*;
use crate::balancer::state::tests::server;
use crate::config::model::SameSite;

const NOW: u64 = 1_795_190_400;

/// As it is where nothing is written.
pub(in crate::balancer::persistence) fn inserted() -> InsertedCookie {
    InsertedCookie { indirect: true, nocache: false, postonly: false, max_idle: None, max_life: None }
}

fn insert(change: impl FnOnce(&mut InsertedCookie)) -> CookieMode {
    let mut cookie = inserted();
    change(&mut cookie);
    CookieMode::Insert(cookie)
}

fn cookie(mode: CookieMode) -> CookiePersistence {
    let attributes = CookieAttributes {
        httponly: !matches!(mode, CookieMode::Insert(_)),
        secure: false,
        domain: None,
        same_site: None,
    };
    CookiePersistence { name: "SID".into(), mode, attributes }
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
    let cookie = cookie(mode);
    let mut request = headers(COOKIE, request);
    prepare_request(&cookie, &mut request);
    let answer = Answer { server: &servers()[1], request: &request, was_claimed, is_to_post, now: NOW };
    let done = prepare_response(&cookie, &claim, &answer, &mut response);
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
    check(&["SID=A"], Known(0), &["SID=A"]);
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

/// Where the application says nothing, the cookie still leads to the server that has the session now.
#[test]
fn a_session_that_moved_takes_its_cookie_along() {
    use CookieMode::{Prefix, Rewrite};
    use ResponseCookie::{Inserted, None, Rewritten};
    /// The mode, the request's cookies, what the application sets; what the client gets.
    type Row<'a> = (CookieMode, &'a [&'a str], &'a [&'a str], &'a [&'a str], ResponseCookie);
    let rows: [Row<'_>; 11] = [
        (Prefix, &["SID=A~x~y"], &[], &["SID=B~x~y; path=/; HttpOnly"], Inserted),
        (Prefix, &["SID=GONE~x"], &["a=1"], &["a=1", "SID=B~x; path=/; HttpOnly"], Inserted),
        (Prefix, &["a=1; SID=\"A~x\""], &[], &["SID=\"B~x\"; path=/; HttpOnly"], Inserted),
        (Prefix, &["SID=A~x"], &["SID=z; path=/app"], &["SID=B~z; path=/app"], Rewritten),
        (Prefix, &["SID=B~x"], &[], &[], None),
        // The application's own, from before there was a balancer, or from a script.
        (Prefix, &["SID=x"], &[], &[], None),
        (Prefix, &[], &[], &[], None),
        (Rewrite, &["SID=A"], &[], &["SID=B; path=/; HttpOnly"], Inserted),
        (Rewrite, &["SID=A"], &["SID=x; path=/app"], &["SID=B; path=/app"], Rewritten),
        (Rewrite, &["SID=B"], &[], &[], None),
        (Rewrite, &["SID=x"], &[], &[], None),
    ];
    for (mode, request, set, expected, word) in rows {
        for is_to_post in [false, true] {
            let (response, done) = answer_of_b(mode.clone(), request, set, is_to_post);
            assert_eq!((lines(&response, SET_COOKIE).as_slice(), done), (expected, word), "{request:?}");
            let is_private = word == Inserted && !is_to_post;
            assert_eq!(lines(&response, CACHE_CONTROL) == ["private"], is_private, "{request:?}");
        }
    }
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
    let mut cookie = cookie(insert(|_| {}));
    cookie.attributes = CookieAttributes {
        httponly: true,
        secure: true,
        domain: Some(".example.com".into()),
        same_site: Some(SameSite::Lax),
    };
    let mut response = HeaderMap::new();
    set(&cookie, b"B", false, &mut response);
    assert_eq!(lines(&response, SET_COOKIE), ["SID=B; path=/; domain=.example.com; HttpOnly; Secure; SameSite=Lax"]);
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
            let claim = Claim { server: ClaimedServer::None, dates: Dates::default(), is_prefixed: false };
            let answer =
                Answer { server: &servers()[0], request: &HeaderMap::new(), was_claimed, is_to_post: false, now: NOW };
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
        let answer = Answer { server: &servers()[server], request: &HeaderMap::new(), was_claimed: false, is_to_post: false, now: NOW };
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
            let answer = Answer { server: &servers()[0], request: &headers.clone(), was_claimed: false, is_to_post: true, now: NOW };
            prepare_response(&cookie, &before, &answer, &mut headers);
            if is_hidden {
                prop_assert_eq!(claim(&cookie, &servers(), &headers, NOW).server, ClaimedServer::None);
            }
        }
    }
}
