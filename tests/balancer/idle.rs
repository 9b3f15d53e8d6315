//! Clients that say nothing cost next to nothing, and leave nothing behind. `cargo bench --bench memory` measures the same beside
//! HAProxy.

use std::net::SocketAddr;

use crate::rig::http::Connection;
use crate::rig::node::Relevo;
use crate::rig::place::own_loopback;
use crate::rig::process::{Holding, raise_descriptor_limit};
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{configuration, connect};

const CLIENTS: i64 = 1000;
/// KiB that one of them may cost.
const MOST: i64 = 4;

/// What the process that carries traffic holds for so many clients that `arrive` like this, asserted to be little; and when
/// they have gone, as much as before.
#[track_caller]
fn assert_cheap(arrive: impl Fn(SocketAddr) -> Connection) {
    let _place = own_loopback();
    raise_descriptor_limit();
    let server = Server::named("a");
    let timeouts = "timeouts = { http_request = \"10m\", http_keep_alive = \"10m\" }";
    let (web, text) = configuration(timeouts, "", &[server.address]);
    let node = Relevo::start(&format!("[process]\nthreads = 1\n{text}"));
    let balancer = node.balancer();
    let connections = || node.status().map(|status| status.node.balancer.connections);
    let wait_for_connections = |number: i64| {
        let explain = || format!("{:?}\n{}", connections(), node.messages());
        wait_until(&format!("{number} connections"), || connections() == Some(number as u64), explain);
    };
    // What is there from the first requests on counts for none of them.
    let first: Vec<_> = (0..50).map(|_| arrive(web)).collect();
    // Seen there, so that they can be seen gone: the state that a node tells is a moment old.
    wait_for_connections(50);
    drop(first);
    wait_for_connections(0);
    let before = Holding::of(balancer);

    let mut clients: Vec<_> = (0..CLIENTS).map(|_| arrive(web)).collect();
    wait_for_connections(CLIENTS);
    let cost = || Holding::of(balancer).resident - before.resident;
    let explain = || format!("{} KiB for {CLIENTS}", cost());
    wait_until(&format!("a client costs at most {MOST} KiB"), || cost() <= CLIENTS * MOST, explain);
    let each_is_served = clients.iter_mut().all(|client| client.get("/").unwrap().status() == 200);
    assert!(each_is_served, "{}", node.messages());

    drop(clients);
    wait_for_connections(0);
    let holding = || Holding::of(balancer);
    // Fewer where a connection to the server waited for its next request before, and does not now.
    let is_as_before = || holding().descriptors <= before.descriptors && holding().threads == before.threads;
    wait_until("descriptors and threads as before", is_as_before, || format!("{before:?}\n{:?}", holding()));
}

#[test]
fn a_kept_connection_costs_little() {
    assert_cheap(|web| {
        let mut client = connect(web);
        assert_eq!(client.get("/").unwrap().status(), 200);
        client
    });
}

#[test]
fn a_connection_without_a_request_costs_little() {
    assert_cheap(connect);
}
