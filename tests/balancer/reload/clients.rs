//! What clients see of it: their next requests, and what has begun.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::{configuration, halting, old_configurations, server, wait_for_old_configurations};
use crate::rig::gate::Gate;
use crate::rig::http::{Connection, get};
use crate::rig::node::{Relevo, relevo};
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::{Server, named};
use crate::rig::{PATIENCE, wait_until};
use crate::{ask, connect, server_of};

/// What a client asks next is for the new configuration, on the connection it has and on a new one.
#[test]
fn the_next_request_sees_the_new_configuration_on_the_same_connection() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    let (mut busy, mut quiet) = (connect(web), connect(web));
    for connection in [&mut busy, &mut quiet] {
        assert_eq!(server_of(&connection.get("/").unwrap()), "a");
    }
    let pause = Duration::from_millis(400);
    std::thread::sleep(pause); // `quiet` is taken out of hyper
    busy.get("/").unwrap();

    let said = node.reload_with(&configuration(web, "", &[("b", b.address)]));
    assert_eq!(said, "the configuration was reloaded: server app/b came; server app/a went");
    node.wait_for_message("guard: the configuration was reloaded: server app/b came; server app/a went");
    for connection in [&mut busy, &mut quiet, &mut connect(web)] {
        let answer = connection.get("/").unwrap();
        assert_eq!((server_of(&answer), answer.header("connection")), ("b", None));
    }
    wait_for_old_configurations(&node, 0);

    let routed = configuration(web, "", &[("b", b.address)]).replace(
        "[[backends.app",
        &format!(
            "routes = [{{ path_prefix = \"/a\", backend = \"other\" }}]\n[[backends.other.servers]]\nname = \"a\"\n\
             address = \"{}\"\ncheck = false\n[[backends.app",
            a.address
        ),
    );
    let said = node.reload_with(&routed);
    assert_eq!(said, "the configuration was reloaded: frontend web changed; backend other came");
    assert_eq!((server_of(&busy.get("/a").unwrap()), server_of(&busy.get("/b").unwrap())), ("a", "b"));
}

/// Weights, and a server that has another address under the same name.
#[test]
fn weights_and_addresses_change() {
    let _place = own_loopback();
    let servers = [Server::named("a"), Server::named("b"), Server::named("c")];
    let [a, b, c] = servers.each_ref().map(|server| server.address);
    let web = free_port();
    let text = configuration(web, "", &[("a", a), ("b", b)]);
    let node = Relevo::start(&text);
    let share = || {
        let mut connection = connect(web);
        let mut count = |name| (0..40).filter(|_| server_of(&connection.get("/").unwrap()) == name).count();
        count("a")
    };
    assert_eq!(share(), 20);
    let weighted = text.replace("name = \"a\"", "name = \"a\"\nweight = 3");
    assert_eq!(node.reload_with(&weighted), "the configuration was reloaded: server app/a changed");
    assert_eq!(share(), 30);
    wait_until("all are counted", || server(&node, "a").requests == 50, || node.messages());
    node.reload_with(&weighted.replace(&a.to_string(), &c.to_string()));
    let answers: Vec<_> = (0..4).map(|_| server_of(&get(web, "/")).to_owned()).collect();
    assert_eq!(answers.iter().filter(|server| *server == "c").count(), 3, "{answers:?}");
    wait_until("the count goes on", || server(&node, "a").requests == 53, || node.messages());
}
/// A server behind a frontend of each mode, and three clients of it that have begun something: a download, a WebSocket, a TCP
/// connection.
struct Begun {
    web: SocketAddr,
    tcp: SocketAddr,
    slow: Server,
    go_on: Sender<()>,
}

impl Begun {
    fn new() -> Self {
        let (slow, go_on) = halting();
        Self { web: free_port(), tcp: free_port(), slow, go_on }
    }

    fn text(&self, process: &str, server: SocketAddr) -> String {
        let tcp = format!("[frontends.tcp]\nmode = \"tcp\"\nbind = \"{}\"\ndefault_backend = \"raw\"\n", self.tcp);
        let raw = format!("[[backends.raw.servers]]\nname = \"r\"\naddress = \"{server}\"\ncheck = false\n");
        configuration(self.web, &format!("{process}\n{tcp}"), &[("a", server)]) + &raw
    }

    fn begin(&self) -> Vec<Connection> {
        let upgrade = "Connection: Upgrade\r\nUpgrade: chat\r\n";
        let begin = |(address, path, headers)| {
            let mut connection = connect(address);
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).unwrap();
            connection.receive_head().unwrap();
            assert_eq!(connection.receive_bytes(5).unwrap(), b"first");
            connection
        };
        [(self.web, "/download", ""), (self.web, "/socket", upgrade), (self.tcp, "/", "")].map(begin).into()
    }
}

/// A download, a WebSocket and a TCP connection that began before go on to their ends under the configuration they began
/// with; how many such configurations there are can be seen.
#[test]
fn what_has_begun_goes_on() {
    let _place = own_loopback();
    let (begun, other) = (Begun::new(), Server::named("other"));
    let node = Relevo::start(&begun.text("", begun.slow.address));
    let waiting = begun.begin();
    let began = Instant::now();
    let text = begun.text("", other.address);
    let said = node.reload_with(&text);
    assert_eq!(said, "the configuration was reloaded: server app/a changed; server raw/r changed");
    assert_eq!(server_of(&get(begun.web, "/")), "other");
    assert_eq!(server_of(&get(begun.tcp, "/")), "other");
    wait_for_old_configurations(&node, 1);
    let oldest = Duration::from_secs_f64(old_configurations(&node).oldest_s);
    assert!(oldest <= began.elapsed(), "{oldest:?}");
    node.reload_with(&text);
    // Under the second nothing goes on.
    wait_for_old_configurations(&node, 1);
    let shown = relevo(&["status", "--socket", &node.directory().join("control.sock").display().to_string()]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("something goes on under 1 old configuration"),
        "{shown:?}"
    );

    waiting.iter().for_each(|_| begun.go_on.send(()).unwrap());
    for mut connection in waiting {
        assert_eq!(connection.receive_bytes(4).unwrap(), b"last");
        drop(connection);
    }
    wait_for_old_configurations(&node, 0);
}

/// After `process.hard_stop_after` what still goes on under an old configuration is ended, and the log says so.
#[test]
fn what_goes_on_for_too_long_is_ended() {
    let _place = own_loopback();
    let begun = Begun::new();
    let text = begun.text("[process]\nhard_stop_after = \"300ms\"", begun.slow.address);
    let node = Relevo::start(&text);
    let waiting = begun.begin();
    let began = Instant::now();
    node.reload_with(&text);
    for mut connection in waiting {
        assert!(connection.receive_rest().unwrap().is_empty());
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    }
    wait_for_old_configurations(&node, 0);
    for (what, state) in [(" web app/a ", 2), (" tcp raw/r ", 1)] {
        let ended = || node.messages().lines().filter(|line| line.contains(what) && line.contains(" KD")).count();
        wait_until(&format!("{state} lines of {what}"), || ended() == state, || node.messages());
    }
}

/// What ends under an old configuration is logged as that says, even if it is the last that does; and so is what ended just before.
#[test]
fn the_last_lines_of_another_log_are_written() {
    let _place = own_loopback();
    let ((slow, go_on), other, web) = (halting(), Server::named("other"), free_port());
    let servers = [("slow", slow.address), ("other", other.address)];
    let node = Relevo::start(&configuration(web, "", &servers));
    let mut connection = connect(web);
    connection.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    connection.receive_head().unwrap();
    for (number, format) in (0..10).zip(["json", "httplog"].into_iter().cycle()) {
        // The server of the next turn hangs.
        let other = format!("[log]\nformat = \"{format}\"");
        get(web, &format!("/before{number}"));
        node.reload_with(&configuration(web, &other, &servers[1..]));
    }
    go_on.send(()).unwrap();
    assert_eq!(connection.receive_bytes(9).unwrap(), b"firstlast");
    drop(connection);
    wait_for_old_configurations(&node, 0);
    node.wait_for_message("GET /slow HTTP/1.1");
    for number in 0..10 {
        node.wait_for_message(&format!("/before{number}"));
    }
}

/// Whoever sends one request after the other without waiting for answers leaves no moment to go over to another configuration; so
/// a little later it is asked to connect again.
#[test]
fn a_client_that_leaves_no_pause_is_asked_to_connect_again() {
    let _place = own_loopback();
    let (b, web) = (Server::named("b"), free_port());
    let a = Server::answering(|request| {
        std::thread::sleep(Duration::from_millis(1));
        named("a")(request)
    });
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    let mut connection = connect(web);
    let mut stream = connection.stream().try_clone().unwrap();
    let asking = std::thread::spawn(move || {
        let requests = "GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
        while stream.write_all(requests.as_bytes()).is_ok() {}
    });
    connection.receive().unwrap();
    let began = Instant::now();
    node.reload_with(&configuration(web, "", &[("b", b.address)]));
    let mut answer = connection.receive().unwrap();
    while answer.header("connection").is_none() {
        assert_eq!(server_of(&answer), "a", "as before");
        assert!(began.elapsed() < PATIENCE, "it goes on under the old configuration");
        answer = connection.receive().unwrap();
    }
    assert_eq!((server_of(&answer), answer.header("connection")), ("a", Some("close")));
    drop(connection);
    asking.join().unwrap();
    wait_for_old_configurations(&node, 0);
    assert_eq!(server_of(&get(web, "/")), "b");
}

/// Who waits for a server that has gone meanwhile is served by it yet; nobody else is.
#[test]
fn who_waits_for_a_server_that_goes_has_it() {
    let _place = own_loopback();
    let ((a, gate), b, web) = (Gate::server("a"), Server::named("b"), free_port());
    let limited = configuration(web, "", &[("a", a.address)]).replace("check = false", "max_connections = 1");
    let node = Relevo::start(&limited);
    let mut waiting = vec![ask(web, "/held0", "")];
    gate.wait_for(1);
    waiting.push(ask(web, "/held1", ""));
    node.wait_for("one waits", |status| status.node.backends[0].queue == 1);
    node.reload_with(&configuration(web, "", &[("b", b.address)]));
    assert_eq!(server_of(&get(web, "/")), "b");
    gate.let_through(2);
    for connection in &mut waiting {
        assert_eq!(server_of(&connection.receive().unwrap()), "a");
        assert_eq!(server_of(&connection.get("/").unwrap()), "b", "its next request");
    }
    wait_for_old_configurations(&node, 0);
}
