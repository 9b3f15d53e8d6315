//! Where a request goes: by host, by path, to a default or nowhere; and what it carries.

use crate::rig::http::{exchange, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::{configuration, server_of};

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
