//! Where a request goes: by host, by path, to a default or nowhere; and what it carries.

use crate::rig::http::{exchange, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::{configuration, connection_from, server_of};

/// The first route that matches wins, hosts are compared without case and port, the lists of one route must all match, and
/// what matches none goes to the default.
#[test]
fn requests_are_routed_by_host_and_path() {
    let _place = own_loopback();
    let servers = ["app", "images", "api", "admin"].map(Server::named);
    let web = free_port();
    let backends: String = ["app", "images", "api", "admin"]
        .iter()
        .zip(&servers)
        .map(|(name, server)| {
            let address = server.address;
            format!("[[backends.{name}.servers]]\nname = \"s\"\naddress = \"{address}\"\ncheck = false\n")
        })
        .collect();
    let _node = Relevo::start(&format!(
        r#"
[frontends.web]
bind = "{web}"
default_backend = "app"

[[frontends.web.routes]]
host = "admin.example.org"
path = ["/", "/login"]
backend = "admin"

[[frontends.web.routes]]
path_suffix = [".gif", ".png"]
backend = "images"

[[frontends.web.routes]]
host = ["api.example.org", "api.example.net"]
path_prefix = "/v1/"
backend = "api"
{backends}"#
    ));
    for (host, path, expected) in [
        ("example.org", "/", "app"),
        ("admin.example.org", "/", "admin"),
        ("ADMIN.example.org:8080", "/login?next=/", "admin"),
        ("admin.example.org", "/login/", "app"),
        ("admin.example.org", "/logo.png", "images"),
        ("example.org", "/a/b.gif?size=1", "images"),
        ("example.org", "/a/b.gif.html", "app"),
        ("example.org", "/?file=b.gif", "app"),
        ("api.example.net", "/v1/users", "api"),
        ("api.example.org", "/v1/chart.png", "images"),
        ("api.example.org", "/v2/users", "app"),
        ("example.org", "/v1/users", "app"),
    ] {
        let answer = exchange(web, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(server_of(&answer), expected, "{host}{path}");
    }
}

/// The client's address is added to X-Forwarded-For where the frontend says so; what was there before stays; elsewhere
/// nothing is added. The host arrives as the client wrote it; what concerns the client's connection alone does not arrive.
#[test]
fn the_client_is_named_to_the_server() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("forwarded_for = true", "", &[server.address]);
    let plain = free_port();
    let _node = Relevo::start(&format!("[frontends.plain]\nbind = \"{plain}\"\ndefault_backend = \"app\"\n{text}"));

    let head = |answer: &str| answer.to_lowercase();
    let answer = head(&get(web, "/").text());
    assert!(answer.contains("\nx-forwarded-for: 127.0.0.1"), "{answer}");

    let request = "GET / HTTP/1.1\r\nHost: Example.org:81\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close, x-hop\r\n\
                   X-Hop: 1\r\nKeep-Alive: 5\r\nX-End: 2\r\n\r\n";
    let answer = head(&exchange(web, request).text());
    let forwarded: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("x-forwarded-for:")).collect();
    assert_eq!(forwarded.join(",").replace(' ', ""), "192.0.2.7,127.0.0.1");
    assert!(answer.contains("\nhost: example.org:81"), "{answer}");
    assert!(answer.contains("\nx-end: 2"), "{answer}");
    for absent in ["\nconnection: close", "\nx-hop", "\nkeep-alive"] {
        assert!(!answer.contains(absent), "{absent:?} arrived: {answer}");
    }

    let answer = head(&get(plain, "/").text());
    assert!(!answer.contains("x-forwarded-for"), "{answer}");
}

/// One frontend, and a backend with one server for each name.
fn routed(web: std::net::SocketAddr, frontend: &str, servers: &[(&str, &Server)]) -> Relevo {
    let backends = backends(servers);
    Relevo::start(&format!("[frontends.web]\nbind = \"{web}\"\n{frontend}\n{backends}"))
}

/// A backend with one server for each name.
fn backends(servers: &[(&str, &Server)]) -> String {
    let backend = |(name, server): &(&str, &Server)| {
        format!("[[backends.{name}.servers]]\nname = \"s\"\naddress = \"{}\"\ncheck = false\n", server.address)
    };
    servers.iter().map(backend).collect()
}

/// Every other thing that a request has: patterns, method, header, cookie, parameter, source, and what is built of them. What
/// matches nothing, be it by one character, goes nowhere.
#[test]
fn requests_are_routed_by_all_that_they_say() {
    let _place = own_loopback();
    let servers = ["host", "path", "method", "header", "cookie", "query", "all", "source"]
        .map(|name| (name, Server::named(name)));
    let web = free_port();
    let _node = routed(
        web,
        r#"routes = [
    { host_suffix = ".example.org", host_regex = "^(www|shop)[0-9]*[.]", backend = "host" },
    { path_directory = "images", path_regex = "[.](gif|png)$", backend = "path" },
    { method = ["PUT", "DELETE"], not = { path_prefix = "/open/" }, backend = "method" },
    { header = { name = "Upgrade", value = "websocket" }, backend = "header" },
    { any = [{ cookie = { name = "beta", value = "1" } }, { cookie = { name = "alpha" } }], backend = "cookie" },
    { query = { name = "version", prefix = ["2.", "3."] }, backend = "query" },
    { all = [{ header = { name = "X-One" } }, { not = { any = [{ header = { name = "X-Two" } }] } }], backend = "all" },
    { source = ["127.0.0.2/32", "::1"], backend = "source" },
]"#,
        &servers.each_ref().map(|(name, server)| (*name, server)),
    );
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: SHOP2.Example.org:8080", Some("host")),
        ("GET / HTTP/1.1\r\nHost: mail.example.org", None),
        ("GET /a/images/b.png HTTP/1.1\r\nHost: a", Some("path")),
        ("GET /a/images2/b.png HTTP/1.1\r\nHost: a", None),
        ("DELETE /x HTTP/1.1\r\nHost: a", Some("method")),
        ("DELETE /open/x HTTP/1.1\r\nHost: a", None),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            Some("header"),
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; beta=\"1\"", Some("cookie")),
        ("GET / HTTP/1.1\r\nHost: a\r\nCookie: alphabet=1; beta=2", None),
        ("GET /?x&version=3.1 HTTP/1.1\r\nHost: a", Some("query")),
        ("GET /?xversion=3.1 HTTP/1.1\r\nHost: a", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-One: 1", Some("all")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-Two: 2", None),
    ] {
        let answer = exchange(web, format!("{head}\r\n\r\n"));
        match expected {
            Some(server) => assert_eq!(server_of(&answer), server, "{head}"),
            None => assert_eq!(answer.status(), 404, "{head}"),
        }
    }
    let mut from_another = connection_from("127.0.0.2", web);
    assert_eq!(server_of(&from_another.get("/").unwrap()), "source");
}

/// What no sane client sends is compared like anything else, at once: thousands of cookies, a head almost as long as may be, a
/// text on which a pattern would backtrack for ages.
#[test]
fn absurd_requests_are_routed_at_once() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration(
        "routes = [{ cookie = { name = \"k\", regex = \"^(a+)+$\" }, backend = \"app\" },\
         { path_regex = \"^/(x+x+)+y$\", backend = \"app\" }]",
        "",
        &[server.address],
    );
    let _node = Relevo::start(&text);
    let begun = std::time::Instant::now();
    for head in [
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}", "k=aaaaaaab;".repeat(4000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: k={}!", "a".repeat(50_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}", ";=\"".repeat(15_000)),
        format!("GET /{} HTTP/1.1\r\nHost: a", "x".repeat(50_000)),
    ] {
        assert_eq!(exchange(web, format!("{head}\r\n\r\n")).status(), 200, "{head:.60}");
    }
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    assert_eq!(get(web, "/").status(), 200);
}

/// A connection is routed by the network it comes from and the port it comes to; what matches nothing is closed.
#[test]
fn connections_are_routed_by_source_and_port() {
    let _place = own_loopback();
    let servers = ["one", "other", "near"].map(|name| (name, Server::named(name)));
    let (first, second) = (free_port(), free_port());
    let backends = backends(&servers.each_ref().map(|(name, server)| (*name, server)));
    let node = Relevo::start(&format!(
        "[frontends.tcp]\nmode = \"tcp\"\nbind = [\"{first}\", \"{second}\"]\nroutes = [\
         {{ source = \"127.1.0.0/16\", backend = \"near\" }},\
         {{ source = \"127.0.0.1\", destination_port = {}, backend = \"one\" }},\
         {{ source = \"127.0.0.1\", backend = \"other\" }}]\n{backends}",
        first.port()
    ));
    for (source, port, expected) in
        [("127.0.0.1", first, "one"), ("127.0.0.1", second, "other"), ("127.1.2.3", first, "near")]
    {
        let answer = connection_from(source, port).get("/").unwrap();
        assert_eq!(server_of(&answer), expected, "{source}");
    }
    let mut nowhere = connection_from("127.2.0.1", first);
    assert_eq!(nowhere.receive_rest().unwrap(), b"", "{}", node.messages());
    node.wait_for_message("tcp/<NOSRV>");
}
