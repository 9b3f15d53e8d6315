//! Who a client is, through proxies in front, and how servers are told.

use crate::rig::http::{Connection, Message, exchange};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connection_from};

/// The head of a request as it arrived at the server.
fn arrived(mut connection: Connection, headers: &str) -> Message {
    connection.send(format!("GET / HTTP/1.1\r\nHost: a.example:81\r\n{headers}\r\n")).unwrap();
    let answer = connection.receive().unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    Message { head: answer.text().split_once('\n').unwrap().1.to_owned(), body: Vec::new() }
}

/// What a proxy in front says of its client is believed for conditions and logs, and passed on; from anybody else it counts for
/// nothing.
#[test]
fn only_trusted_proxies_name_the_client() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration(
        r#"trusted_proxies = ["127.0.0.2", "10.0.0.0/8"]
forwarded_for = true
forwarded = true
forwarded_proto = true
forwarded_host = true
rules = [
    { when = { source = "198.51.100.0/24" }, deny = 403 },
    { request_headers = { set = { "X-Client" = "{client}" } } },
]"#,
        "",
        &[server.address],
    );
    let node = Relevo::start(&text);
    let from = |source: &str| connection_from(source, web);

    let named = "X-Forwarded-For: 192.0.2.99, 203.0.113.9, 10.1.2.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\
                 Forwarded: for=_hidden\r\n";
    let head = arrived(from("127.0.0.2"), named);
    let one = |name: &str| head.headers(name).collect::<Vec<_>>().join(" | ");
    assert_eq!(one("x-client"), "203.0.113.9");
    assert_eq!(one("x-forwarded-for"), "192.0.2.99, 203.0.113.9, 10.1.2.3, 127.0.0.2");
    assert_eq!((one("x-forwarded-proto").as_str(), one("x-forwarded-host").as_str()), ("https", "b"));
    assert_eq!(one("forwarded"), "for=_hidden, for=127.0.0.2;host=\"a.example:81\";proto=http");
    assert!(node.wait_for_message("GET / HTTP/1.1").contains("203.0.113.9:0 ["), "{}", node.messages());

    let head = arrived(from("127.0.0.3"), named);
    let one = |name: &str| head.headers(name).collect::<Vec<_>>().join(" | ");
    assert_eq!(one("x-client"), "127.0.0.3");
    assert_eq!((one("x-forwarded-proto").as_str(), one("x-forwarded-host").as_str()), ("http", "a.example:81"));
    node.wait_for_message("127.0.0.3:");

    let denied = |source: &str, named: &str| {
        let mut connection = from(source);
        connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {named}\r\n\r\n")).unwrap();
        connection.receive().unwrap().status() == 403
    };
    assert!(denied("127.0.0.2", "198.51.100.7"));
    assert!(denied("127.0.0.2", "198.51.100.7:1234, 10.0.0.1"));
    assert!(!denied("127.0.0.2", "198.51.100.7, 192.0.2.1"), "whom the last proxy did not see is an invention");
    assert!(!denied("127.0.0.2", "198.51.100.7, nonsense"));
    assert!(!denied("127.0.0.3", "198.51.100.7"), "that is no proxy of ours");

    // RFC 9110 §5.6.1.2: what is empty in a list is not there, neither to be believed nor to be passed on.
    for (named, listed) in [
        ("203.0.113.9, ", "203.0.113.9, 127.0.0.2"),
        ("203.0.113.9,,10.0.0.1", "203.0.113.9, 10.0.0.1, 127.0.0.2"),
        (", \t,203.0.113.9\r\nX-Forwarded-For: ", "203.0.113.9, 127.0.0.2"),
        ("", "127.0.0.2"),
    ] {
        let head = arrived(from("127.0.0.2"), &format!("X-Forwarded-For: {named}\r\n"));
        assert_eq!(head.headers("x-forwarded-for").collect::<Vec<_>>(), [listed], "{named:?}");
        let client = if named.is_empty() { "127.0.0.2" } else { "203.0.113.9" };
        assert_eq!(head.header("x-client"), Some(client), "{named:?}");
    }

    // A proxy may have passed on what its client says of Connection.
    assert!(denied("127.0.0.2", "198.51.100.7\r\nConnection: close, X-Forwarded-For"));

    let mut connection = from("127.0.0.2");
    connection.send("GET /before HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n").unwrap();
    connection.receive().unwrap();
    connection.send("nonsense\r\n\r\n").unwrap();
    connection.receive().unwrap();
    assert!(node.wait_for_message("<BADREQ>").contains("127.0.0.2:"), "it names nobody: {}", node.messages());
    // Who is named holds for one request, not for the next on the same connection.
    let mut kept = from("127.0.0.2");
    kept.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n").unwrap();
    assert_eq!(kept.receive().unwrap().status(), 403);
    assert_eq!(kept.get("/").unwrap().status(), 200);
}

/// A rule may give a server another Host; what was asked for is what the server is told beside it.
#[test]
fn the_host_that_was_asked_for_is_told() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration(
        r#"forwarded_host = true
forwarded = true
rules = [
    { request_headers = { set = { Host = "one.internal" } } },
    { request_headers = { set = { Host = "app.internal" } } },
    { request_headers = { set = { Host = "{query}" } } },
]"#,
        "",
        &[server.address],
    );
    let _node = Relevo::start(&text);
    let head = arrived(connection_from("127.0.0.2", web), "");
    let one = |name: &str| head.headers(name).collect::<Vec<_>>().join(" | ");
    assert_eq!(one("host"), "app.internal", "there is always one");
    assert_eq!(one("x-forwarded-host"), "a.example:81");
    assert_eq!(one("forwarded"), "for=127.0.0.2;host=\"a.example:81\";proto=http");
}

/// X-Forwarded-For may be left alone: for clients of some networks, or where it is there already.
#[test]
fn forwarded_for_has_exceptions() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) =
        configuration("forwarded_for = { except = [\"127.1.0.0/16\"], only_if_absent = true }", "", &[server.address]);
    let _node = Relevo::start(&text);
    let list = |source: &str, headers: &str| {
        let head = arrived(connection_from(source, web), headers);
        head.headers("x-forwarded-for").map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list("127.0.0.1", ""), ["127.0.0.1"]);
    assert_eq!(list("127.0.0.1", "X-Forwarded-For: 192.0.2.1\r\n"), ["192.0.2.1"]);
    assert!(list("127.1.2.3", "").is_empty());
}

/// Each request has an id of its own, under the name that was chosen; a client's is kept only where that is wished.
#[test]
fn every_request_has_an_id() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("request_id = { header = \"X-Trace\", keep = false }", "", &[server.address]);
    let _node = Relevo::start(&text);
    let id = |headers: &str| {
        let answer = exchange(web, format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
        let head = Message { head: answer.text(), body: Vec::new() };
        let ids: Vec<_> = head.headers("x-trace").map(str::to_owned).collect();
        let [id] = &ids[..] else { panic!("{ids:?}") };
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        id.clone()
    };
    let ids: std::collections::BTreeSet<_> = (0..20).map(|_| id("X-Trace: theirs\r\n")).collect();
    assert_eq!(ids.len(), 20);
}
