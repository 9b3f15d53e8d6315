//! The line for each request, as tools that read HAProxy's log expect it.

use crate::rig::http::{Connection, exchange, get, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connect};

/// The fields of `option httplog` (HAProxy's manual, section 8.2.3).
#[derive(Debug)]
struct Line {
    client: String,
    date: String,
    frontend: String,
    backend: String,
    server: String,
    /// TR, Tw, Tc, Tr, Ta
    timers: Vec<i64>,
    status: i64,
    bytes: i64,
    request_cookie: String,
    response_cookie: String,
    termination: String,
    /// actconn, feconn, beconn, srv_conn, retries
    connections: Vec<String>,
    queues: Vec<i64>,
    request: String,
}

impl Line {
    /// `None` where it does not have this shape exactly.
    fn parse(line: &str) -> Option<Self> {
        let (fields, request) = line.split_once(" \"")?;
        let mut fields = fields.split(' ');
        let mut next = || fields.next().map(str::to_owned);
        let client = next()?;
        let date = next()?.strip_prefix('[')?.strip_suffix(']')?.to_owned();
        let frontend = next()?;
        let place = next()?;
        let (backend, server) = place.split_once('/')?;
        let numbers = |text: String| text.split('/').map(|number| number.parse().ok()).collect::<Option<Vec<i64>>>();
        let parsed = Self {
            client,
            date,
            frontend,
            backend: backend.to_owned(),
            server: server.to_owned(),
            timers: numbers(next()?).filter(|timers| timers.len() == 5)?,
            status: next()?.parse().ok()?,
            bytes: next()?.parse().ok()?,
            request_cookie: next()?,
            response_cookie: next()?,
            termination: next().filter(|state| state.len() == 4)?,
            connections: Some(next()?.split('/').map(str::to_owned).collect::<Vec<_>>()).filter(|c| c.len() == 5)?,
            queues: numbers(next()?).filter(|queues| queues.len() == 2)?,
            request: request.strip_suffix('"')?.to_owned(),
        };
        next().is_none().then_some(parsed)
    }
}

/// The line of the request for this path.
#[track_caller]
fn line_of(node: &Relevo, path: &str) -> Line {
    let line = node.wait_for_message(&format!(" {path} HTTP/1."));
    Line::parse(&line).unwrap_or_else(|| panic!("not HAProxy's format: {line}"))
}

/// A request that went well: who, when, where, how long, how much.
#[test]
fn a_request_is_logged_in_haproxys_format() {
    let _place = own_loopback();
    let server = Server::answering(|request| {
        if request.head.starts_with("GET /slow") {
            std::thread::sleep(std::time::Duration::from_millis(120));
        }
        response("200 OK", "", "x".repeat(1000))
    });
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    let before = jiff::Zoned::now();
    let mut connection = connect(web);
    let answer = connection.get("/slow?a=%20").unwrap();
    let client = connection.stream().local_addr().unwrap();

    let line = line_of(&node, "/slow?a=%20");
    assert_eq!(line.client, client.to_string());
    assert_eq!((line.frontend.as_str(), line.backend.as_str(), line.server.as_str()), ("web", "app", "a"));
    assert_eq!(line.request, "GET /slow?a=%20 HTTP/1.1");
    assert_eq!(line.status, 200);
    let size = (answer.head.len() + 4 + answer.body.len()) as i64;
    assert!((1000..=size + 200).contains(&line.bytes), "{line:?}: of {size} bytes");
    let [_, waited, connect, response, total] = line.timers[..] else { unreachable!() };
    assert_eq!(waited, 0, "{line:?}");
    assert!((0..5000).contains(&connect), "{line:?}");
    assert!((120..5000).contains(&response) && (response..10_000).contains(&total), "{line:?}");
    assert_eq!((line.request_cookie.as_str(), line.response_cookie.as_str()), ("-", "-"));
    assert_eq!(line.termination, "----");
    assert_eq!(line.connections[4], "0", "{line:?}");
    assert_eq!(line.queues, [0, 0]);
    let date =
        jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S.%f", &line.date).and_then(|date| date.to_datetime()).unwrap();
    let age = date.duration_since(before.datetime()).as_secs_f64();
    assert!((-2.0..60.0).contains(&age), "{} is not the time of the request", line.date);
}

/// Who ended a request and when: the two characters that people search for.
#[test]
fn the_termination_state_tells_who_ended_it() {
    let _place = own_loopback();
    let server = Server::start(|mut connection: Connection| {
        let Ok(request) = connection.receive() else { return };
        let answer: &[u8] = match request.head.split(' ').nth(1) {
            Some("/silent") => {
                let _ = connection.receive_rest();
                b""
            }
            Some("/junk") => b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            Some("/long") => &[b'a'; 70_000],
            Some("/short") => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            _ => b"",
        };
        let _ = connection.send(answer);
    });
    let (web, text) = configuration("", "timeouts.server = \"200ms\"", &[server.address]);
    let (down, other) = configuration("", "retries = 2", &[Server::nowhere()]);
    let other = other
        .replace("frontends.web", "frontends.down")
        .replace("\"app\"", "\"gone\"")
        .replace("backends.app", "backends.gone");
    let node = Relevo::start(&format!("{text}{other}"));

    assert_eq!(get(web, "/closed").status(), 502);
    let line = line_of(&node, "/closed");
    assert_eq!((line.status, &line.termination[..2]), (502, "SH"), "{line:?}");

    // What is no answer was refused here.
    for path in ["/junk", "/long"] {
        assert_eq!(get(web, path).status(), 502);
        let line = line_of(&node, path);
        assert_eq!((line.status, &line.termination[..2]), (502, "PH"), "{line:?}");
    }

    assert_eq!(get(web, "/silent").status(), 504);
    let line = line_of(&node, "/silent");
    assert_eq!((line.status, &line.termination[..2]), (504, "sH"), "{line:?}");
    assert_eq!(line.timers[3], -1, "no response ever began: {line:?}");

    let mut connection = connect(web);
    connection.send("GET /short HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    connection.receive_rest().unwrap();
    let line = line_of(&node, "/short");
    assert_eq!((line.status, &line.termination[..2]), (200, "SD"), "{line:?}");

    assert_eq!(exchange(web, "GET /nohost HTTP/1.1\r\n\r\n").status(), 400);
    let line = line_of(&node, "/nohost");
    assert_eq!((line.status, line.server.as_str(), &line.termination[..2]), (400, "<NOSRV>", "PR"), "{line:?}");

    assert_eq!(get(down, "/refused").status(), 503);
    let line = line_of(&node, "/refused");
    assert_eq!((line.status, line.backend.as_str(), &line.termination[..2]), (503, "gone", "SC"), "{line:?}");
    assert_eq!(line.connections[4].trim_start_matches('+'), "2", "the retries: {line:?}");
}

/// A body that breaks the rules of chunks, one whose client goes and one that does not come, while it is held and while it is passed
/// on: HAProxy's letters, too.
#[test]
fn the_termination_state_tells_why_a_body_failed() {
    let _place = own_loopback();
    let server = Server::start(|mut connection| drop(connection.receive_rest()));
    let (web, text) =
        configuration("timeouts = { http_request = \"500ms\", client = \"500ms\" }", "", &[server.address]);
    let held = "[[frontends.web.routes]]\npath_prefix = \"/held\"\nbackend = \"held\"\n[backends.held]\nbuffer_request = 1000\n";
    let server = format!("servers = [{{ name = \"a\", address = \"{}\", check = false }}]\n", server.address);
    let node = Relevo::start(&format!("{text}{held}{server}"));
    for (path, then, letters) in [
        ("/held/broken", Some("zz\r\n"), "PR"),
        ("/held/gone", None, "CR"),
        ("/held/late", Some(""), "cR"),
        ("/broken", Some("zz\r\n"), "PH"),
        ("/gone", None, "CD"),
        ("/late", Some(""), "cD"),
    ] {
        let mut connection = connect(web);
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send(head + "5\r\nhello\r\n").unwrap();
        if let Some(then) = then {
            connection.send(then).unwrap();
            assert_eq!(connection.receive().unwrap().status(), if then.is_empty() { 408 } else { 400 }, "{path}");
        }
        drop(connection);
        let line = line_of(&node, path);
        assert_eq!(&line.termination[..2], letters, "{path}: {line:?}");
    }
}

/// What a client puts into its request cannot make lines of its own, nor hide in them.
#[test]
fn a_request_cannot_forge_a_line() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, text) = configuration("", "", &[server.address]);
    let node = Relevo::start(&text);
    exchange(web, b"GET /\x80\xff\"quoted\" HTTP/1.1\r\nHost: test\r\n\r\n");
    get(web, "/after");
    node.wait_for_message("/after");
    let messages = std::fs::read(node.directory().join("messages")).unwrap();
    assert!(messages.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~') || *byte == b'\t'), "{}", node.messages());
}
