//! What the balancer answers by itself, and that it goes on serving after that.

use std::net::SocketAddr;

use crate::configuration;
use crate::rig::http::{Message, exchange, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback, own_network};
use crate::rig::server::Server;

/// A plain page with the status in it.
#[track_caller]
fn assert_page(answer: &Message, status: u16) {
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/html"), "{answer:?}");
    assert!(answer.text().contains(&format!("<h1>{status} ")), "{answer:?}");
}

/// RFC 9112 §3.2: a request that does not say clearly which host it is for is answered with 400, whoever it is for; and so
/// is what is no HTTP at all.
#[test]
fn a_request_without_a_clear_host_is_400() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for headers in
        ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: a, b\r\n"]
    {
        assert_page(&exchange(web, format!("GET / HTTP/1.1\r\n{headers}\r\n")), 400);
    }
    assert_page(&exchange(web, "GET http://one/ HTTP/1.1\r\nHost: two\r\n\r\n"), 400);
    assert_eq!(exchange(web, "THIS IS NOT HTTP\r\n\r\n").status(), 400);
    assert_eq!(exchange(web, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n").status(), 400);
    assert_eq!(server.connections(), 0, "none of them reached a server\n{}", node.messages());

    assert_eq!(exchange(web, "GET http://one/ HTTP/1.1\r\nHost: one\r\n\r\n").status(), 200);
    // RFC 9110 §4.2.3: the port of the scheme may be left out.
    for (target, host, status) in [
        ("http://one:80/", "one", 200),
        ("http://one/", "ONE:80", 200),
        ("https://one:443/", "one", 200),
        ("http://one:/", "one", 200),
        ("http://one/", "one:", 200),
        ("http://[2001:db8::1]:80/", "[2001:db8::1]", 200),
        ("http://one:8080/", "one", 400),
        ("http://one:443/", "one", 400),
        ("https://one:80/", "one", 400),
        ("http://one:80/", "two", 400),
    ] {
        let answer = exchange(web, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.status(), status, "{target} {host}");
    }
    assert_eq!(get(web, "/").status(), 200);
}

/// RFC 9112 §3.3: HTTP/1.0 may do without. Servers of HTTP/1.1 refuse that, so they are told where the client connected to.
#[test]
fn a_request_of_http_1_0_without_a_host_gets_the_address_it_came_to() {
    // Port 80 is wanted.
    let Some(_place) = own_network() else { return };
    let server = Server::named("a");
    let web: SocketAddr = "127.0.0.7:80".parse().unwrap();
    let other = free_port().port();
    let (_, text) = configuration("", "", &[server.address]);
    let bind = format!("bind = [\"{web}\", \"*:{other}\"]");
    let text = text.replace(text.lines().find(|line| line.starts_with("bind")).unwrap(), &bind);
    let _node = Relevo::start(&text);
    for (to, host) in [(web, "127.0.0.7".to_owned()), (SocketAddr::new(web.ip(), other), format!("127.0.0.7:{other}"))]
    {
        let lines = |request: &str| exchange(to, request).text().lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines("GET / HTTP/1.0\r\n\r\n"), ["a", "GET / HTTP/1.1", &format!("host: {host}")]);
        assert_eq!(lines("GET / HTTP/1.0\r\nHost: mine\r\n\r\n"), ["a", "GET / HTTP/1.1", "host: mine"]);
    }
}

/// A head that is longer than any sane one is refused, says the log too, and others are served meanwhile.
#[test]
fn a_head_that_is_too_long_is_431() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for filler in ["Cookie: ", "X-A: 1\r\nX-B: "] {
        let mut connection = crate::connect(web);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{filler}{}\r\n\r\n", "a".repeat(1_000_000));
        // It may well be refused before all of it is sent.
        let _ = connection.send(head);
        assert!(connection.receive_head().unwrap().starts_with("HTTP/1.1 431 "));
    }
    assert!(node.wait_for_message("<BADREQ>").contains(" 431 "), "{}", node.messages());
    assert_eq!(server.connections(), 0);
    assert_eq!(get(web, "/").status(), 200);
}

/// Where no route leads and there is no default.
#[test]
fn a_request_that_no_route_matches_is_404() {
    let _place = own_loopback();
    let server = Server::named("a");
    let web = free_port();
    let _node = Relevo::start(&format!(
        "[frontends.web]\nbind = \"{web}\"\n[[frontends.web.routes]]\npath_prefix = \"/app/\"\nbackend = \"app\"\n\
         [[backends.app.servers]]\nname = \"a\"\naddress = \"{}\"\ncheck = false\n",
        server.address
    ));
    assert_page(&get(web, "/"), 404);
    assert_eq!(get(web, "/app/").status(), 200);
}

/// A server that closes, or does not speak HTTP, is a bad gateway.
#[test]
fn a_server_that_gives_no_valid_answer_is_502() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| {
        let Ok(request) = connection.receive() else { return };
        let answer: &[u8] = match request.head.split(' ').nth(1) {
            Some("/garbage") => b"\x16\x03\x01 this is no HTTP\r\n\r\n",
            Some("/cut") => b"HTTP/1.1 200 OK\r\nContent-Le",
            Some("/well") => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            _ => b"",
        };
        let _ = connection.send(answer);
    });
    let (web, text) = configuration("", "", &[server.address]);
    let _node = Relevo::start(&text);
    for path in ["/close", "/garbage", "/cut"] {
        assert_page(&get(web, path), 502);
    }
    assert_eq!(get(web, "/well").status(), 200);
}

/// Where a body ends is said once and clearly, or the answer is none (RFC 9112 §6.1, §6.3): `chunked` alone, in any case and with
/// the list's empty elements, is a coding that we know and write anew. A header's name may end in spaces, which go no further
/// (RFC 9112 §5.1).
#[test]
fn how_an_answer_is_framed_is_clear_or_it_is_502() {
    let _place = own_loopback();
    const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";
    let clear = [
        ("Transfer-Encoding: chunked", CHUNKED),
        ("Transfer-Encoding: cHUNKED", CHUNKED),
        ("Transfer-Encoding: chunked,", CHUNKED),
        ("Transfer-Encoding: , chunked", CHUNKED),
        ("Transfer-Encoding : chunked", CHUNKED),
        ("Content-Length : 5\r\nX-Foo \t: 1", "hello"),
    ];
    let unclear = [
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CHUNKED),
        ("Transfer-Encoding: chunked, chunked", CHUNKED),
        ("Transfer-Encoding: identity, chunked", CHUNKED),
        ("Transfer-Encoding: chunked, identity", CHUNKED),
        ("Transfer-Encoding: gzip, chunked", CHUNKED),
        ("Transfer-Encoding: gzip", "hello"),
        ("Transfer-Encoding: identity\r\nContent-Length: 5", "hello"),
        ("Transfer-Encoding: chunked;a=b", CHUNKED),
        ("Transfer-Encoding: \"chunked\"", CHUNKED),
        ("Transfer-Encoding:", CHUNKED),
        ("Content-Length: 5\r\nContent-Length : 4", "hello"),
        (" Content-Length: 5", "hello"),
        ("X-A: b\r\n Content-Length: 5", "hello"),
    ];
    let answers = clear.into_iter().chain(unclear);
    let answers: Vec<_> =
        answers.map(|(headers, body)| format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{body}").into_bytes()).collect();
    let server = Server::answering(move |request| {
        let index: usize = request.head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        answers[index].clone()
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    for (index, (headers, _)) in clear.iter().enumerate() {
        for connection in ["keep-alive", "close"] {
            let answer = exchange(web, format!("GET /{index} HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n"));
            assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"), "{headers:?}");
            let codings: Vec<_> = answer.headers("transfer-encoding").collect();
            assert!(codings.is_empty() || codings == ["chunked"], "{headers:?}: {answer:?}");
            assert_ne!(answer.header("connection"), Some("close, chunked"), "{headers:?}");
            assert_eq!(answer.header("x-foo"), headers.contains("X-Foo").then_some("1"), "{answer:?}");
        }
    }
    for (index, (headers, _)) in unclear.iter().enumerate() {
        let path = format!("/{}", clear.len() + index);
        assert_eq!(get(web, &path).status(), 502, "{headers:?}");
        let line = node.wait_for_message(&format!("GET {path} "));
        assert!(line.contains(" PH-- "), "the proxy refused it: {line}");
    }
}

/// 503 at once, be it that nobody listens or that checks have found no server up; a client's connection outlives it.
#[test]
fn without_a_server_it_is_503() {
    let _place = own_loopback();
    let (web, text) = configuration("", "", &[Server::nowhere()]);
    let checked = checked_frontend(Server::nowhere());
    let node = Relevo::start_with(&format!("{text}{}", checked.1), 1);
    for frontend in [web, checked.0] {
        let mut connection = crate::connect(frontend);
        assert_page(&connection.get("/").unwrap(), 503);
        assert_page(&connection.get("/").unwrap(), 503);
    }
    drop(node);
}

fn checked_frontend(server: SocketAddr) -> (SocketAddr, String) {
    let web = free_port();
    let text = format!(
        "[frontends.checked]\nbind = \"{web}\"\ndefault_backend = \"checked\"\n\
         [backends.checked]\nhealth = {{ interval = \"50ms\", fall = 1 }}\n\
         [[backends.checked.servers]]\nname = \"a\"\naddress = \"{server}\"\n"
    );
    (web, text)
}
