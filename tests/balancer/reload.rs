//! Another configuration while it runs: `relevo reload` and SIGHUP, as clients, servers and whoever looks after it see them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::node::send;
use relevo::status::{BalancerState, OldConfigurations, ServerState, ServerStatus};

use crate::rig::http::{Connection, Message, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{connect, server_of};

/// A frontend `web` here, and a backend `app` of these servers, by name, unchecked.
fn configuration(web: SocketAddr, more: &str, servers: &[(&str, SocketAddr)]) -> String {
    let servers: String = servers
        .iter()
        .map(|(name, address)| {
            format!("[[backends.app.servers]]\nname = \"{name}\"\naddress = \"{address}\"\ncheck = false\n")
        })
        .collect();
    format!("{more}\n[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n{servers}")
}

fn server(node: &Relevo, name: &str) -> ServerStatus {
    let status = node.status().expect("it runs");
    let servers = status.node.backends.into_iter().flat_map(|backend| backend.servers);
    servers.into_iter().find(|server| server.name == name).unwrap_or_else(|| panic!("no server {name}"))
}

fn old_configurations(node: &Relevo) -> OldConfigurations {
    node.status().map(|status| status.node.balancer.old_configurations).unwrap_or_default()
}

#[track_caller]
fn wait_for_old_configurations(node: &Relevo, count: usize) {
    wait_until(
        &format!("{count} old configurations are there"),
        || old_configurations(node).count == count,
        || node.messages(),
    );
}

/// A server whose answers stop half-way until somebody says go on.
fn halting() -> (Server, Sender<()>) {
    let (go_on, wait) = channel();
    let wait: Mutex<Receiver<()>> = Mutex::new(wait);
    let server = Server::start(move |mut connection| {
        let Ok(request) = connection.receive() else { return };
        let head = if request.header("upgrade").is_some() {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst"
        };
        connection.send(head).unwrap();
        let _ = wait.lock().unwrap().recv();
        let _ = connection.send("last");
    });
    (server, go_on)
}

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

/// One that is new accepts once the command has succeeded; one that is gone refuses. Whoever is connected to that is answered
/// once more, and told that this was the end.
#[test]
fn listeners_come_and_go() {
    let _place = own_loopback();
    let a = Server::named("a");
    let (web, other) = (free_port(), free_port());
    let one = configuration(web, "", &[("a", a.address)]);
    let both = format!("{one}\n[frontends.other]\nbind = \"{other}\"\ndefault_backend = \"app\"\n");
    let node = Relevo::start(&one);
    assert!(Connection::open(other).is_err());
    assert_eq!(node.reload_with(&both), "the configuration was reloaded: frontend other came");
    let (mut first, mut second) = (connect(web), connect(other));
    for connection in [&mut first, &mut second] {
        assert_eq!(server_of(&connection.get("/").unwrap()), "a");
    }

    node.reload_with(&one);
    wait_until("nobody listens there", || Connection::open(other).is_err(), || node.messages());
    let last = second.get("/").unwrap();
    assert_eq!((server_of(&last), last.header("connection")), ("a", Some("close")));
    assert!(second.receive_rest().unwrap().is_empty());
    let answer = first.get("/").unwrap();
    assert_eq!((server_of(&answer), answer.header("connection")), ("a", None));
    wait_for_old_configurations(&node, 0);
    // And once more: an address that was let go of can be had again.
    node.reload_with(&both);
    assert_eq!(server_of(&get(other, "/")), "a");
}

/// The wildcard in place of an address, and the other way round: what is ours is not in our way.
#[test]
fn an_address_takes_the_place_of_the_wildcard() {
    let _place = own_loopback();
    let (a, web) = (Server::named("a"), free_port());
    let wildcard = SocketAddr::from(([0, 0, 0, 0], web.port()));
    let node = Relevo::start(&configuration(wildcard, "", &[("a", a.address)]));
    for address in [web, wildcard] {
        node.reload_with(&configuration(address, "", &[("a", a.address)]));
        assert_eq!(server_of(&get(web, "/")), "a");
    }
}

/// A download, a WebSocket and a TCP connection that began before go on to their ends under the configuration they began
/// with; how many such configurations there are can be seen.
#[test]
fn what_has_begun_goes_on() {
    let _place = own_loopback();
    let ((slow, go_on), other) = (halting(), Server::named("other"));
    let (web, tcp) = (free_port(), free_port());
    let text = |server| {
        let more = format!("[frontends.tcp]\nmode = \"tcp\"\nbind = \"{tcp}\"\ndefault_backend = \"raw\"\n");
        let raw = format!("[[backends.raw.servers]]\nname = \"r\"\naddress = \"{server}\"\ncheck = false\n");
        configuration(web, &more, &[("a", server)]) + &raw
    };
    let node = Relevo::start(&text(slow.address));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let mut waiting = Vec::new();
    for (address, headers) in [(web, ""), (web, upgrade), (tcp, "")] {
        let mut connection = connect(address);
        connection.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).unwrap();
        connection.receive_head().unwrap();
        assert_eq!(connection.receive_bytes(5).unwrap(), b"first");
        waiting.push(connection);
    }
    let began = Instant::now();
    let said = node.reload_with(&text(other.address));
    assert_eq!(said, "the configuration was reloaded: server app/a changed; server raw/r changed");
    assert_eq!(server_of(&get(web, "/")), "other");
    assert_eq!(server_of(&get(tcp, "/")), "other");
    wait_for_old_configurations(&node, 1);
    let oldest = Duration::from_secs_f64(old_configurations(&node).oldest_s);
    assert!(oldest <= began.elapsed(), "{oldest:?}");
    node.reload_with(&text(other.address));
    // Under the second nothing goes on.
    wait_for_old_configurations(&node, 1);
    let shown =
        crate::rig::node::relevo(&["status", "--socket", &node.directory().join("control.sock").display().to_string()]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("something goes on under 1 old configuration"),
        "{shown:?}"
    );

    waiting.iter().for_each(|_| go_on.send(()).unwrap());
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
    let ((slow, _go_on), web) = (halting(), free_port());
    let text = configuration(web, "[process]\nhard_stop_after = \"300ms\"", &[("a", slow.address)]);
    let node = Relevo::start(&text);
    let mut connection = connect(web);
    connection.send("GET /long HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    connection.receive_head().unwrap();
    let began = Instant::now();
    node.reload_with(&text);
    assert_eq!(connection.receive_rest().unwrap(), b"first");
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    wait_for_old_configurations(&node, 0);
    let line = node.wait_for_message("GET /long ");
    assert!(line.contains(" KD-- "), "{line}");
}

/// A bad file changes nothing, and the message names line and key; so does one that needs a restart, or a port that somebody
/// has.
#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let good = configuration(web, "", &[("a", a.address)]);
    let node = Relevo::start(&good);
    let mut connection = connect(web);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let bad = configuration(web, "", &[("b", b.address)]);
    let rows: [(String, &[&str], &str); 5] = [
        (
            bad.replace("check = false", "wieght = 3\ncheck = 1"),
            &[
                "backends.app.servers[0].wieght: unknown key",
                "relevo.toml:12:1",
                "did you mean `weight`?",
                "backends.app.servers[0].check",
            ],
            "relevo.toml, line 12: backends.app.servers[0].wieght: unknown key (did you mean `weight`?); and another error",
        ),
        (
            format!("[process]\nthreads = 37\n{bad}"),
            &["process.threads counts only when the node starts: restart it"],
            "process.threads counts only when the node starts",
        ),
        (
            format!(
                "{bad}\n[vrrp.main]\ninterface = \"eth0\"\nvirtual_router_id = 1\naddresses = [\"192.0.2.1/24\"]\n"
            ),
            &["[vrrp.main] counts only when the node starts"],
            "[vrrp.main] counts only when the node starts",
        ),
        (
            format!("{bad}\n[frontends.x]\nbind = \"{taken}\"\ndefault_backend = \"app\"\n"),
            &["frontend \"x\" cannot listen on ", "the port is in use"],
            "the port is in use",
        ),
        ("[backends".to_owned(), &["relevo.toml"], "relevo.toml, line "),
    ];
    for (text, words, logged) in rows {
        node.configure(&text);
        let output = node.reload();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("relevo: the configuration stays as it is:"), "{said}");
        for words in words {
            assert!(said.contains(words), "{words:?} is not in {said}");
        }
        let message = node.wait_for_message(logged);
        assert!(message.contains("ERROR guard: the configuration stays as it is: "), "{message}");
        assert_eq!(server_of(&connection.get("/").unwrap()), "a");
        assert_eq!(server_of(&get(web, "/")), "a");
    }
    std::fs::remove_file(node.directory().join("relevo.toml")).unwrap();
    let socket = node.directory().join("control.sock").display().to_string();
    let output = crate::rig::node::relevo(&["reload", "--socket", &socket]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read the configuration"), "{output:?}");
    // And then it is as if nothing had happened.
    node.reload_with(&bad);
    assert_eq!(server_of(&connection.get("/").unwrap()), "b");
}

/// What is known of a server outlives a configuration: that it is up, that it is down and why, what its agent wants; its checks
/// go on as they were due. One that is new is checked before it is needed.
#[test]
fn what_is_known_of_a_server_stays_known() {
    let _place = own_loopback();
    let (a, fresh, web) = (Server::named("a"), Server::named("fresh"), free_port());
    let asked = Arc::new(AtomicUsize::new(0));
    let agent = Server::start({
        let asked = asked.clone();
        move |mut connection| {
            asked.fetch_add(1, Ordering::Relaxed);
            let _ = connection.send("drain\n");
        }
    });
    let nowhere = Server::nowhere();
    let text = |retries: u32| {
        let mut text = format!(
            "[process]\nthreads = 1\n[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n[backends.app]\nretries = {retries}\n\
             health = {{ interval = \"1h\" }}\n"
        );
        for (name, address) in [("up", a.address), ("down", nowhere)] {
            text += &format!("[[backends.app.servers]]\nname = \"{name}\"\naddress = \"{address}\"\n");
        }
        text + &format!(
            "[backends.drained]\nagent = {{ port = {}, interval = \"1h\" }}\n[[backends.drained.servers]]\n\
             name = \"drained\"\naddress = \"{}\"\ncheck = false\n",
            agent.address.port(),
            a.address
        )
    };
    let node = Relevo::start(&text(1));
    let is = |name: &str, state| server(&node, name).state == state;
    wait_until(
        "they are known",
        || is("up", ServerState::Up) && is("down", ServerState::Down) && is("drained", ServerState::Drain),
        || node.messages(),
    );
    let (checks, reason) = (a.connections(), server(&node, "down").reason);
    for retries in 2..6 {
        node.reload_with(&text(retries));
        assert!(is("up", ServerState::Up) && is("drained", ServerState::Drain), "{}", node.messages());
        let down = server(&node, "down");
        assert_eq!((down.state, &down.reason), (ServerState::Down, &reason));
        assert_eq!(server_of(&get(web, "/")), "a");
    }
    assert_eq!(a.connections(), checks + 1, "one connection for all requests, and no check before its time");
    let changes = node.messages().lines().filter(|line| line.contains("server app/")).count();
    assert_eq!(changes, 2, "each state was told once:\n{}", node.messages());

    let moved = text(6).replace("default_backend = \"app\"", "default_backend = \"fresh\"")
        + &format!("[[backends.fresh.servers]]\nname = \"fresh\"\naddress = \"{}\"\n", fresh.address);
    node.reload_with(&moved);
    assert_eq!(server_of(&get(web, "/")), "fresh", "it was checked before the route led there");
}

/// Counters, and what somebody has used up of a limit.
#[test]
fn what_was_counted_goes_on() {
    let _place = own_loopback();
    let (a, web, stats) = (Server::named("a"), free_port(), free_port());
    let more = format!("[stats]\nlisten = \"{stats}\"\n");
    let limit = "rules = [{ when = { path = \"/limited\" }, rate_limit = { requests = 2, per = \"1h\" } }]\n[[backends";
    let text = configuration(web, &more, &[("a", a.address)]).replacen("[[backends", limit, 1);
    let node = Relevo::start(&text);
    let mut connection = connect(web);
    assert_eq!(connection.get("/limited").unwrap().status(), 200);
    let total = |name: &str| {
        let csv = get(stats, "/;csv").text();
        let row = csv.lines().find(|row| row.starts_with(name)).unwrap_or_else(|| panic!("{name} is not in {csv}"));
        row.split(',').nth(7).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((total("web,FRONTEND,"), total("app,a,")), (1, 1));
    let changed = text.replace(
        "[[backends.app",
        "[[backends.before.servers]]\nname = \"x\"\naddress = \"127.0.0.1:9\"\ncheck = false\n[[backends.app",
    );
    node.reload_with(&changed);
    assert_eq!(connection.get("/limited").unwrap().status(), 200);
    assert_eq!(connection.get("/limited").unwrap().status(), 429);
    get(web, "/");
    assert_eq!((total("web,FRONTEND,"), total("app,a,"), total("before,x,")), (2, 3, 0));
    let requests = || node.status().map_or(0, |status| status.node.balancer.requests);
    wait_until("all are counted, with those for the statistics", || requests() == 4 + 5, || node.messages());
}

/// As people do it who have no command at hand.
#[test]
fn sighup_does_the_same() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    node.configure("[backends");
    node.signal(Signal::SIGHUP);
    node.wait_for_message("the configuration stays as it is: ");
    assert_eq!(server_of(&get(web, "/")), "a");
    node.configure(&configuration(web, "", &[("b", b.address)]));
    node.signal(Signal::SIGHUP);
    node.wait_for_message("the configuration was reloaded: server app/b came; server app/a went");
    assert_eq!(server_of(&get(web, "/")), "b");
}

/// What was reloaded is what runs, whoever dies: the balancer, and the keeper.
#[test]
fn the_next_processes_run_what_was_reloaded() {
    let _place = own_loopback();
    let (a, b) = (Server::named("a"), Server::named("b"));
    let (web, other) = (free_port(), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    let reloaded = configuration(web, "", &[("b", b.address)])
        + &format!("[frontends.other]\nbind = \"{other}\"\ndefault_backend = \"app\"\n");
    node.reload_with(&reloaded);
    node.configure("not what runs");
    for kill in [Relevo::balancer, Relevo::keeper] {
        let (victim, before) = (kill(&node), node.balancer());
        send(victim, Signal::SIGKILL).unwrap();
        node.wait_for("another balancer serves", |status| {
            status.node.balancer.state == BalancerState::Serving && status.node.balancer.pid != before.as_raw() as u32
        });
        assert_eq!((server_of(&get(web, "/")), server_of(&get(other, "/"))), ("b", "b"));
    }
    node.reload_with(&configuration(web, "", &[("a", a.address)]));
    assert_eq!(server_of(&get(web, "/")), "a");
}

/// Nobody notices, however many there are: no request fails. `RELOADS` and `CLIENTS` make it more of them.
#[test]
fn no_request_fails_in_many_reloads() {
    let _place = own_loopback();
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (reloads, clients): (usize, usize) = (number("RELOADS", 30), number("CLIENTS", 16));
    let servers = [Server::named("a"), Server::named("b"), Server::named("c")];
    let [a, b, c] = servers.each_ref().map(|server| server.address);
    let (web, other) = (free_port(), free_port());
    let texts = [
        configuration(web, "", &[("a", a), ("b", b)]),
        configuration(web, "", &[("c", c), ("b", b)]).replace("check = false", "weight = 3"),
        configuration(web, "[log]\nformat = \"off\"", &[("b", b), ("a", a)])
            + &format!("[frontends.other]\nbind = \"{other}\"\ndefault_backend = \"app\"\n"),
    ];
    let node = Relevo::start(&texts[0]);
    let is_over = AtomicBool::new(false);
    let requests = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|client| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut connection = connect(web);
                    let mut requests = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        // Every fourth has a connection for each request.
                        if client % 4 == 3 {
                            connection = connect(web);
                        }
                        let answer: Message = connection.get("/").unwrap();
                        assert_eq!((answer.status(), answer.header("connection")), (200, None), "{answer:?}");
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        for text in texts.iter().cycle().skip(1).take(reloads) {
            node.reload_with(text);
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
    });
    assert!(requests > reloads as u64, "{requests}");
    wait_for_old_configurations(&node, 0);
    println!("{requests} requests of {clients} clients in {reloads} reloads, and none failed");
}
