//! Which server is next: by turn, by load, by who is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::rig::gate::Gate;
use crate::rig::http::{Connection, Message, get};
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::server::{Server, named};
use crate::rig::wait_until;
use crate::{ask, configuration, connect, server_of};

/// Requests really alternate, whatever connection (and so whatever worker) they come on.
#[test]
fn requests_alternate_across_connections() {
    let _place = own_loopback();
    let servers = [Server::named("a"), Server::named("b")];
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let _node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
    let mut kept: Vec<Connection> = (0..8).map(|_| connect(web)).collect();
    let answers: Vec<String> = (0..200)
        .map(|number| match number % 3 {
            0 => server_of(&get(web, "/")).to_owned(),
            _ => server_of(&kept[number % 8].get("/").unwrap()).to_owned(),
        })
        .collect();
    let in_a_row = answers.windows(2).filter(|two| two[0] == two[1]).count();
    assert_eq!(in_a_row, 0, "{answers:?}");
}

/// Each server gets its share by weight, exactly, and the heavy one's turns are spread.
#[test]
fn weights_are_shares() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let text =
        text.replace("name = \"a\"", "name = \"a\"\nweight = 3").replace("name = \"c\"", "name = \"c\"\nweight = 0");
    let _node = Relevo::start(&text);
    let mut connection = connect(web);
    let answers: String = (0..40).map(|_| server_of(&connection.get("/").unwrap()).to_owned()).collect();
    assert_eq!(answers.matches('a').count(), 30, "{answers}");
    assert_eq!(answers.matches('b').count(), 10, "{answers}");
    assert!(!answers.contains("aaaa"), "{answers}");
}

/// A request goes where the fewest are under way: past a server that still works on one, and evenly where they are equal.
#[test]
fn least_connections_goes_past_a_busy_server() {
    assert_goes_past_a_busy_server("least_connections", 20, 40, 10);
}

/// A weight is a share of the requests: 60 to 45, within a hundredth.
#[test]
fn weights_of_60_and_45_are_such_shares() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let (web, text) = configuration("", "", &servers.each_ref().map(|server| server.address));
    let text =
        text.replace("name = \"a\"", "name = \"a\"\nweight = 60").replace("name = \"b\"", "name = \"b\"\nweight = 45");
    let _node = Relevo::start(&format!("[process]\nthreads = 2\n{text}"));
    let mut kept: Vec<Connection> = (0..4).map(|_| connect(web)).collect();
    let shares = shares((0..1050).map(|number| kept[number % 4].get("/").unwrap()));
    let first = shares["a"] as f64 / 1050.0;
    assert!((first - 60.0 / 105.0).abs() < 0.01, "{shares:?}");
}

/// Of three servers, two of which take their time, the fast one gets the most.
#[test]
fn least_connections_gives_the_fast_server_the_most() {
    let _place = own_loopback();
    let slow = |name: &'static str| {
        Server::answering(move |request| {
            std::thread::sleep(Duration::from_millis(40));
            named(name)(request)
        })
    };
    let servers = [slow("a"), slow("b"), Server::named("c")];
    let addresses = servers.each_ref().map(|server| server.address);
    let (web, text) = configuration("", "balance = \"least_connections\"", &addresses);
    let _node = Relevo::start(&text);
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let mut connection = connect(web);
            std::thread::spawn(move || (0..50).map(|_| connection.get("/").unwrap()).collect::<Vec<_>>())
        })
        .collect();
    let shares = shares(clients.into_iter().flat_map(|client| client.join().unwrap()));
    assert!(shares["c"] > 2 * (shares["a"] + shares["b"]), "{shares:?}");
}

/// Two draws find the server that is free, and never none.
#[test]
fn random_goes_past_a_busy_server() {
    assert_goes_past_a_busy_server("random", 40, 200, 51);
}

/// Of two servers one still works on a request: so many that come `meanwhile` go to the other. Of so many that come `then` each
/// gets the `least` share at least.
#[track_caller]
fn assert_goes_past_a_busy_server(balance: &str, meanwhile: usize, then: usize, least: usize) {
    let _place = own_loopback();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let busy = Server::answering(move |request| {
        if request.head.starts_with("GET /long") {
            let _ = released.lock().unwrap().recv();
        }
        named("a")(request)
    });
    let free = Server::named("b");
    let (web, text) = configuration("", &format!("balance = \"{balance}\""), &[busy.address, free.address]);
    let node = Relevo::start(&text);
    let mut long = long_request_to("a", web, &node);
    let shares_meanwhile = shares((0..meanwhile).map(|_| get(web, "/")));
    assert_eq!(shares_meanwhile, BTreeMap::from([("b".to_owned(), meanwhile)]));
    release.send(()).unwrap();
    assert_eq!(server_of(&long.receive().unwrap()), "a");
    node.wait_for("nothing is under way", |status| {
        status.node.backends[0].servers.iter().all(|server| server.connections == 0)
    });
    let shares = shares((0..then).map(|_| get(web, "/")));
    assert!(shares.len() == 2 && shares.values().all(|share| *share >= least), "{shares:?}");
}

/// The first that is up has it all; a backup has nothing until no other is up; when all are down all are tried, if asked for.
#[test]
fn first_backups_and_what_happens_when_all_are_down() {
    let _place = own_loopback();
    let mut servers = vec![Server::named("a"), Server::named("b"), Server::named("c")];
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let balance = "balance = \"first\"\nwhen_all_down = \"try_all\"\nhealth = { interval = \"50ms\", timeout = \"5s\", fall = 1, rise = 1 }";
    let (web, text) = configuration("", balance, &addresses);
    let text = text.replace("check = false", "check = true");
    let text = text.replace("name = \"a\"", "name = \"a\"\nbackup = true");
    let node = Relevo::start_with(&text, 3);
    let only = |expected: &str| {
        let shares = shares((0..10).map(|_| get(web, "/")));
        assert_eq!(shares, BTreeMap::from([(expected.to_owned(), 10)]), "{}", node.messages());
    };
    only("b");
    drop(servers.remove(1));
    node.wait_for_servers(2);
    only("c");
    drop(servers.remove(1));
    node.wait_for_servers(1);
    only("a");
    drop(servers);
    node.wait_for_message("backend app has no server left: all are down, and all are tried");
    // Nobody has checked it yet, or found it up.
    let _unproven = Server::answering_at(addresses[2], named("c"));
    let answer = get(web, "/");
    assert_eq!(server_of(&answer), "c", "{answer:?}\n{}", node.messages());
    node.wait_for_message(" INFO balancer: backend app has a server again: c");
}

/// Who came back gets a tenth at first and its share in the end.
#[test]
fn a_server_that_comes_back_begins_slowly() {
    let _place = own_loopback();
    let stays = Server::named("a");
    let address = Server::nowhere();
    let backend = "slow_start = \"3s\"\nhealth = { interval = \"50ms\", timeout = \"5s\", fall = 1, rise = 1 }";
    let (web, text) = configuration("", backend, &[stays.address, address]);
    let node = Relevo::start_with(&text.replace("check = false", "check = true"), 1);
    let _returns = Server::answering_at(address, named("b"));
    node.wait_for_servers(2);
    let mut connection = connect(web);
    let mut share_of_b = |requests: usize| {
        let shares = shares((0..requests).map(|_| connection.get("/").unwrap()));
        shares.get("b").copied().unwrap_or_default() as f64 / requests as f64
    };
    let early = share_of_b(11);
    assert!(early <= 0.35, "{early} of the requests at once");
    wait_until("it has its whole share", || (share_of_b(20) - 0.5).abs() < 0.01, || node.messages());
}

/// By the weights of the file alone, whatever weight a server is given; only none at all ends new sessions.
#[test]
fn the_static_round_robin_keeps_to_the_file() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    let (web, text) = configuration("", "balance = \"static_round_robin\"", &addresses);
    let node = Relevo::start(&text.replace("name = \"a\"", "name = \"a\"\nweight = 3"));
    for (weight, expected) in [("1", [30, 10]), ("0", [0, 40]), ("200", [30, 10])] {
        assert!(node.server(&["weight", "app/a", weight]).status.success());
        let shares = shares((0..40).map(|_| get(web, "/")));
        let share = |name: &str| shares.get(name).copied().unwrap_or_default();
        assert_eq!(["a", "b"].map(share), expected, "with the weight {weight}");
    }
}

/// In proportion to the weight: of eight that are under way six are at the server of weight 3, and two at the other.
#[test]
fn least_connections_heeds_weights() {
    let _place = own_loopback();
    let (servers, gates): (Vec<_>, Vec<_>) = ["a", "b"].map(Gate::server).into_iter().unzip();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let (web, text) = configuration("", "balance = \"least_connections\"", &addresses);
    let _node = Relevo::start(&text.replace("name = \"a\"", "name = \"a\"\nweight = 3"));
    let came = || gates.iter().map(|gate| gate.came().len()).collect::<Vec<_>>();
    let mut held = Vec::new();
    for number in 1..=8 {
        held.push(ask(web, "/held", ""));
        wait_until("it has come", || came().iter().sum::<usize>() == number, || format!("{:?}", came()));
    }
    assert_eq!(came(), [6, 2]);
    gates.iter().for_each(|gate| gate.let_through(8));
    held.iter_mut().for_each(|connection| assert_eq!(connection.receive().unwrap().status(), 200));
}

/// Drawn by weight: with one draw the load means nothing.
#[test]
fn random_draws_by_weight() {
    let _place = own_loopback();
    let servers = ["a", "b"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    let (web, text) = configuration("", "balance = { algorithm = \"random\", draws = 1 }", &addresses);
    let _node = Relevo::start(&text.replace("name = \"a\"", "name = \"a\"\nweight = 3"));
    let mut connection = connect(web);
    let shares = shares((0..1000).map(|_| connection.get("/").unwrap()));
    // Six standard deviations.
    let share = shares["a"] as f64 / 1000.0;
    assert!((share - 0.75).abs() < 6.0 * (0.75_f64 * 0.25 / 1000.0).sqrt(), "{shares:?}");
}

/// One backup or all of them, while no other server is up; when none is left the client is told at once.
#[test]
fn one_backup_serves_or_all_of_them() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let addresses = servers.each_ref().map(|server| server.address);
    for (all_backups, expected) in [("", [0, 20, 0]), ("all_backups = true", [0, 10, 10])] {
        let (web, text) = configuration("", all_backups, &addresses);
        let text = ["b", "c"].iter().fold(text, |text, name| {
            let line = format!("name = \"{name}\"");
            text.replace(&line, &format!("{line}\nbackup = true"))
        });
        let node = Relevo::start(&text);
        let counts = || {
            let shares = shares((0..20).map(|_| get(web, "/")));
            ["a", "b", "c"].map(|name| shares.get(name).copied().unwrap_or_default())
        };
        let out = |server: &str| assert!(node.server(&["maintenance", server]).status.success());
        assert_eq!(counts(), [20, 0, 0], "{all_backups}");
        out("app/a");
        assert_eq!(counts(), expected, "{all_backups}");
        out("app/b");
        assert_eq!(counts(), [0, 0, 20], "{all_backups}");
        out("app/c");
        assert_eq!(get(web, "/").status(), 503);
    }
}

/// How many came from each server.
pub(crate) fn shares(answers: impl IntoIterator<Item = Message>) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    answers.into_iter().for_each(|answer| *shares.entry(server_of(&answer).to_owned()).or_default() += 1);
    shares
}

/// One that is under way at this server; those that go elsewhere are answered at once.
fn long_request_to(server: &str, web: SocketAddr, node: &Relevo) -> Connection {
    loop {
        let mut connection = connect(web);
        connection.send("GET /long HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        connection.stream().set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let mut byte = [0];
        if connection.stream().peek(&mut byte).is_ok() {
            continue;
        }
        connection.stream().set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
        node.wait_for("a request is under way", |status| {
            status.node.backends[0].servers.iter().any(|it| it.name == server && it.connections == 1)
        });
        return connection;
    }
}
