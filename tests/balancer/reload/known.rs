//! What is known and what was counted outlives a configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use relevo::status::ServerState;

use super::{configuration, server};
use crate::rig::http::{exchange, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{connect, server_of};

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

/// Sessions stay at their servers, wherever those are in the file by then; those of a server that is gone go to another, as they
/// do when one is down, and a name is what a server is known by.
#[test]
fn sessions_stay_at_their_servers() {
    let _place = own_loopback();
    let servers = ["a", "b", "c"].map(Server::named);
    let [a, b, c] = servers.each_ref().map(|server| server.address);
    let web = free_port();
    let keepers = ["cookie = { name = \"NODE\", mode = \"insert\" }", "stick = { by = \"header\", name = \"X-User\" }"];
    for kept in keepers {
        let text = |servers: &[(&str, SocketAddr)]| {
            configuration(web, "", servers).replacen("[[backends", &format!("[backends.app]\n{kept}\n[[backends"), 1)
        };
        let node = Relevo::start(&text(&[("a", a), ("b", b)]));
        let mut cookies = BTreeMap::<usize, String>::new();
        let mut ask = |user: usize| {
            let cookie = cookies.get(&user).cloned().unwrap_or_default();
            let answer =
                exchange(web, format!("GET / HTTP/1.1\r\nHost: test\r\nX-User: {user}\r\nCookie: {cookie}\r\n\r\n"));
            if let Some(cookie) = answer.header("set-cookie") {
                cookies.insert(user, cookie.split(';').next().unwrap_or_default().to_owned());
            }
            server_of(&answer).to_owned()
        };
        assert_eq!([1, 2].map(&mut ask), ["a", "b"], "{kept}");
        node.reload_with(&text(&[("c", c), ("b", b), ("a", a)]));
        for _ in 0..3 {
            assert_eq!([1, 2].map(&mut ask), ["a", "b"], "{kept}");
        }
        node.reload_with(&text(&[("c", c), ("b", a)]));
        let moved = ask(1);
        for _ in 0..3 {
            assert_eq!([1, 2].map(&mut ask), [moved.clone(), "a".to_owned()], "b is where a was: {kept}");
        }
    }
}
