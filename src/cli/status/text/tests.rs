//! What a person reads of each state a pair can be in.

use super::*;
use crate::status::{BackendStatus, BalancerStatus};

fn server(name: &str, last: u8, state: ServerState, reason: &str) -> ServerStatus {
    let address = format!("192.168.1.{last}:80");
    let (name, reason) = (name.into(), reason.into());
    ServerStatus { name, address, state, reason, weight: 60, connections: 1, requests: 500, ..ServerStatus::default() }
}

fn node(name: &str, state: State, second: ServerStatus) -> NodeStatus {
    let router = RouterStatus {
        name: "main".into(),
        virtual_router_id: 51,
        interface: "eth1".into(),
        state,
        priority: if name == "lb1" { 200 } else { 100 },
        effective_priority: if name == "lb1" { 200 } else { 100 },
        addresses: vec!["192.168.1.20/24".into()],
        active_router: Some([192, 168, 1, 11].into()),
        since: "2026-01-01T00:00:00Z".into(),
        reason: "no advert came".into(),
        ..RouterStatus::default()
    };
    let servers = vec![server("backend1", 21, ServerState::Up, "200 OK"), second];
    NodeStatus {
        node: name.into(),
        version: "0.1.0".into(),
        uptime_s: 192.9,
        vrrp: vec![router],
        balancer: BalancerStatus {
            state: BalancerState::Serving,
            pid: 7,
            connections: 3,
            requests: 1000,
            ..BalancerStatus::default()
        },
        backends: vec![BackendStatus { name: "app".into(), servers, ..BackendStatus::default() }],
        can_take_over: true,
        ..NodeStatus::default()
    }
}

fn pair() -> PairStatus {
    let peer = PeerStatus {
        name: "lb2".into(),
        connected: true,
        config_matches: true,
        status: node("lb2", State::Backup, server("backend2", 22, ServerState::Down, "connection refused")),
        ..PeerStatus::default()
    };
    let node = node("lb1", State::Active, server("backend2", 22, ServerState::Up, "200 OK"));
    PairStatus { node, peers: vec![peer] }
}

fn text(pair: &PairStatus) -> String {
    render(pair, "2026-01-01T02:05:00Z".parse().unwrap(), false)
}

#[test]
fn a_pair_at_work() {
    let expected = "\
lb1  this node, Relevo 0.1.0, up 3 min 12 s
  main: active for 2 h 5 min (since 2026-01-01T00:00:00Z): no advert came
    192.168.1.20/24 on eth1, VRID 51, priority 200
  balancer: serving, 3 connections now, 1000 requests

lb2  peer, Relevo 0.1.0, up 3 min 12 s
  main: backup for 2 h 5 min (since 2026-01-01T00:00:00Z): no advert came
    192.168.1.20/24 on eth1, VRID 51, priority 100, active is 192.168.1.11
  balancer: serving, 3 connections now, 1000 requests

server        address          weight  connections  requests  lb1  lb2
app/backend1  192.168.1.21:80      60            1       500  up   up
app/backend2  192.168.1.22:80      60            1       500  up   down
  app/backend2 is down on lb2: connection refused

takeover: lb2 could take over now
configuration: the same on lb1 and lb2
";
    assert_eq!(text(&pair()), expected);
}

#[test]
fn a_peer_that_is_gone() {
    let mut pair = pair();
    let peer = &mut pair.peers[0];
    peer.connected = false;
    peer.link_error = "nothing listens at 192.168.1.12:8650".into();
    peer.status.can_take_over = false;
    peer.status.cannot_take_over_because = "the link to it is down".into();
    let text = text(&pair);
    assert!(text.contains("lb2  peer, link down: nothing listens at 192.168.1.12:8650\n"), "{text}");
    assert!(text.contains("  main: was backup when it was last heard\n"), "{text}");
    assert!(text.contains("takeover: not known of lb2, whose peer link is down for the reason above"), "{text}");
    assert!(!text.contains("could not take over"), "it may, and even be active: {text}");
    assert!(text.contains("configuration: that of lb2 is not known while its link is down\n"), "{text}");
}

#[test]
fn a_fault_and_another_configuration() {
    let mut pair = pair();
    pair.peers[0].config_matches = false;
    pair.node.can_take_over = false;
    pair.node.cannot_take_over_because = "virtual router main: eth1 has no carrier".into();
    let router = &mut pair.node.vrrp[0];
    (router.state, router.effective_priority, router.active_router) = (State::Fault, 0, None);
    let text = text(&pair);
    assert!(text.contains("  main: fault for 2 h 5 min"), "{text}");
    assert!(text.contains("VRID 51, priority 200 (now 0)\n"), "{text}");
    assert!(text.contains("lb1 could not take over now: virtual router main: eth1 has no carrier\n"), "{text}");
    assert!(text.contains("takeover: lb2 could take over now\n"), "{text}");
    assert!(text.contains("configuration: differs between lb1 and lb2"), "{text}");
}

#[test]
fn a_peer_whose_keeper_does_not_run() {
    let mut pair = pair();
    let peer = &mut pair.peers[0];
    (peer.connected, peer.gone, peer.link_error) = (false, true, "nothing listens at 192.168.1.12:8650".into());
    let refused = text(&pair);
    assert!(refused.contains("  main: was backup when it was last heard\n"), "{refused}");
    assert!(
        refused.contains(
            "takeover: nobody could take over: the keeper of lb2 has ended, and nothing listens where it did\n"
        ),
        "{refused}"
    );

    pair.peers[0].goodbye = "it was told to stop".into();
    let stopped = text(&pair);
    assert!(stopped.contains("8650\n  stopped: it was told to stop\n\n"), "{stopped}");
    assert!(stopped.contains("takeover: nobody could take over: lb2 stopped: it was told to stop\n"), "{stopped}");
    assert!(!stopped.contains("when it was last heard"), "{stopped}");

    let third = PeerStatus { name: "lb3".into(), connected: true, ..self::pair().peers.remove(0) };
    pair.peers.push(third);
    let three = text(&pair);
    let expected = "\
takeover: lb2 could not take over now: lb2 stopped: it was told to stop
takeover: lb3 could take over now
";
    assert!(three.contains(expected), "{three}");
}

#[test]
fn two_active_nodes() {
    let mut pair = pair();
    pair.peers[0].status.vrrp[0].state = State::Active;
    let unheard = text(&pair);
    let expected =
        "takeover: lb1 and lb2 are both active for 192.168.1.20: adverts do not arrive; let protocol 112 through";
    assert!(unheard.contains(expected), "{unheard}");

    pair.peers[0].status.vrrp[0].virtual_router_id = 52;
    let apart = text(&pair);
    let expected =
        "takeover: lb1 and lb2 are both active for 192.168.1.20: VRID 51 on lb1 and 52 on lb2 are two elections;";
    assert!(apart.contains(expected), "{apart}");

    pair.peers[0].status.vrrp[0].addresses = vec!["192.168.1.21/24".into()];
    assert!(!text(&pair).contains("both active"), "each has its own: {}", text(&pair));
}

#[test]
fn an_active_node_that_reaches_no_server() {
    let mut pair = pair();
    for server in &mut pair.node.backends[0].servers {
        server.state = ServerState::Down;
    }
    let expected = "servers: lb1 is active and reaches no server of app; lb2 reaches 1 of 2\n";
    assert!(text(&pair).contains(expected), "{}", text(&pair));
    pair.node.vrrp[0].state = State::Backup;
    assert!(!text(&pair).contains("reaches no server"), "a backup need not: {}", text(&pair));
    pair.node.vrrp[0].state = State::Active;
    for server in &mut pair.peers[0].status.backends[0].servers {
        server.state = ServerState::Down;
    }
    assert!(!text(&pair).contains("reaches no server"), "the peer would be no better: {}", text(&pair));
}

#[test]
fn an_active_node_without_a_balancer() {
    let mut pair = pair();
    let node = &mut pair.node;
    node.balancer.state = BalancerState::Down;
    (node.can_take_over, node.cannot_take_over_because) = (false, "its balancer is down".into());
    assert!(text(&pair).contains("takeover: lb1 is active and serves nobody: its balancer is down\n"));
}

#[test]
fn one_virtual_router_of_two_in_fault() {
    let mut pair = pair();
    let router = RouterStatus { name: "web".into(), state: State::Fault, ..pair.node.vrrp[0].clone() };
    pair.node.vrrp.push(router);
    let node = &mut pair.node;
    (node.can_take_over, node.cannot_take_over_because) = (false, "virtual router web: no carrier".into());
    let expected =
        "takeover: lb1 is active for main and could not take over the rest now: virtual router web: no carrier\n";
    assert!(text(&pair).contains(expected), "{}", text(&pair));
}

#[test]
fn equal_priorities() {
    let mut pair = pair();
    assert!(!text(&pair).contains("priority: equal"));
    pair.peers[0].status.vrrp[0].priority = 200;
    assert!(text(&pair).contains("priority: equal, 200 on lb1 and lb2 for main: give the node"), "{}", text(&pair));
}

#[test]
fn alone_and_without_servers() {
    let mut alone = PairStatus { node: NodeStatus { node: "lb1".into(), ..NodeStatus::default() }, peers: vec![] };
    assert!(text(&alone).contains("takeover: none, this node has no [vrrp]"), "{}", text(&alone));
    assert!(!text(&alone).contains("address"), "no table: {}", text(&alone));
    alone.node.vrrp = pair().node.vrrp;
    assert!(text(&alone).contains("takeover: not known, this node has no [peering]"), "{}", text(&alone));
}

#[test]
fn colour_changes_no_word() {
    let coloured = render(&pair(), "2026-01-01T02:05:00Z".parse().unwrap(), true);
    let mut plain = String::new();
    for part in coloured.split('\x1b') {
        plain.push_str(part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, rest)| rest));
    }
    assert_eq!(plain, text(&pair()));
    assert!(coloured.contains("\x1b[31mdown\x1b[0m"));
}

#[test]
fn a_peer_that_has_said_nothing_since_this_node_took_over() {
    let mut pair = pair();
    let peer = &mut pair.peers[0];
    (peer.outdated, peer.status.can_take_over) = (true, false);
    peer.status.vrrp[0].state = State::Active;
    peer.status.cannot_take_over_because = "it has said nothing since this node took over".into();
    let text = text(&pair);
    assert!(text.contains("lb2  peer, as it was before this node took over, Relevo 0.1.0"), "{text}");
    assert!(text.contains("takeover: not known of lb2: it has said nothing since this node took over\n"), "{text}");
    assert!(!text.contains("both active"), "{text}");
}

/// A link that is down says nothing of a node whose adverts arrive, nor of one that was never met.
#[test]
fn a_peer_that_is_heard_or_was_never_met_is_not_said_to_be_gone() {
    let mut pair = pair();
    let own: std::net::Ipv4Addr = [192, 168, 1, 12].into();
    let peer = &mut pair.peers[0];
    (peer.connected, peer.gone, peer.link_error) = (false, true, "nothing listens at 192.168.1.12:8650".into());
    peer.status.vrrp[0].own_address = Some(own);
    (pair.node.vrrp[0].state, pair.node.vrrp[0].active_router) = (State::Backup, Some(own));
    let heard = text(&pair);
    assert!(heard.contains("takeover: not known of lb2") && heard.contains("its adverts are heard"), "{heard}");
    pair.node.vrrp[0].active_router = None;
    assert!(
        text(&pair).contains("takeover: lb2 could not take over now: the keeper of lb2 has ended"),
        "{}",
        text(&pair)
    );

    pair.node.vrrp[0].state = State::Active;
    pair.peers[0].gone = false;
    let never_met = text(&pair);
    assert!(never_met.contains("takeover: not known of lb2, whose peer link is down"), "{never_met}");
    assert!(!never_met.contains("nobody could take over"), "{never_met}");
}

#[test]
fn of_many_servers_those_that_are_up_everywhere_are_counted() {
    let mut pair = pair();
    let servers: Vec<_> = (0..500).map(|number| server(&format!("s{number}"), 21, ServerState::Up, "200 OK")).collect();
    pair.node.backends[0].servers.clone_from(&servers);
    pair.peers[0].status.backends[0].servers = servers;
    pair.peers[0].status.backends[0].servers[7] = server("s7", 21, ServerState::Down, "connection refused");
    let text = text(&pair);
    assert!(text.contains("app/s7 ") && !text.contains("app/s8"), "{text}");
    assert!(text.contains("app: 499 more servers, all up (relevo server list app)"), "{text}");
    assert!(text.lines().count() < 20, "{text}");
}
