//! What a server knows of whoever is at the other end of a connection: it is true of one client, and no other gets that
//! connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::rig::http::{Connection, Message, response};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::Server;
use crate::{configuration, connect, server_of};

/// A client that is quiet for so long is put to rest.
const A_WHILE: Duration = Duration::from_millis(500);

/// Authenticates connections as IIS does: who has gone through the handshake is known to the end of the connection. Each
/// answer says who the client is taken for.
fn ntlm_server(name: &'static str) -> Server {
    Server::start(move |mut connection| {
        let (mut is_challenged, mut user) = (false, None);
        while let Ok(request) = connection.receive() {
            let headers = format!("X-Server: {name}\r\n");
            let refuse = |challenge: &str| {
                response("401 Unauthorized", &format!("{headers}WWW-Authenticate: {challenge}\r\n"), "")
            };
            let answer = match (request.header("authorization"), &user) {
                (Some("NTLM negotiate"), _) => {
                    is_challenged = true;
                    refuse("NTLM challenge")
                }
                (Some(credentials), _) if is_challenged => {
                    let who = credentials.trim_start_matches("NTLM ").to_owned();
                    user = Some(who.clone());
                    response("200 OK", &headers, who)
                }
                (_, Some(user)) => response("200 OK", &headers, user),
                _ => refuse("NTLM"),
            };
            if connection.send(answer).is_err() {
                return;
            }
        }
    })
}

fn ask(client: &mut Connection, authorization: &str) -> Message {
    let header = if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{header}\r\n")).unwrap();
    client.receive().unwrap()
}

/// A client that has gone through the handshake.
fn logged_in(web: SocketAddr, user: &str) -> Connection {
    let mut client = connect(web);
    assert_eq!(ask(&mut client, "").status(), 401);
    assert_eq!(ask(&mut client, "NTLM negotiate").status(), 401);
    assert_eq!(ask(&mut client, &format!("NTLM {user}")).text(), user);
    client
}

fn node(text: &str) -> Relevo {
    Relevo::start(&format!("[process]\nthreads = 1\n{text}"))
}

/// Whoever comes next is somebody else, whatever `reuse` says; who was known stays known, also after a pause.
#[test]
fn nobody_is_taken_for_another_client() {
    let _place = own_loopback();
    for reuse in ["", "reuse = 'always'", "reuse = 'never'"] {
        let server = ntlm_server("a");
        let (web, text) = configuration("", reuse, &[server.address]);
        let _node = node(&text);
        let mut alice = logged_in(web, "alice");
        let mut mallory = connect(web);
        assert_eq!(ask(&mut mallory, "").status(), 401, "{reuse}");
        assert_eq!(ask(&mut alice, "").text(), "alice", "{reuse}");
        std::thread::sleep(A_WHILE);
        assert_eq!(ask(&mut mallory, "").status(), 401, "{reuse}");
        assert_eq!(ask(&mut alice, "").text(), "alice", "{reuse}: after a pause");
        drop(alice);
        assert_eq!(ask(&mut connect(web), "").status(), 401, "{reuse}: after she left");
    }
}

/// Of several servers the one that knows a client gets its requests, though others would have their turn.
#[test]
fn a_client_stays_where_it_is_known() {
    let _place = own_loopback();
    for reuse in ["", "reuse = 'never'"] {
        let servers = ["a", "b", "c"].map(ntlm_server);
        let (web, text) = configuration("", reuse, &servers.each_ref().map(|server| server.address));
        let _node = node(&text);
        let (mut alice, mut bob) = (logged_in(web, "alice"), logged_in(web, "bob"));
        for _ in 0..5 {
            assert_eq!(ask(&mut alice, "").text(), "alice", "{reuse}");
            assert_eq!(ask(&mut bob, "").text(), "bob", "{reuse}");
        }
        // Nobody else is kept there.
        let mut others = connect(web);
        let seen: Vec<_> = (0..3).map(|_| server_of(&ask(&mut others, "NTLM")).to_owned()).collect();
        assert_eq!(
            seen.iter().filter(|name| **name == seen[0]).count(),
            3,
            "{seen:?}: it is in the middle of the handshake"
        );
    }
}

/// What goes to other backends in between takes nothing away.
#[test]
fn other_backends_in_between_leave_it_alone() {
    let _place = own_loopback();
    for reuse in ["", "reuse = 'never'"] {
        let (server, files) = (ntlm_server("a"), Server::named("files"));
        let (web, text) =
            configuration("routes = [{ path_prefix = '/files', backend = 'files' }]", reuse, &[server.address]);
        let address = files.address;
        let _node =
            node(&format!("{text}[backends.files]\n{reuse}\nservers = [{{ name = 'f', address = '{address}' }}]\n"));
        let mut alice = logged_in(web, "alice");
        for _ in 0..3 {
            assert_eq!(alice.get("/files").unwrap().header("x-server"), Some("files"));
            assert_eq!(ask(&mut alice, "").text(), "alice", "{reuse}");
        }
    }
}

/// Who goes from one server to the next has a connection to each, unless there are so many clients that files may run short.
#[test]
fn a_client_has_several_of_its_own_only_while_clients_are_few() {
    let _place = own_loopback();
    for (most, expected) in [(100, [1, 1]), (4, [5, 5])] {
        let servers = ["a", "b"].map(Server::named);
        let (web, text) = configuration("", "reuse = 'never'", &servers.each_ref().map(|server| server.address));
        let _node = Relevo::start(&format!("[process]\nthreads = 1\nmax_connections = {most}\n{text}"));
        let mut client = connect(web);
        for _ in 0..10 {
            assert_eq!(client.get("/").unwrap().status(), 200);
        }
        assert_eq!(servers.each_ref().map(Server::connections), expected, "of {most}");
    }
}

/// It goes along when the configuration changes and its server is still there, wherever in the file.
#[test]
fn a_reload_leaves_it_with_its_client() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(ntlm_server);
    let [a, b] = servers.each_ref().map(|server| server.address);
    let text = |names: &[(&str, SocketAddr)], web: SocketAddr| {
        let servers: String =
            names.iter().map(|(name, at)| format!("{{ name = '{name}', address = '{at}', check = false }},")).collect();
        format!(
            "[process]\nthreads = 1\n[frontends.web]\nbind = '{web}'\ndefault_backend = 'app'\n[backends.app]\nservers = [{servers}]\n"
        )
    };
    let web = crate::rig::place::free_port();
    let node = Relevo::start(&text(&[("a", a)], web));
    let (mut alice, mut resting) = (logged_in(web, "alice"), logged_in(web, "bob"));
    std::thread::sleep(A_WHILE);
    assert_eq!(ask(&mut alice, "").text(), "alice");
    node.reload_with(&text(&[("b", b), ("a", a)], web));
    for _ in 0..3 {
        assert_eq!(ask(&mut alice, "").text(), "alice");
        assert_eq!(ask(&mut resting, "").text(), "bob");
        assert_eq!(ask(&mut connect(web), "").status(), 401);
    }
    // With its server it is gone.
    node.reload_with(&text(&[("b", b)], web));
    assert_eq!(ask(&mut alice, "").status(), 401);
}

/// What binds a connection, and what does not: the next client comes on the same one, or on another.
#[test]
fn what_names_such_a_scheme_binds_the_connection_and_nothing_else_does() {
    let _place = own_loopback();
    let rows: [(&str, &str, bool); 16] = [
        // A header of the request, one of the response.
        ("", "WWW-Authenticate: NTLM", true),
        ("", "WWW-Authenticate: Negotiate oYG1MIGy", true),
        ("", "www-authenticate: Basic realm=\"a\", negotiate", true),
        ("", "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: NTLM", true),
        ("", "Proxy-Authenticate: NTLM", true),
        ("", "Persistent-Auth: true", true),
        ("Authorization: Negotiate YIIZ", "X: y", true),
        ("Authorization: ntlm TlRM", "X: y", true),
        ("Proxy-Authorization: NTLM TlRM", "X: y", true),
        ("", "X: y", false),
        ("", "WWW-Authenticate: Basic realm=\"NTLM\"", false),
        ("", "WWW-Authenticate: Bearer", false),
        ("", "Persistent-Auth: false", false),
        ("Authorization: Basic bnRsbQ==", "X: y", false),
        ("Authorization: Bearer NTLM", "X: y", false),
        ("Authorization: Digest username=\"ntlm\"", "WWW-Authenticate: Digest realm=\"a\"", false),
    ];
    for (of_request, of_response, is_bound) in rows {
        let numbers = Arc::new(AtomicUsize::new(0));
        let server = Server::start(move |mut connection| {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            while connection.receive().is_ok() {
                let answer = response("200 OK", &format!("{of_response}\r\n"), number.to_string());
                if connection.send(answer).is_err() {
                    return;
                }
            }
        });
        let (web, text) = configuration("", "", &[server.address]);
        let _node = node(&text);
        let mut client = connect(web);
        let header = if of_request.is_empty() { String::new() } else { format!("{of_request}\r\n") };
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{header}\r\n")).unwrap();
        assert_eq!(client.receive().unwrap().text(), "0");
        let next = connect(web).get("/").unwrap().text();
        assert_eq!(next, if is_bound { "1" } else { "0" }, "{of_request} {of_response}");
        // Its own client finds it again, though there is another that was used last.
        if is_bound {
            assert_eq!(client.get("/").unwrap().text(), "0", "{of_request} {of_response}");
        }
    }
}

/// An answer that nobody sees, since the request is tried again, has bound the connection all the same.
#[test]
fn an_answer_that_is_tried_again_binds_it_too() {
    let _place = own_loopback();
    let challenge = |status: &'static str, name: &'static str| {
        Server::answering(move |_| response(status, &format!("X-Server: {name}\r\nWWW-Authenticate: NTLM\r\n"), ""))
    };
    let servers = [challenge("503 Busy", "a"), challenge("200 OK", "b")];
    let (web, text) =
        configuration("", "balance = 'first'\nretry_on = [503]", &servers.each_ref().map(|server| server.address));
    let _node = node(&text);
    for clients in 1..=3 {
        assert_eq!(server_of(&connect(web).get("/").unwrap()), "b");
        assert_eq!(servers.each_ref().map(Server::connections), [clients, clients]);
    }
}
