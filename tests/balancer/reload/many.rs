//! Many of them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{configuration, halting, wait_for_old_configurations};
use crate::connect;
use crate::rig::http::Message;
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::process::Holding;
use crate::rig::server::Server;

/// Nobody notices, however many there are: no request fails. `RELOADS` and `CLIENTS` make it more of them.
#[test]
fn no_request_fails_in_many_reloads() {
    let _place = own_loopback();
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (reloads, clients): (usize, usize) = (number("RELOADS", 200), number("CLIENTS", 64));
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

/// However often it was reloaded, no process holds more than before: listeners and servers come and go, and a client stays.
#[test]
fn nothing_is_left_of_configurations_that_were_replaced() {
    let _place = own_loopback();
    let reloads = std::env::var("RELOADS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let servers = [Server::named("a"), Server::named("b")];
    let [a, b] = servers.each_ref().map(|server| server.address);
    let (web, other) = (free_port(), free_port());
    let texts = [
        configuration(web, "", &[("a", a)]),
        configuration(web, "[log]\nformat = \"off\"", &[("b", b), ("a", a)]).replace("check = false", "check = true")
            + &format!("[frontends.other]\nbind = \"{other}\"\ndefault_backend = \"app\"\n"),
    ];
    let node = Relevo::start(&texts[0]);
    let mut connection = connect(web);
    let mut reload = |times: usize| {
        for text in texts.iter().cycle().skip(1).take(times) {
            node.reload_with(text);
            assert_eq!(connection.get("/").unwrap().status(), 200);
        }
        wait_for_old_configurations(&node, 0);
        [node.pid(), node.keeper(), node.balancer()].map(Holding::of)
    };
    let (before, after) = (reload(40), reload(reloads));
    for ((process, before), after) in ["guard", "keeper", "balancer"].iter().zip(before).zip(after) {
        assert_eq!(after.descriptors, before.descriptors, "{process}: {before:?} {after:?}");
        assert!(after.resident - before.resident < 2048, "{process}: {before:?} {after:?}");
    }
    println!("{before:?}\n{after:?} after {reloads} reloads");
}

/// A reload takes the same time however many old configurations something goes on under, also where each has thousands of servers
/// that could be waited for: the balancer is not away for so long that its keeper takes it for hung.
#[test]
fn many_servers_in_many_old_configurations_are_no_burden() {
    let _place = own_loopback();
    let ((slow, go_on), web) = (halting(), free_port());
    let names: Vec<String> = (0..1500).map(|number| format!("s{number}")).collect();
    let servers: Vec<_> = names.iter().map(|name| (name.as_str(), slow.address)).collect();
    let text = configuration(web, "", &servers).replace("check = false", "check = false\nmax_connections = 9");
    let node = Relevo::start(&text);
    let balancer = node.balancer();
    let mut waiting = Vec::new();
    for number in 0..15 {
        let mut connection = connect(web);
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        connection.receive_head().unwrap();
        waiting.push(connection);
        let retries = format!("[backends.app]\nretries = {}\n[[backends", number % 2);
        node.reload_with(&text.replacen("[[backends", &retries, 1));
    }
    wait_for_old_configurations(&node, 15);
    assert_eq!(node.balancer(), balancer, "{}", node.messages());
    waiting.iter().for_each(|_| go_on.send(()).unwrap());
    for connection in &mut waiting {
        assert_eq!(connection.receive_bytes(9).unwrap(), b"firstlast");
    }
    wait_for_old_configurations(&node, 0);
}
