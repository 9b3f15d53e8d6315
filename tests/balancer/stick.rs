//! Sessions kept by a stick table: by the client's address, a header, or the application's cookie.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relevo::status::ServerState;

use crate::rig::http::{Connection, Message, exchange, response};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::{Server, named};
use crate::{configuration, server_of};

/// The server that answers a GET with these further headers, on a connection of its own.
fn server_for(web: SocketAddr, headers: &str) -> String {
    server_of(&get_with(web, headers)).to_owned()
}

fn get_with(web: SocketAddr, headers: &str) -> Message {
    exchange(web, format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n"))
}

fn user(number: usize) -> String {
    format!("X-User: user-{number}\r\n")
}

/// Asks several times for each of many clients, and asserts that each has one server and that all servers have clients.
#[track_caller]
fn assert_each_has_one(web: SocketAddr, client: impl Fn(usize) -> String) {
    let mut servers = BTreeMap::<usize, String>::new();
    for request in 0..60 {
        let server = server_for(web, &client(request % 20));
        let first = servers.entry(request % 20).or_insert_with(|| server.clone());
        assert_eq!(*first, server, "client {}", request % 20);
    }
    for name in ["a", "b", "c"] {
        assert!(servers.values().filter(|server| *server == name).count() >= 6, "{servers:?}");
    }
}

/// An address is the same whichever worker its connections come to. A trusted proxy's clients are told apart.
#[test]
fn clients_stay_by_their_address() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let frontend = "trusted_proxies = \"127.0.0.1\"";
    let (web, text) =
        configuration(frontend, "stick = { by = \"source\" }", &servers.each_ref().map(|server| server.address));
    let _node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
    assert_each_has_one(web, |client| format!("X-Forwarded-For: 2001:db8::{client}\r\n"));
}

/// Who sends no such header, or an empty one, has no session.
#[test]
fn users_stay_by_a_header() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let stick = "stick = { by = \"header\", name = \"X-User\" }";
    let (web, text) = configuration("", stick, &servers.each_ref().map(|server| server.address));
    let _node = Relevo::start(&text);
    assert_each_has_one(web, user);
    for headers in ["", "X-User:\r\n"] {
        let mut answers: Vec<_> = (0..3).map(|_| server_for(web, headers)).collect();
        answers.sort_unstable();
        assert_eq!(answers, ["a", "b", "c"], "{headers:?}");
    }
}

/// A session is known from the response that sets its cookie on, so that its second request is at the right place already.
#[test]
fn sessions_stay_by_the_applications_cookie() {
    let _place = own_loopback();
    let count = Arc::new(AtomicUsize::new(0));
    let application = |name: &'static str| {
        let count = count.clone();
        Server::answering(move |request| {
            let set = match request.header("cookie") {
                Some(_) => String::new(),
                None => format!("Set-Cookie: SESSION={}; HttpOnly\r\n", count.fetch_add(1, Ordering::Relaxed)),
            };
            response("200 OK", &format!("X-Server: {name}\r\nSet-Cookie: other=1\r\n{set}"), "")
        })
    };
    let servers = [application("a"), application("b"), application("c")];
    let stick = "stick = { by = \"cookie\", name = \"SESSION\" }";
    let (web, text) = configuration("", stick, &servers.each_ref().map(|server| server.address));
    let _node = Relevo::start(&text);
    let sessions: Vec<_> = (0..20).map(|_| get_with(web, "")).collect();
    for session in &sessions {
        let cookie = session.headers("set-cookie").find(|cookie| cookie.starts_with("SESSION=")).unwrap();
        let cookie = cookie.split(';').next().unwrap();
        for _ in 0..2 {
            assert_eq!(server_for(web, &format!("Cookie: x=1; {cookie}; other=1\r\n")), server_of(session));
        }
    }
}

/// A session that nobody used for so long is forgotten, and the one that was not used for the longest time where there are more
/// than the table has room for. Both begin again, with the next turn.
#[test]
fn a_table_forgets() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    let stick = "stick = { by = \"header\", name = \"X-User\", expire = \"400ms\" }";
    let (web, text) = configuration("", stick, &addresses);
    let node = Relevo::start(&text);
    assert_eq!(server_for(web, &user(1)), "a");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server_for(web, &user(1)), "b");
    drop(node);

    let stick = "stick = { by = \"header\", name = \"X-User\", size = 2 }";
    let (web, text) = configuration("", stick, &addresses);
    let _node = Relevo::start(&text);
    let answers = [1, 2, 1, 3, 1, 2].map(|number| server_for(web, &user(number)));
    assert_eq!(answers, ["a", "b", "a", "a", "a", "b"], "the second was forgotten for the third");
    assert_eq!(server_for(web, &user(3)), "a", "the third for the second: its turn would have been a's either way");
    assert_eq!(server_for(web, &user(1)), "b", "and the first for that");
}

/// A session whose server is gone goes to another, and stays there when the first is back.
#[test]
fn a_session_whose_server_is_gone_moves_for_good() {
    let _place = own_loopback();
    let mut servers = vec![Server::named("a"), Server::named("b")];
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let stick = "stick = { by = \"header\", name = \"X-User\" }";
    let (web, text) = configuration("", stick, &addresses);
    let _node = Relevo::start(&text);
    assert_eq!([1, 2].map(|number| server_for(web, &user(number))), ["a", "b"]);
    servers.remove(0);
    assert_eq!(server_for(web, &user(1)), "b");
    servers.push(Server::answering_at(addresses[0], named("a")));
    for _ in 0..4 {
        assert_eq!([1, 2].map(|number| server_for(web, &user(number))), ["b", "b"]);
    }
    assert_eq!(server_for(web, &user(3)), "a", "which serves again");
}

/// A reload leaves sessions where they are, by their servers' names, whatever else it changes; another table begins empty.
#[test]
fn sessions_outlive_a_reload() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let [a, b, c] = servers.each_ref().map(|server| server.address);
    let (web, text) = configuration("", "stick = { by = \"header\", name = \"X-User\" }", &[a, b]);
    let node = Relevo::start(&text);
    let ask = || [1, 2, 3, 4].map(|number| server_for(web, &user(number)));
    assert_eq!(ask(), ["a", "b", "a", "b"]);

    let first = "[[backends.app.servers]]";
    let another = format!("{first}\nname = \"c\"\naddress = \"{c}\"\ncheck = false\n{first}");
    let text = text.replacen(first, &another, 1);
    node.reload_with(&text);
    assert_eq!(ask(), ["a", "b", "a", "b"], "their places are others now");

    node.reload_with(&text.replace("\"X-User\" }", "\"X-User\", size = 1000 }"));
    let [one, _, three, _] = ask();
    assert_ne!(one, three, "three servers take turns");
    assert_eq!(server_for(web, &user(1)), one);
}

/// What each server's agent says: `drain`, `maint`, `ready`.
struct Agents {
    words: [Arc<Mutex<&'static str>>; 2],
    _servers: Vec<Server>,
    port: u16,
}

impl Agents {
    /// One at each of the two addresses, on the same port.
    fn start(addresses: [Ipv4Addr; 2]) -> Self {
        let port = free_port().port();
        let words: [Arc<Mutex<&'static str>>; 2] = std::array::from_fn(|_| Arc::new(Mutex::new("ready")));
        let agent = |(address, word): (&Ipv4Addr, &Arc<Mutex<&'static str>>)| {
            let word = word.clone();
            Server::start_at((*address, port).into(), move |mut connection: Connection| {
                let word = *word.lock().unwrap();
                let _ = connection.send(format!("{word}\n"));
            })
        };
        let servers = addresses.iter().zip(&words).map(agent).collect();
        Self { words, _servers: servers, port }
    }

    fn say(&self, server: usize, word: &'static str, node: &Relevo, state: ServerState) {
        *self.words[server].lock().unwrap() = word;
        node.wait_for(word, |status| status.node.backends[0].servers[server].state == state);
    }
}

/// A server that drains keeps its sessions and gets no others; in maintenance it loses them. By a table as by a cookie.
#[test]
fn one_that_drains_keeps_its_sessions_and_one_in_maintenance_loses_them() {
    let _place = own_loopback();
    for how in ["stick = { by = \"header\", name = \"X-User\" }", "cookie = { name = \"S\", mode = \"insert\" }"] {
        let addresses = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
        let agents = Agents::start(addresses);
        let servers = [("a", addresses[0]), ("b", addresses[1])]
            .map(|(name, address)| Server::answering_at((address, free_port().port()).into(), named(name)));
        let agent = format!("{how}\nagent = {{ port = {}, interval = \"50ms\" }}", agents.port);
        let (web, text) = configuration("", &agent, &servers.each_ref().map(|server| server.address));
        let node = Relevo::start_with(&text, 2);

        // The client of a session: its name, and the cookie that it was given last.
        let cookies = Mutex::new(BTreeMap::<usize, String>::new());
        let ask = |number: usize| {
            let cookie = cookies.lock().unwrap().get(&number).map(|cookie| format!("Cookie: {cookie}\r\n"));
            let answer = get_with(web, &(user(number) + &cookie.unwrap_or_default()));
            if let Some(cookie) = answer.header("set-cookie") {
                let cookie = cookie.split(';').next().unwrap_or_default();
                cookies.lock().unwrap().insert(number, cookie.to_owned());
            }
            server_of(&answer).to_owned()
        };
        let at_a = (1..=2).find(|number| ask(*number) == "a").unwrap();

        agents.say(0, "drain", &node, ServerState::Drain);
        assert_eq!([at_a, at_a].map(ask), ["a", "a"], "{how}");
        assert_eq!([3, 4].map(ask), ["b", "b"], "{how}");
        agents.say(0, "maint", &node, ServerState::Maintenance);
        assert_eq!([at_a, 3].map(ask), ["b", "b"], "{how}");
        agents.say(0, "ready", &node, ServerState::Up);
        assert_eq!([at_a, 3].map(ask), ["b", "b"], "it is at home there: {how}");
    }
}

/// In mode TCP there is the address alone.
#[test]
fn connections_stay_by_their_address() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let (web, text) = configuration(
        "mode = \"tcp\"",
        "stick = { by = \"source\" }",
        &servers.each_ref().map(|server| server.address),
    );
    let _node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
    let mut seen = BTreeMap::<u8, String>::new();
    for connection in 0..20_u8 {
        let client = connection % 5;
        let mut connection = connection_from(Ipv4Addr::new(127, 0, 1, client + 1).into(), web);
        let server = server_of(&connection.get("/").unwrap()).to_owned();
        let first = seen.entry(client).or_insert_with(|| server.clone());
        assert_eq!(*first, server, "client {client}");
    }
    assert_eq!(seen.values().filter(|server| *server == "a").count(), 3, "new ones take turns: {seen:?}");
}

fn connection_from(source: IpAddr, to: SocketAddr) -> Connection {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Connection::new(TcpStream::from(socket)).unwrap()
}
