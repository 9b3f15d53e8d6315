//! The lab itself: what it reports is what happened.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::client::{EVERY, Prober};
use super::namespace::Namespace;
use super::network::{Switch, mac};
use super::outage::Failure;
use super::watch::Watch;
use super::web::WebServer;
use super::{neighbour, netlink};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 21);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// `None` where network namespaces cannot be made, which CI does not accept.
fn switch() -> Option<Switch> {
    match Switch::new() {
        Ok(switch) => Some(switch),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("not tried: {error} (it needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN)");
            None
        }
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const SPAN: Duration = Duration::from_millis(100);

#[test]
fn a_prober_sees_a_server_stop_and_start() {
    let Some(switch) = switch() else { return };
    let mut server = WebServer::new(&switch, "web1", SERVER).unwrap();
    let client = switch.host("client", CLIENT).unwrap();
    let prober = Prober::start(&client.namespace, server.address(), EVERY).unwrap();
    wait_until("all is well", || prober.is_well(SPAN));
    let answer = prober.last().unwrap().outcome.unwrap();
    assert_eq!((answer.server.as_str(), answer.node), ("web1", CLIENT.to_string()));

    let begin = Instant::now();
    server.stop();
    wait_until("refused", || prober.last().is_some_and(|last| last.outcome == Err(Failure::Refused)));
    wait_until("no longer well", || !prober.is_well(SPAN));
    let stopped = begin.elapsed();
    server.start().unwrap();
    wait_until("well again", || prober.is_well(SPAN));
    let outage = prober.outage(begin);
    assert!(outage.failed > 0 && outage.duration <= begin.elapsed() && outage.duration >= stopped / 2, "{outage:?}");
}

#[test]
fn a_cable_that_is_silent_or_pulled_carries_nothing() {
    let Some(switch) = switch() else { return };
    let server = WebServer::new(&switch, "web1", SERVER).unwrap();
    let client = switch.host("client", CLIENT).unwrap();
    let prober = Prober::start(&client.namespace, server.address(), EVERY).unwrap();
    wait_until("all is well", || prober.is_well(SPAN));
    client.port.silence().unwrap();
    wait_until("nothing goes through", || !prober.is_well(SPAN));
    client.port.pass().unwrap();
    wait_until("well again", || prober.is_well(SPAN));
    client.port.pull().unwrap();
    wait_until("nothing goes through", || !prober.is_well(SPAN));
    client.port.plug().unwrap();
    wait_until("well again", || prober.is_well(SPAN));
}

#[test]
fn a_watch_tells_who_holds_an_address() {
    let Some(_) = switch() else { return };
    let nodes = [Namespace::new("lb1").unwrap(), Namespace::new("lb2").unwrap()];
    let watch = Watch::start(ADDRESS, &nodes).unwrap();
    let begin = Instant::now();
    let take = |node: usize| nodes[node].run(|| netlink::add_address("lo", ADDRESS, 24)).unwrap().unwrap();
    let lose = |node: usize| nodes[node].run(|| netlink::remove_address("lo", ADDRESS, 24)).unwrap().unwrap();
    take(0);
    wait_until("the first holds it", || watch.history().holds(0));
    take(1);
    wait_until("the second holds it", || watch.history().holds(1));
    assert_eq!(watch.history().owners_at(Instant::now()), 2);
    lose(0);
    wait_until("the first has lost it", || !watch.history().holds(0));
    let history = watch.history();
    assert!(history.longest_with_two_owners(begin, Instant::now()) > Duration::ZERO);
    assert!(history.settled_after(begin, Instant::now()).is_some());
}

#[test]
fn a_client_that_believes_wrongly_is_stranded_until_it_forgets() {
    let Some(switch) = switch() else { return };
    let server = WebServer::new(&switch, "web1", SERVER).unwrap();
    let client = switch.host("client", CLIENT).unwrap();
    neighbour::believe(&client.namespace, SERVER, mac(ADDRESS)).unwrap();
    let prober = Prober::start(&client.namespace, server.address(), EVERY).unwrap();
    std::thread::sleep(SPAN * 2);
    assert!(!prober.is_well(SPAN));
    neighbour::forget(&client.namespace, SERVER).unwrap();
    wait_until("well again", || prober.is_well(SPAN));
}

#[test]
fn a_process_that_was_started_inside_is_found_there_and_dies_with_the_namespace() {
    let Some(_) = switch() else { return };
    let namespace = Namespace::new("lb1").unwrap();
    let mut command = std::process::Command::new("sleep");
    command.arg("60");
    let mut child = namespace.spawn(command).unwrap();
    let found: Vec<u32> = namespace.processes().unwrap().iter().map(|process| process.pid.as_raw() as u32).collect();
    assert_eq!(found, [child.id()]);
    drop(namespace);
    assert!(!child.wait().unwrap().success());
}
