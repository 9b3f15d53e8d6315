//! Sessions kept by a cookie, with curl's own cookie jar.

use std::net::SocketAddr;

use crate::rig::curl::curl;
use crate::rig::http::{exchange, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::{Server, named};
use crate::{configuration, server_of};

/// Answers `NAME the Cookie it got`, and sets the application's own cookie where there is none.
fn application(name: &'static str) -> Server {
    Server::answering(move |request| {
        let cookie = request.header("cookie").unwrap_or_default();
        let set = if cookie.contains("PHPSESSID=") { "" } else { "Set-Cookie: PHPSESSID=s3cr3t; path=/; HttpOnly\r\n" };
        response("200 OK", set, format!("{name} {cookie}\n"))
    })
}

/// Twenty requests of one client that keeps its cookies, each with a curl of its own.
fn twenty(web: SocketAddr, jar: &str) -> Vec<String> {
    let url = format!("http://{web}/");
    (0..20).map(|_| curl(&["--fail", "-b", jar, "-c", jar, &url]).trim().to_owned()).collect()
}

/// The server that all but the first came from; the first sets the cookie and comes from the same.
#[track_caller]
fn only_server(answers: &[String]) -> String {
    let server = |answer: &String| answer.split(' ').next().unwrap_or_default().to_owned();
    let first = server(&answers[0]);
    assert!(answers.iter().all(|answer| server(answer) == first), "{answers:?}");
    first
}

/// `prefix`: the application's own cookie carries the server; the application sees its cookie as it had set it.
#[test]
fn the_applications_own_cookie_keeps_a_session() {
    let _place = own_loopback();
    let servers = [application("a"), application("b")];
    let cookie = "cookie = { name = \"PHPSESSID\", mode = \"prefix\" }";
    let (web, text) = configuration("", cookie, &servers.each_ref().map(|server| server.address));
    let text = text
        .replace("name = \"a\"", "name = \"a\"\ncookie = \"A\"")
        .replace("name = \"b\"", "name = \"b\"\ncookie = \"B\"");
    let node = Relevo::start(&text);

    let mut seen = Vec::new();
    for client in 0..4 {
        let jar = node.directory().join(format!("jar{client}")).display().to_string();
        let answers = twenty(web, &jar);
        let server = only_server(&answers);
        assert!(answers[1..].iter().all(|answer| *answer == format!("{server} PHPSESSID=s3cr3t")), "{answers:?}");
        let jar = std::fs::read_to_string(jar).unwrap();
        assert!(jar.contains(&format!("{}~s3cr3t", server.to_uppercase())), "{jar}");
        seen.push(server);
    }
    seen.sort_unstable();
    assert_eq!(seen, ["a", "a", "b", "b"], "new sessions take turns");
}

/// `insert`: a cookie of the balancer's own, set once, which the server never sees.
#[test]
fn a_cookie_of_the_balancer_keeps_a_session() {
    let _place = own_loopback();
    let servers = [application("a"), application("b")];
    let cookie = "cookie = { name = \"NODE\", mode = \"insert\" }";
    let (web, text) = configuration("", cookie, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text);
    let jar = node.directory().join("jar").display().to_string();
    let answers = twenty(web, &jar);
    let server = only_server(&answers);
    assert!(answers.iter().all(|answer| !answer.contains("NODE")), "{answers:?}");

    // A client that shows it does not get it again.
    let again = exchange(web, format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: x=1; NODE={server}; y=2\r\n\r\n"));
    assert_eq!(again.text().trim(), format!("{server} x=1; y=2"));
    assert!(again.headers("set-cookie").all(|cookie| !cookie.contains("NODE")), "{again:?}");
}

/// A session whose server is gone goes to another, which the cookie then names; nobody sees an error.
#[test]
fn a_session_outlives_its_server() {
    let _place = own_loopback();
    let mut servers = vec![application("a"), application("b")];
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let (web, text) = configuration("", "cookie = { name = \"NODE\", mode = \"insert\" }", &addresses);
    let node = Relevo::start(&text);
    let jar = node.directory().join("jar").display().to_string();
    let before = only_server(&twenty(web, &jar));
    servers.remove(usize::from(before == "b"));
    let after = only_server(&twenty(web, &jar));
    assert_ne!(before, after);
    let jar = std::fs::read_to_string(jar).unwrap();
    assert!(jar.lines().any(|line| line.ends_with(&format!("NODE\t{after}"))), "{jar}");
}

/// A session whose server is gone stays at its new one when that is back, though the application never sets its cookie again: the
/// cookie that carries the server leads there, with the attributes it is given.
#[test]
fn a_session_that_moved_stays_where_it_is() {
    let _place = own_loopback();
    let rows = [
        ("prefix", "s3cr3t", ""),
        ("prefix", "s3cr3t", ", httponly = false, secure = true, same_site = 'none', domain = '.example.com'"),
        ("rewrite", "", ""),
        ("insert", "", ", same_site = 'strict'"),
    ];
    for (mode, value, attributes) in rows {
        let at = [free_port(), free_port()];
        let start = |name: &'static str, at| Server::answering_at(at, named(name));
        let (a, _b) = (start("a", at[0]), start("b", at[1]));
        let cookie = format!("cookie = {{ name = 'S', mode = '{mode}'{attributes} }}\nbalance = 'first'");
        let (web, text) = configuration("", &cookie, &at);
        let node = Relevo::start(&text);
        let ask =
            |cookie: &str| exchange(web, format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: x=1; S={cookie}\r\n\r\n"));
        let of = |server: &str| if mode == "prefix" { format!("{server}~{value}") } else { server.to_owned() };

        let first = ask(&of("a"));
        assert_eq!((server_of(&first), first.header("set-cookie")), ("a", None), "{mode}");
        drop(a);
        let moved = ask(&of("a"));
        let expected = match (mode, attributes.is_empty()) {
            ("insert", _) => "S=b; path=/; SameSite=Strict".to_owned(),
            (_, true) => format!("S={}; path=/; HttpOnly", of("b")),
            (_, false) => format!("S={}; path=/; domain=.example.com; Secure; SameSite=None", of("b")),
        };
        assert_eq!((server_of(&moved), moved.header("set-cookie")), ("b", Some(expected.as_str())), "{mode}");
        assert_eq!(moved.header("cache-control"), (mode != "insert").then_some("private"), "{mode}");
        if mode == "prefix" {
            assert!(moved.text().contains(&format!("cookie: x=1; S={value}")), "{moved:?}");
        }
        node.wait_for_message("--DI ");

        let _a = start("a", at[0]);
        let again = ask(&of("b"));
        assert_eq!((server_of(&again), again.header("set-cookie")), ("b", None), "{mode}");
    }
}

/// What no browser sends names no server, or the one that stands in it, and arrives as it came but for what is the balancer's, in
/// every mode.
#[test]
fn absurd_cookies_do_no_harm() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(|name| {
        Server::answering(move |request| {
            let cookies: Vec<_> = request.headers("cookie").collect();
            response(
                "200 OK",
                &format!("X-Server: {name}\r\nSet-Cookie: S=\r\nSet-Cookie: ;S=1\r\n"),
                cookies.join("\n"),
            )
        })
    });
    let addresses = servers.each_ref().map(|server| server.address);
    for mode in ["prefix", "insert", "rewrite"] {
        let cookie = format!("cookie = {{ name = \"S\", mode = \"{mode}\" }}");
        let (web, text) = configuration("", &cookie, &addresses);
        let _node = Relevo::start(&text);
        let ask = |cookie: &str| exchange(web, format!("GET / HTTP/1.1\r\nHost: test\r\n{cookie}\r\n"));
        let many = "x=1; ".repeat(10_000);
        for (sent, arrives) in [
            (";=\"~|,".repeat(7_000), ";=\"~|,".repeat(7_000)),
            (format!("{many}S"), format!("{many}S")),
            ("=; ==; =S; S.=b~; \"S\"=b".to_owned(), "=; ==; =S; S.=b~; \"S\"=b".to_owned()),
            ("\u{80}\u{ff}=S=b".to_owned(), "\u{80}\u{ff}=S=b".to_owned()),
        ] {
            let answer = ask(&format!("Cookie: {sent}\r\n"));
            assert_eq!((answer.status(), answer.text()), (200, arrives), "{mode}: {sent:.40}");
        }
        for number in 0..3 {
            let answer = ask(&format!("Cookie: {}S=b~{number}\r\nCookie: S=b\r\n", "S=nobody~x;".repeat(3_000)));
            assert_eq!((answer.status(), answer.header("x-server")), (200, Some("b")), "{mode}");
        }
        let lines = format!("Cookie: S={}\r\n", "~".repeat(500)).repeat(90);
        assert_eq!(ask(&lines).status(), 200, "{mode}");
    }
}
