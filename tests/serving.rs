//! A pair as it is set up in earnest: two nodes with default threads, two real nginx servers behind them, the real curl as
//! client, in network namespaces.

mod rig;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::client::Prober;
use relevo::lab::directory::Directory;
use relevo::lab::network::{Host, INTERFACE, PREFIX_LENGTH, Switch};
use relevo::lab::node::{Messages, Node, is_active};
use relevo::lab::outage::Attempt;
use relevo::lab::pair::{CLIENT, FLOATING, NODE_ADDRESSES, NODES, target};
use relevo::status::ServerState;

use rig::curl::curl_from;
use rig::nginx::Nginx;
use rig::node::{BINARY, relevo};
use rig::wait_until;

struct Lab {
    nodes: [Node; 2],
    nginx: [Nginx; 2],
    client: Host,
    _directory: Directory,
    _alone: MutexGuard<'static, ()>,
}

/// Both nodes are ready, the first is active; `None` where there can be no namespaces.
fn lab() -> Option<Lab> {
    let (switch, alone) = rig::place::switch()?;
    let directory = Directory::new().unwrap();
    let path = directory.path();
    let nginx = |name, last| Nginx::start_on(&switch, name, Ipv4Addr::new(10, 77, 0, last), path);
    let nginx = [nginx("web1", 21), nginx("web2", 22)];
    let key = path.join("pair.key");
    assert!(relevo(&["key", &key.display().to_string()]).status.success());
    let nodes = [0, 1].map(|number| start_node(&switch, number, path, &key, &nginx));
    let client = switch.host("client", CLIENT).unwrap();
    let lab = Lab { nodes, nginx, client, _directory: directory, _alone: alone };
    for number in [0, 1] {
        lab.wait_for_servers(number, [ServerState::Up; 2]);
    }
    lab.wait_for("the first is active, the second can take over", || {
        let [first, second] = lab.nodes.each_ref().map(|node| node.status().ok());
        first.is_some_and(|first| {
            is_active(&first.node) && first.peers[0].connected && first.peers[0].status.can_take_over
        }) && second.is_some_and(|second| !is_active(&second.node) && second.peers[0].connected)
    });
    Some(lab)
}

fn start_node(switch: &Switch, number: usize, directory: &Path, key: &Path, nginx: &[Nginx; 2]) -> Node {
    let (name, own) = (NODES[number], NODE_ADDRESSES[number]);
    let (peer, peer_address) = (NODES[1 - number], NODE_ADDRESSES[1 - number]);
    let priority = [200, 100][number];
    let servers: String = nginx
        .iter()
        .map(|nginx| {
            format!("[[backends.app.servers]]\nname = \"{}\"\naddress = \"{}\"\n", nginx.name, nginx.address())
        })
        .collect();
    let configuration = format!(
        r#"
[node]
name = "{name}"
control_socket = "{socket}"

[log]
format = "off"

[frontends.web]
bind = "*:80"
default_backend = "app"
forwarded_for = true

[backends.app]
health = {{ path = "/health", interval = "100ms", rise = 2, fall = 2 }}
retries = 3
redispatch = true

{servers}
[vrrp.main]
interface = "{INTERFACE}"
virtual_router_id = 51
priority = {priority}
addresses = "{FLOATING}/{PREFIX_LENGTH}"
advertisement_interval = "100ms"

[peering]
listen = "{own}:8650"
key_file = "{key}"
peers = {{ {peer} = "{peer_address}:8650" }}
"#,
        socket = directory.join(format!("{name}.sock")).display(),
        key = key.display(),
    );
    let host = switch.host(name, own).unwrap();
    let mut node = Node::new(name, host, Path::new(BINARY), directory, Messages::File, &configuration).unwrap();
    node.start().unwrap();
    node
}

impl Lab {
    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl FnMut() -> bool) {
        wait_until(what, is_so, || {
            let tell = |node: &Node| format!("--- {}\n{:#?}\n{}", node.name, node.status().ok(), node.messages());
            self.nodes.iter().map(tell).collect()
        });
    }

    #[track_caller]
    fn wait_for_servers(&self, node: usize, states: [ServerState; 2]) {
        self.wait_for(&format!("{} sees its servers {states:?}", NODES[node]), || {
            let status = self.nodes[node].status();
            status.is_ok_and(|status| {
                let servers = status.node.backends.iter().flat_map(|backend| &backend.servers);
                servers.map(|server| server.state).eq(states)
            })
        });
    }

    /// What so many requests of one curl were answered: `server, X-Forwarded-For it got`.
    #[track_caller]
    fn ask(&self, requests: usize, further: &[&str]) -> Vec<(String, String)> {
        let url = format!("http://{}/[1-{requests}]", target());
        let answers = curl_from(&self.client.namespace, &[&["--fail", &url], further].concat());
        let answer = |line: &str| line.split_once(' ').map(|(server, client)| (server.to_owned(), client.to_owned()));
        answers.lines().map(|line| answer(line).unwrap_or_else(|| panic!("not from nginx: {line:?}"))).collect()
    }
}

#[track_caller]
fn assert_alternate(answers: &[(String, String)], requests: usize) {
    assert_eq!(answers.len(), requests);
    let in_a_row = answers.windows(2).filter(|two| two[0].0 == two[1].0).count();
    assert_eq!(in_a_row, 0, "two in a row at the same server: {in_a_row} times");
}

/// A thousand requests of a client alternate between the servers, no two in a row at the same one, be it on one connection or
/// on a new one each (whichever worker that lands on); and every one of them carries the client's address.
#[test]
fn a_thousand_requests_alternate_and_name_the_client() {
    let Some(lab) = lab() else { return };
    for further in [&[][..], &["-H", "Connection: close"]] {
        let answers = lab.ask(1000, further);
        assert_alternate(&answers, 1000);
        let stranger = answers.iter().find(|(_, forwarded_for)| *forwarded_for != CLIENT.to_string());
        assert_eq!(stranger, None, "X-Forwarded-For is not the client");
    }
}

/// A server whose check fails, though it would still answer, gets no request any more; when its check succeeds again it gets
/// its share.
#[test]
fn a_server_whose_check_fails_gets_no_request() {
    let Some(lab) = lab() else { return };
    let [_, ailing] = &lab.nginx;
    assert_alternate(&lab.ask(100, &[]), 100);

    ailing.set_healthy(false);
    lab.wait_for_servers(0, [ServerState::Up, ServerState::Down]);
    let before = ailing.requests();
    let answers = lab.ask(200, &[]);
    assert!(answers.len() == 200 && answers.iter().all(|(server, _)| server == "web1"), "{answers:?}");
    assert_eq!(ailing.requests(), before, "requests reached a server that is down");

    ailing.set_healthy(true);
    lab.wait_for_servers(0, [ServerState::Up; 2]);
    assert_alternate(&lab.ask(200, &["-H", "Connection: close"]), 200);
}

/// A server is stopped, then killed, under the load of a client that never pauses: before its check fails retries hide it,
/// after that it is left out, and no client sees an error during the whole; back again it gets its share.
#[test]
fn no_client_notices_a_server_that_stops() {
    let Some(mut lab) = lab() else { return };
    let prober = Prober::start(&lab.client.namespace, target(), Duration::from_millis(4)).unwrap();
    lab.wait_for("the client is served", || prober.is_well(Duration::from_millis(100)));
    let begin = Instant::now();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.nginx[0].end(signal);
        lab.wait_for_servers(0, [ServerState::Down, ServerState::Up]);
        let down = Instant::now();
        lab.wait_for("a hundred answers from the other", || shares(&prober, down).values().sum::<usize>() >= 100);
        assert_eq!(shares(&prober, down).keys().collect::<Vec<_>>(), ["web2"], "after its check had failed");

        lab.nginx[0].start();
        lab.wait_for_servers(0, [ServerState::Up; 2]);
        let up = Instant::now();
        lab.wait_for("two hundred answers", || shares(&prober, up).values().sum::<usize>() >= 200);
        let shares = shares(&prober, up);
        let (one, two) = (shares.get("web1").copied().unwrap_or(0), shares.get("web2").copied().unwrap_or(0));
        assert!(one.abs_diff(two) <= 10, "no equal shares: {shares:?}");
    }
    let attempts = prober.attempts(begin);
    let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), attempts.len(), failed[0]);
}

/// How many of the attempts that began since were answered by which server.
fn shares(prober: &Prober, since: Instant) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for attempt in prober.attempts(since).into_iter().filter(|attempt| attempt.start >= since) {
        if let Ok(answer) = attempt.outcome {
            *shares.entry(answer.server).or_default() += 1;
        }
    }
    shares
}
