//! What rules make of a request before it is routed, and of its response.

use std::net::SocketAddr;

use crate::rig::http::{Connection, Message, exchange, get, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connection_from, server_of};

fn request(web: SocketAddr, line: &str, headers: &str) -> Message {
    exchange(web, format!("{line} HTTP/1.1\r\nHost: www.example.org:8080\r\n{headers}\r\n"))
}

/// The first rule that answers does, the ones before it have done their part, and what none answers goes on.
#[test]
fn rules_deny_redirect_rewrite_and_answer_in_their_order() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration(
        r#"rules = [
    { when = { path_prefix = "/private/", not = { source = "127.0.0.2" } }, deny = 403 },
    { when = { path = "/teapot" }, deny = 418 },
    { when = { path_prefix = "/old/" }, redirect = { prefix = "/new/", replace = "/old/", status = 301 } },
    { when = { host = "example.org" }, redirect = { prefix = "https://www.example.org" } },
    { when = { path_prefix = "/secure" }, redirect = { scheme = "https", status = 308 } },
    { when = { path = "/go" }, redirect = { location = "http://{host}/to?from={path}&{query}", status = 307 } },
    { when = { path = "/up" }, respond = { body = "still here\n" } },
    { when = { path = "/nothing" }, respond = { status = 204 } },
    { when = { path_prefix = "/v1/" }, rewrite = { replace = "/v1/", prefix = "/api/" } },
    { when = { path_prefix = "/api/" }, rewrite = { regex = "^/api/([a-z]+)/([0-9]+)$", with = "/api?kind=$1&id=$2" } },
    { when = { path = "/api" }, rewrite = { prefix = "/app" } },
    { when = { path = "/gone" }, rewrite = { path = "/" } },
    { when = { path = "/" }, request_headers = { set = { "X-Was-Rewritten" = "no" } } },
]"#,
        "",
        &[server.address],
    );
    let node = Relevo::start(&text);

    let denied = request(web, "GET /private/x", "");
    assert_eq!(denied.status(), 403);
    assert!(denied.text().contains("<h1>403 Forbidden</h1>"), "{denied:?}");
    assert_eq!(connection_from("127.0.0.2", web).get("/private/x").unwrap().status(), 200);
    assert_eq!(request(web, "GET /teapot", "").status(), 418);
    node.wait_for_message(" 418 ");
    assert!(node.wait_for_message(" 403 ").contains(" PR-- "), "{}", node.messages());

    for (host, target, status, location) in [
        ("a", "/old/a?b=c", 301, "/new/a?b=c"),
        ("example.org", "/a?b", 302, "https://www.example.org/a?b"),
        ("www.example.org:8080", "/secure/a?b", 308, "https://www.example.org/secure/a?b"),
        ("[2001:db8::1]:8080", "/secure", 308, "https://[2001:db8::1]/secure"),
        ("[2001:db8::1]:8080", "/go", 307, "http://[2001:db8::1]/to?from=/go&"),
        ("www.example.org:8080", "/go?x=1", 307, "http://www.example.org/to?from=/go&x=1"),
    ] {
        let answer = exchange(web, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!((answer.status(), answer.header("location")), (status, Some(location)), "{host}{target}");
        assert_eq!(answer.header("content-length"), Some("0"));
    }
    assert_eq!(exchange(web, "GET /secure HTTP/1.0\r\n\r\n").status(), 400, "there is no host to redirect to");
    assert!(node.wait_for_message("/go?x=1").contains(" LR-- "), "{}", node.messages());

    let up = request(web, "GET /up", "");
    assert_eq!((up.status(), up.text().as_str()), (200, "still here\n"));
    assert_eq!(up.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(request(web, "GET /nothing", "").status(), 204);

    for (target, arrives) in [
        ("/v1/user/12", "/app/api?kind=user&id=12"),
        ("/v1/user/12?x=y", "/app/api?kind=user&id=12"),
        ("/v1/user?x=y", "/api/user?x=y"),
        ("/gone?x=y", "/?x=y"),
        ("/else", "/else"),
    ] {
        let answer = request(web, &format!("GET {target}"), "");
        assert_eq!(server_of(&answer), "a");
        assert!(answer.text().contains(&format!("\nGET {arrives} HTTP/1.1\r\n")), "{target}: {answer:?}");
    }
    let seen = |path: &str| request(web, path, "").text().contains("x-was-rewritten: no");
    assert!(seen("GET /gone") && !seen("GET /else"), "a rule sees what the ones before it have made");
    assert_eq!(request(web, "GET /gone", "").status(), 200);
    // A body that nobody read is no harm to what follows on its connection.
    let mut connection = Connection::open(web).unwrap();
    connection.send("POST /old/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345").unwrap();
    assert_eq!(connection.receive().unwrap().status(), 301);
    assert_eq!(connection.get("/else").unwrap().status(), 200);
}

/// Headers are set, added and removed with what is known of the request and the response, also on pages of the balancer.
#[test]
fn rules_change_headers_both_ways() {
    let _place = own_loopback();
    let server = Server::answering(|request| {
        let status = if request.head.starts_with("GET /fail") { "500 Oh" } else { "200 OK" };
        response(status, "Server: theirs\r\nX-Secret: 1\r\nVary: a\r\n", request.head.as_bytes())
    });
    let (web, text) = configuration(
        r#"request_id = {}
rules = [
    { request_headers = { set = { "X-Real-IP" = "{client}", "X-Asked" = "{method} {scheme}://{host}{uri} {{{path}}}" } } },
    { request_headers = { add = { "X-Tag" = "two" }, remove = ["Cookie", "X-Internal"] } },
    { when = { header = { name = "X-Real-IP", value = "127.0.0.1" } }, response_headers = { set = { "Server" = "relevo on {node}", "X-Served-By" = "{backend}/{server}", "X-Request-ID" = "{request_id}" }, add = { "Vary" = "b" }, remove = "X-Secret" } },
    { response_headers = { status = ["500-599"], set = { "X-Failed" = "{path}" } } },
    { when = { path = "/denied" }, deny = 404 },
    { response_headers = { set = { "X-Late" = "{frontend}" } } },
]"#,
        "",
        &[server.address],
    );
    let _node = Relevo::start(&text);

    let answer = request(
        web,
        "GET /a?b",
        "X-Real-IP: 192.0.2.1\r\nX-Real-IP: 192.0.2.2\r\nX-Tag: one\r\nCookie: a=1\r\nx-internal: 1\r\nX-Request-ID: given-1\r\n\
         Connection: X-Real-IP, X-Asked\r\n",
    );
    let arrived = Message { head: answer.text(), body: Vec::new() };
    let all = |name: &str| arrived.headers(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all("x-real-ip"), ["127.0.0.1"], "not what the client says, and not lost by what it says of Connection");
    assert_eq!(all("x-asked"), ["GET http://www.example.org/a?b {/a}"]);
    assert_eq!(all("x-tag"), ["one", "two"]);
    assert_eq!((all("cookie").len(), all("x-internal").len()), (0, 0));
    assert_eq!(all("x-request-id"), ["given-1"]);
    for (name, value) in
        [("server", "relevo on lb1"), ("x-served-by", "app/a"), ("x-request-id", "given-1"), ("x-late", "web")]
    {
        assert_eq!(answer.headers(name).collect::<Vec<_>>(), [value], "{answer:?}");
    }
    assert_eq!(answer.headers("vary").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((answer.header("x-secret"), answer.header("x-failed")), (None, None));

    assert_eq!(get(web, "/fail").header("x-failed"), Some("/fail"));
    let denied = get(web, "/denied");
    assert_eq!((denied.status(), denied.header("server")), (404, Some("relevo on lb1")));
    assert_eq!(denied.header("x-served-by"), Some("/"), "no server was asked");
    assert_eq!(denied.header("x-late"), None, "that rule comes after the answer");
    // An id that a client makes up to break something is replaced.
    let id = get(web, "/").header("x-request-id").unwrap().to_owned();
    let replaced = request(web, "GET /", &format!("X-Request-ID: {}\r\n", "x".repeat(5000)));
    let other = replaced.header("x-request-id").unwrap();
    assert!(id.len() == 32 && other.len() == 32 && id != other, "{id} {other}");
}

/// Whatever a client writes comes back inside the one header it was meant for, and sends nobody to another host.
#[test]
fn variables_inject_nothing() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration(
        r#"rules = [
    { response_headers = { set = { "X-Path" = "{path}", "X-Query" = "{query}", "X-Host" = "{host}" } } },
    { when = { path_prefix = "/grow" }, rewrite = { path = "{path}{path}{path}" } },
    { redirect = { prefix = "https://www.example.org", replace = "/moved" } },
    { redirect = { location = "{uri}" }, when = { not = { path_prefix = "/grow" } } },
]"#,
        "",
        &[server.address],
    );
    let _node = Relevo::start(&text);
    let injected = "%0d%0aSet-Cookie:%20a=1%00";
    let answer = request(web, &format!("GET /{injected}?{injected}"), "");
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("x-path"), Some(format!("/{injected}").as_str()));
    assert_eq!(answer.header("location"), Some(format!("/{injected}?{injected}").as_str()));
    assert_eq!(answer.headers("x-query").collect::<Vec<_>>(), [injected]);
    for raw in ["GET /a\rSet-Cookie:a=1", "GET /a\0b", "GET /a\tb"] {
        assert_eq!(request(web, raw, "").status(), 400, "{raw:?}");
    }
    let host = exchange(web, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n");
    assert_eq!((host.status(), host.header("x")), (400, None));
    for target in ["//evil.example/", "///evil.example/", "/\\evil.example/"] {
        let answer = exchange(web, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.header("location"), Some("/evil.example/"), "{target}");
    }
    for (target, location) in [
        ("/moved", "https://www.example.org"),
        ("/moved/a?b", "https://www.example.org/a?b"),
        ("/moved.evil.example/", "https://www.example.org/.evil.example/"),
        ("/moved@evil.example/", "https://www.example.org/@evil.example/"),
        ("/moved:8080/", "https://www.example.org/:8080/"),
    ] {
        assert_eq!(request(web, &format!("GET {target}"), "").header("location"), Some(location), "{target}");
    }
    // What a rule makes longer than a target may be is refused, not cut.
    assert_eq!(request(web, &format!("GET /grow{}", "x".repeat(30_000)), "").status(), 414);
    assert_eq!(get(web, "/grow").status(), 200);
}

/// What a server takes for a path that is denied is denied, however it is written; what is not passes in the form that was
/// looked at, and what has none gets no further.
#[test]
fn a_path_in_disguise_is_denied_once_paths_are_normalized() {
    let _place = own_loopback();
    let server = Server::named("a");
    let rules = |first: &str| {
        format!(
            "rules = [{first} {{ when = {{ path_prefix = \"/admin\" }}, deny = 403 }}]\nroutes = [{{ path = \"/only\", backend = \"app\" }}]"
        )
    };
    let disguises =
        ["//admin", "/%61dmin/x", "/x/../admin/", "/x/%2e%2E/admin", "/./admin?a", "/../admin", "/x//..//.././admin"];

    let (web, text) = configuration(&rules("{ rewrite = { normalize = true } },"), "", &[server.address]);
    let node = Relevo::start(&text);
    for target in disguises {
        assert_eq!(request(web, &format!("GET {target}"), "").status(), 403, "{target}");
    }
    assert_eq!(server.connections(), 0, "none of them reached the server\n{}", node.messages());
    for (target, arrives) in [
        ("/a//b/./%7Ec/?x=%61//y", "/a/b/~c/?x=%61//y"),
        ("/a%2fb%20c", "/a%2Fb%20c"),
        ("/not/admin", "/not/admin"),
        ("http://www.example.org:8080", "/"),
    ] {
        let answer = request(web, &format!("GET {target}"), "");
        assert!(answer.text().contains(&format!("\nGET {arrives} HTTP/1.1\r\n")), "{target}: {answer:?}");
    }
    assert!(request(web, "OPTIONS *", "").text().contains("\nOPTIONS * HTTP/1.1\r\n"));
    for target in ["/a%", "/a%zz", "/%%361dmin", "/a%00.png"] {
        assert_eq!(request(web, &format!("GET {target}"), "").status(), 400, "{target}");
    }
    drop(node);

    let (web, text) = configuration(&rules(""), "", &[server.address]);
    let _node = Relevo::start(&text);
    for target in disguises.into_iter().filter(|target| !target.starts_with("/admin")) {
        assert_eq!(
            request(web, &format!("GET {target}"), "").status(),
            200,
            "without the rule paths are what they are: {target}"
        );
    }
}

/// To PHP and its like `X_User` is `X-User`: who may not say the one may not say the other. Other names are left alone.
#[test]
fn a_header_in_disguise_does_not_arrive() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration(
        r#"forwarded_for = true
forwarded_proto = true
request_id = {}
rules = [{ request_headers = { set = { "X-User" = "{client}" }, remove = ["X-Internal-Role"] } }]"#,
        "",
        &[server.address],
    );
    let _node = Relevo::start(&text);
    let answer = request(
        web,
        "GET /",
        "X_User: root\r\nX_Internal-Role: admin\r\nX-Internal_Role: admin\r\nX_Forwarded_For: 192.0.2.1\r\n\
         X-Forwarded_Proto: https\r\nX_Request_ID: 1\r\nX_Other: 2\r\n",
    );
    let arrived = Message { head: answer.text(), body: Vec::new() };
    let disguised: Vec<_> = arrived.head.lines().filter(|line| line.contains('_')).collect();
    assert_eq!(disguised, ["x_other: 2"], "{arrived:?}");
    assert_eq!((arrived.header("x-user"), arrived.header("x-forwarded-for")), (Some("127.0.0.1"), Some("127.0.0.1")));
}

/// So many at once, and no more until Retry-After has passed; others have a limit of their own; all workers count together.
#[test]
fn a_limit_of_requests_is_kept_for_each_client() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration(
        r#"rules = [
    { when = { path_prefix = "/key/" }, rate_limit = { requests = 2, per = "1h", header = "X-Key" } },
    { when = { path = "/" }, rate_limit = { requests = 60, per = "1h", burst = 10 } },
    { when = { path = "/named" }, rate_limit = { requests = 2, per = "1h" } },
    { when = { path = "/once" }, rate_limit = { requests = 1, per = "2000000h" } },
]
trusted_proxies = "127.0.0.3"
"#,
        "",
        &[server.address],
    );
    let _node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
    let statuses: Vec<u16> = (0..20).map(|_| get(web, "/").status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    let refused = get(web, "/");
    assert_eq!(refused.status(), 429);
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "one of 60 in an hour comes free each minute: {wait}");
    assert_eq!(get(web, "/once").status(), 200);
    let wait: u64 = get(web, "/once").header("retry-after").unwrap().parse().unwrap();
    assert!((7_199_999_000..=7_200_000_000).contains(&wait), "some two hundred years: {wait}");
    assert_eq!(connection_from("127.0.0.2", web).get("/").unwrap().status(), 200);
    assert_eq!(get(web, "/else").status(), 200);

    let with_key = |key: &str| request(web, "GET /key/", &format!("X-Key: {key}\r\n")).status();
    assert_eq!(["a", "a", "a", "b", "a"].map(with_key), [200, 200, 429, 200, 429]);
    let without: Vec<u16> = (0..3).map(|_| get(web, "/key/").status()).collect();
    assert_eq!(without, [200, 200, 429], "those without it are one");

    // Whom a proxy of ours names; of IPv6 a whole /64, since whoever has one address there has them all.
    let named = |client: &str| {
        let mut connection = connection_from("127.0.0.3", web);
        connection.send(format!("GET /named HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")).unwrap();
        connection.receive().unwrap().status()
    };
    let clients = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:3", "2001:db8:0:1::1", "192.0.2.1"];
    assert_eq!(clients.map(named), [200, 200, 429, 200, 200]);
}

/// A pattern in the first bytes of a body is found however they come, and nowhere else; what passes arrives whole; a body that
/// stalls is 408.
#[test]
fn a_body_is_denied_by_what_it_begins_with() {
    let _place = own_loopback();
    let server = Server::answering(|request| response("200 OK", "X-Server: a\r\n", &request.body));
    let (web, text) = configuration(
        r#"timeouts = { http_request = "500ms" }
rules = [{ when = { method = "POST" }, deny_body = { regex = "(?i)<script", first = 100, status = 422 } }]"#,
        "",
        &[server.address],
    );
    let node = Relevo::start(&text);
    let post = |head: &str, pieces: &[&[u8]]| {
        let mut connection = Connection::open(web).unwrap();
        connection.send(format!("{head} / HTTP/1.1\r\nHost: a\r\n")).unwrap();
        for piece in pieces {
            connection.send(piece).unwrap();
            std::thread::yield_now();
        }
        connection.receive().unwrap()
    };
    for denied in [
        post("POST", &[b"Content-Length: 12\r\n\r\n", b"a <SCR", b"IPT> b"]),
        post("POST", &[b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\n<scr\r\n", b"3\r\nipt\r\n0\r\n\r\n"]),
    ] {
        assert_eq!(denied.status(), 422, "{denied:?}");
    }
    assert_eq!(server.connections(), 0, "none of it reached the server");

    let mut late = vec![b'.'; 95];
    late.extend_from_slice(b"<script>");
    late.resize(3 << 20, b'x');
    let length = format!("Content-Length: {}\r\n\r\n", late.len());
    let answer = post("POST", &[length.as_bytes(), &late]);
    assert!(answer.status() == 200 && answer.body == late, "{answer:?}");
    let answer = post("POST", &[b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"]);
    assert_eq!(answer.text(), "hello");
    assert_eq!(post("POST", &[b"Content-Length: 0\r\n\r\n"]).status(), 200);
    assert_eq!(post("PUT", &[b"Content-Length: 7\r\n\r\n<script"]).text(), "<script");

    let stalled = post("POST", &[b"Content-Length: 50\r\n\r\n", b"only this"]);
    assert_eq!(stalled.status(), 408);
    assert_eq!(post("POST", &[b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n"]).status(), 400);
    node.wait_for("nothing is left", |status| status.node.balancer.connections == 0);
}
