//! So many requests at a server and no more: who has to wait does so in turn, and not for ever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::rig::gate::Gate;
use crate::rig::http::get;
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::{Server, named};
use crate::rig::{PATIENCE, wait_until};
use crate::{ask, connect, csv, is_quiet, limited, server_of};

const TIMEOUT: Duration = Duration::from_millis(300);

/// How many wait: for any server of the backend, and for each alone.
fn queues(node: &Relevo) -> (u64, Vec<u64>) {
    let status = node.status().unwrap_or_default();
    let backend = status.node.backends.first().cloned().unwrap_or_default();
    (backend.queue, backend.servers.iter().map(|server| server.queue).collect())
}

#[track_caller]
fn wait_for_queues(node: &Relevo, any: u64, own: &[u64]) {
    let expected = (any, own.to_vec());
    let explain = || format!("{:?}\n{}", queues(node), node.messages());
    wait_until(&format!("{expected:?} wait"), || queues(node) == expected, explain);
}

/// Nothing is under way and nobody waits: no slot was lost. The statistics tell of this moment.
#[track_caller]
fn wait_for_rest(stats: SocketAddr) {
    let text = || get(stats, "/;csv").text();
    let columns = |line: &str| {
        let fields: Vec<_> = line.split(',').map(str::to_owned).collect();
        [fields[2].clone(), fields[4].clone()]
    };
    let is_at_rest = || text().lines().filter(|line| line.starts_with("app,")).all(|line| columns(line) == ["0", "0"]);
    wait_until("nothing is under way", is_at_rest, text);
}

/// Of the line for this path: server, Tw, Tc, status, termination state, and the queues.
#[track_caller]
fn line_of(node: &Relevo, path: &str) -> (String, i64, i64, i64, String, String) {
    let line = node.wait_for_message(&format!(" {path} HTTP/1."));
    let fields: Vec<_> = line.split(' ').collect();
    let [_, _, _, server, timers, status, _, _, _, state, _, queues, ..] = fields[..] else { panic!("{line}") };
    let timers: Vec<i64> = timers.split('/').map(|timer| timer.parse().unwrap()).collect();
    let server = server.split('/').nth(1).unwrap().to_owned();
    (server, timers[1], timers[2], status.parse().unwrap(), state[..2].to_owned(), queues.to_owned())
}

#[track_caller]
fn assert_took_the_timeout(since: Instant) {
    let took = since.elapsed();
    assert!(took >= TIMEOUT - Duration::from_millis(100), "after {took:?} already");
    assert!(took <= TIMEOUT + Duration::from_secs(5), "only after {took:?}");
}

/// Forty clients on connections to all workers, two servers of two slots each: never more than two are at a server, all are
/// served, and where half of the clients leave whenever they like nothing is lost by that.
#[test]
fn a_server_never_has_more_than_its_limit_and_nobody_starves() {
    let _place = own_loopback();
    let most = Arc::new(AtomicUsize::new(0));
    let server = |name| {
        let (most, inside) = (most.clone(), AtomicUsize::new(0));
        Server::answering(move |request| {
            most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            inside.fetch_sub(1, SeqCst);
            named(name)(request)
        })
    };
    let servers = [server("a"), server("b")];
    let limits: Vec<_> = servers.iter().map(|server| (server.address, "max_connections = 2")).collect();
    let (web, stats, text) = limited("", "timeouts.queue = \"20s\"", &limits);
    let _node = Relevo::start(&format!("[process]\nthreads = 3\n{text}"));
    let all_are_served = || {
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let mut connection = connect(web);
                    for _ in 0..25 {
                        let answer = connection.get("/").unwrap();
                        assert_eq!(answer.status(), 200, "{answer:?}");
                    }
                });
            }
        });
        wait_for_rest(stats);
    };
    all_are_served();
    assert_eq!(most.load(SeqCst), 2);
    let row = csv(stats, "app/BACKEND");
    assert!(row["qmax"].parse::<u64>().unwrap() >= 20, "{row:?}");
    assert_eq!((row["qcur"].as_str(), row["econ"].as_str()), ("0", "0"));
    assert_eq!((csv(stats, "app/a")["slim"].as_str(), csv(stats, "app/a")["smax"].as_str()), ("2", "2"));

    // They go while they wait, while a server is asked, or when the answer is on its way.
    std::thread::scope(|scope| {
        for client in 0..40_u64 {
            scope.spawn(move || {
                for number in 0..25 {
                    let connection = ask(web, "/", "");
                    std::thread::sleep(Duration::from_micros((client * 31 + number * 17) % 50 * 100));
                    drop(connection);
                }
            });
        }
    });
    wait_for_rest(stats);
    all_are_served();
}

/// Who came first is served first, whichever worker it came to; the log says how long it waited and how many were before it.
#[test]
fn who_came_first_is_served_first() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let (web, stats, text) = limited("", "", &[(server.address, "max_connections = 1")]);
    let node = Relevo::start(&format!("[process]\nthreads = 3\n{text}"));
    let mut connections = vec![ask(web, "/held0", "")];
    gate.wait_for(1);
    for number in 1..=5_u64 {
        connections.push(ask(web, &format!("/held{number}"), ""));
        wait_for_queues(&node, number, &[0]);
    }
    assert_eq!(csv(stats, "app/BACKEND")["qcur"], "5");
    std::thread::sleep(Duration::from_millis(50));
    for number in 1..=5 {
        gate.let_through(1);
        gate.wait_for(number + 1);
    }
    gate.let_through(1);
    for connection in &mut connections {
        assert_eq!(connection.receive().unwrap().status(), 200);
    }
    assert_eq!(gate.came(), ["/held0", "/held1", "/held2", "/held3", "/held4", "/held5"]);
    for number in 0..=5 {
        let (server, waited, connect, status, state, queues) = line_of(&node, &format!("/held{number}"));
        assert_eq!((server.as_str(), status, state.as_str()), ("a", 200, "--"));
        assert_eq!(queues, format!("0/{number}"), "the position in the queue");
        assert!(if number == 0 { waited == 0 } else { waited >= 50 }, "/held{number} waited {waited}");
        assert!((0..waited.max(50)).contains(&connect), "the wait is not part of it: {connect}");
    }
    let row = csv(stats, "app/a");
    assert!(row["qtime_max"].parse::<u64>().unwrap() >= 50, "{row:?}");
    wait_for_rest(stats);
}

/// In time or not at all: 503.
#[test]
fn nobody_waits_longer_than_the_timeout() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let (web, stats, text) = limited("", "timeouts.queue = \"300ms\"", &[(server.address, "max_connections = 1")]);
    let node = Relevo::start(&text);
    let mut first = ask(web, "/held", "");
    gate.wait_for(1);
    let begin = Instant::now();
    let answer = get(web, "/late");
    assert_took_the_timeout(begin);
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("<h1>503 "), "{answer:?}");
    let (server_name, waited, connect, status, state, queues) = line_of(&node, "/late");
    assert_eq!((server_name.as_str(), connect, status), ("<NOSRV>", -1, 503));
    assert_eq!((state.as_str(), queues.as_str()), ("sQ", "0/1"));
    assert!(waited >= 200, "it waited {waited} ms");
    assert_eq!(csv(stats, "app/BACKEND")["econ"], "1");
    gate.let_through(1);
    assert_eq!(first.receive().unwrap().status(), 200);
    assert_eq!(get(web, "/after").status(), 200);
    wait_for_rest(stats);
}

/// A client that goes leaves its place to those behind it.
#[test]
fn who_goes_leaves_the_queue() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let (web, stats, text) = limited("", "", &[(server.address, "max_connections = 1")]);
    let node = Relevo::start(&text);
    let mut first = ask(web, "/held", "");
    gate.wait_for(1);
    let gone = ask(web, "/gone", "");
    wait_for_queues(&node, 1, &[0]);
    let mut second = ask(web, "/second", "");
    wait_for_queues(&node, 2, &[0]);
    drop(gone);
    wait_for_queues(&node, 1, &[0]);
    let (server_name, _, _, _, state, _) = line_of(&node, "/gone");
    assert_eq!((server_name.as_str(), state.as_str()), ("<NOSRV>", "CQ"));
    gate.let_through(1);
    assert_eq!(first.receive().unwrap().status(), 200);
    assert_eq!(second.receive().unwrap().status(), 200);
    wait_for_rest(stats);
}

/// Connections in mode TCP wait as well, until their turn, their timeout or their client's end.
#[test]
fn connections_wait_in_mode_tcp() {
    let _place = own_loopback();
    let server = Server::named("a");
    let (web, stats, text) =
        limited("mode = \"tcp\"", "timeouts.queue = \"10s\"", &[(server.address, "max_connections = 1")]);
    let node = Relevo::start(&text);
    let mut first = connect(web);
    assert_eq!(first.get("/").unwrap().status(), 200);

    let silent = connect(web);
    wait_for_queues(&node, 1, &[0]);
    drop(silent);
    wait_for_queues(&node, 0, &[0]);
    node.wait_for_message(" app/<NOSRV> ");
    assert!(node.messages().contains(" CQ "), "{}", node.messages());

    // It has said something, and is broken off.
    let reset = ask(web, "/", "");
    wait_for_queues(&node, 1, &[0]);
    socket2::SockRef::from(reset.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    wait_for_queues(&node, 0, &[0]);

    // It has said all it has to say, and waits.
    let mut patient = ask(web, "/patient", "Connection: close\r\n");
    patient.finish().unwrap();
    wait_for_queues(&node, 1, &[0]);
    assert!(is_quiet(&patient));
    drop(first);
    assert_eq!(patient.receive().unwrap().status(), 200);
    wait_for_rest(stats);
}

/// Round robin passes over a server that is full; only where all are does a request wait.
#[test]
fn a_server_that_is_full_is_passed_over() {
    let _place = own_loopback();
    for balance in ["round_robin", "static_round_robin", "least_connections", "first", "random"] {
        let (server, gate) = Gate::server("a");
        let other = Server::named("b");
        let servers = [(server.address, "max_connections = 1"), (other.address, "")];
        let (web, _, text) = limited("", &format!("balance = \"{balance}\""), &servers);
        let node = Relevo::start(&text);
        let mut held = Vec::new();
        while gate.came().is_empty() {
            held.push(ask(web, "/held", ""));
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..10 {
            assert_eq!(server_of(&get(web, "/")), "b", "{balance}\n{}", node.messages());
        }
        assert_eq!(queues(&node), (0, vec![0, 0]));
        gate.let_through(held.len());
        held.iter_mut().for_each(|connection| assert_eq!(connection.receive().unwrap().status(), 200));
    }
}

/// A session waits for its own server, a key for its own; others go where there is room.
#[test]
fn who_is_bound_to_a_server_waits_for_it() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let other = Server::named("b");
    let servers = [(server.address, "max_connections = 1"), (other.address, "max_connections = 1")];
    let (web, stats, text) = limited("", "cookie = { name = \"S\", mode = \"insert\" }", &servers);
    let node = Relevo::start(&text);
    let mut first = ask(web, "/held", "Cookie: S=a\r\n");
    gate.wait_for(1);
    let mut bound = ask(web, "/bound", "Cookie: S=a\r\n");
    wait_for_queues(&node, 0, &[1, 0]);
    for _ in 0..4 {
        assert_eq!(server_of(&get(web, "/")), "b");
    }
    assert_eq!((csv(stats, "app/a")["qcur"].as_str(), csv(stats, "app/BACKEND")["qcur"].as_str()), ("1", "0"));
    let gone = ask(web, "/gone", "Cookie: S=a\r\n");
    wait_for_queues(&node, 0, &[2, 0]);
    drop(gone);
    wait_for_queues(&node, 0, &[1, 0]);
    let (server_name, _, _, _, state, queues) = line_of(&node, "/gone");
    assert_eq!((server_name.as_str(), state.as_str(), queues.as_str()), ("a", "CQ", "1/0"));
    gate.let_through(1);
    assert_eq!(server_of(&bound.receive().unwrap()), "a");
    assert_eq!(first.receive().unwrap().status(), 200);
    wait_for_rest(stats);
}

/// A queue that is as long as it may be: a session goes to another server, or is refused where it may not.
#[test]
fn a_full_queue_sends_away_at_once() {
    let _place = own_loopback();
    let cookie = "cookie = { name = \"S\", mode = \"insert\" }";
    for redispatch in [true, false] {
        let (server, gate) = Gate::server("a");
        let other = Server::named("b");
        let servers = [(server.address, "max_connections = 1\nmax_queue = 0"), (other.address, "")];
        let (web, stats, text) = limited("", &format!("{cookie}\nredispatch = {redispatch}"), &servers);
        let node = Relevo::start(&text);
        let mut first = ask(web, "/held", "Cookie: S=a\r\n");
        gate.wait_for(1);
        let mut second = ask(web, "/bound", "Cookie: S=a\r\n");
        let answer = second.receive().unwrap();
        if redispatch {
            assert_eq!(server_of(&answer), "b");
        } else {
            assert_eq!(answer.status(), 503);
            let (server_name, _, _, _, state, _) = line_of(&node, "/bound");
            assert_eq!((server_name.as_str(), state.as_str()), ("a", "SQ"));
        }
        gate.let_through(1);
        assert_eq!(first.receive().unwrap().status(), 200);
        wait_for_rest(stats);
    }
    let (server, gate) = Gate::server("a");
    let (web, stats, text) = limited("", "max_queue = 1", &[(server.address, "max_connections = 1")]);
    let node = Relevo::start(&text);
    let mut first = ask(web, "/held", "");
    gate.wait_for(1);
    let mut second = ask(web, "/second", "");
    wait_for_queues(&node, 1, &[0]);
    assert_eq!(get(web, "/third").status(), 503);
    assert_eq!(line_of(&node, "/third").4, "SQ");
    assert_eq!(csv(stats, "app/BACKEND")["qlimit"], "1");
    gate.let_through(1);
    assert_eq!(first.receive().unwrap().status(), 200);
    assert_eq!(second.receive().unwrap().status(), 200);
}

/// A server that goes down gives back who waits for it, and when none is left nobody waits any longer.
#[test]
fn a_server_that_goes_down_gives_its_queue_back() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let other = Server::named("b");
    let check_of = |server: &Server| format!("max_connections = 1\ncheck_port = {}", server.address.port());
    let [alive, other_alive] = [Server::start(drop), Server::start(drop)];
    let (lines, other_lines) = (check_of(&alive), check_of(&other_alive));
    let servers = [(server.address, lines.as_str()), (other.address, other_lines.as_str())];
    let backend = "cookie = { name = \"S\", mode = \"insert\" }\ntimeouts.queue = \"20s\"\n\
                   health = { interval = \"50ms\", fall = 1, rise = 1 }";
    let (web, stats, text) = limited("", backend, &servers);
    let node = Relevo::start_with(&text.replace("check = false", "check = true"), 2);
    let mut held = [ask(web, "/held1", "Cookie: S=a\r\n")];
    gate.wait_for(1);
    let mut bound = ask(web, "/bound", "Cookie: S=a\r\n");
    wait_for_queues(&node, 0, &[1, 0]);
    drop(alive);
    assert_eq!(server_of(&bound.receive().unwrap()), "b", "{}", node.messages());
    let (_, _, _, status, _, queues) = line_of(&node, "/bound");
    assert_eq!((status, queues.as_str()), (200, "1/0"));

    drop(other_alive);
    node.wait_for_servers(0);
    let begin = Instant::now();
    assert_eq!(get(web, "/").status(), 503);
    assert!(begin.elapsed() < PATIENCE / 4, "it waited for nobody");
    gate.let_through(1);
    held.iter_mut().for_each(|connection| assert_eq!(connection.receive().unwrap().status(), 200));
    wait_for_rest(stats);
}

/// A request whose server refuses it waits for another one that is full, and holds no slot meanwhile.
#[test]
fn a_retry_waits_for_another_server() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let servers = [(server.address, "max_connections = 1"), (Server::nowhere(), "max_connections = 1")];
    let (web, stats, text) = limited("", "balance = \"first\"", &servers);
    let node = Relevo::start(&text);
    let mut first = ask(web, "/held", "");
    gate.wait_for(1);
    let mut second = ask(web, "/second", "");
    wait_for_queues(&node, 1, &[0, 0]);
    node.wait_for("the server that refuses has none", |status| status.node.backends[0].servers[1].connections == 0);
    gate.let_through(1);
    assert_eq!(first.receive().unwrap().status(), 200);
    assert_eq!(server_of(&second.receive().unwrap()), "a");
    wait_for_rest(stats);
}

/// Who waits goes on waiting through a reload, before those who come after it, and has the room that the new limit gives.
#[test]
fn who_waits_is_served_after_a_reload_as_well() {
    let _place = own_loopback();
    let (server, gate) = Gate::server("a");
    let (web, stats, text) = limited("", "", &[(server.address, "max_connections = 1")]);
    let node = Relevo::start(&text);
    let mut connections = vec![ask(web, "/held0", "")];
    gate.wait_for(1);
    for (number, path) in [(1, "/held1"), (2, "/held2")] {
        connections.push(ask(web, path, ""));
        wait_for_queues(&node, number, &[0]);
    }
    node.reload_with(&text.replace("max_connections = 1", "max_connections = 2"));
    gate.wait_for(2);
    let waiting = || csv(stats, "app/BACKEND")["qcur"].clone();
    assert_eq!(waiting(), "0", "it waits under the old configuration");
    connections.push(ask(web, "/held3", ""));
    wait_until("one waits under the new one", || waiting() == "1", waiting);
    for number in 3..=4 {
        gate.let_through(1);
        gate.wait_for(number);
    }
    gate.let_through(2);
    for connection in &mut connections {
        assert_eq!(connection.receive().unwrap().status(), 200);
    }
    assert_eq!(gate.came(), ["/held0", "/held1", "/held2", "/held3"]);
    wait_for_rest(stats);
}
