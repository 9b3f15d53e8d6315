//! The state of the pair as a text for people. Pure.

use std::fmt::Write;

use jiff::Timestamp;
use relevo_ha::{RouterStatus, State};

use crate::status::{BalancerState, NodeStatus, PairStatus, PeerStatus, ServerState, ServerStatus};

/// Both nodes, their servers, and whether they could stand in for each other. `now` is for "since".
pub(super) fn render(pair: &PairStatus, now: Timestamp, colour: bool) -> String {
    let mut text = Text { out: String::new(), now, colour };
    text.node(&pair.node, "this node");
    for peer in &pair.peers {
        text.peer(peer);
    }
    text.servers(pair);
    text.takeover(pair);
    text.out
}

/// Of a state.
#[derive(Clone, Copy)]
enum Colour {
    Good = 32,
    Middling = 33,
    Bad = 31,
    Title = 1,
}

struct Text {
    out: String,
    now: Timestamp,
    colour: bool,
}

impl Text {
    fn line(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref().trim_end());
        self.out.push('\n');
    }

    fn paint(&self, word: &str, colour: Colour) -> String {
        if self.colour { format!("\x1b[{}m{word}\x1b[0m", colour as u8) } else { word.to_owned() }
    }

    fn node(&mut self, node: &NodeStatus, which: &str) {
        let up = duration(node.uptime_s);
        let name = self.paint(&node.node, Colour::Title);
        self.line(format!("{name}  {which}, Relevo {}, up {up}", node.version));
        for router in &node.vrrp {
            self.router(router);
        }
        let balancer = &node.balancer;
        let state = self.paint(
            &balancer.state.to_string(),
            match balancer.state {
                BalancerState::Serving => Colour::Good,
                BalancerState::Starting => Colour::Middling,
                BalancerState::Down => Colour::Bad,
            },
        );
        let (connections, requests) = (balancer.connections, balancer.requests);
        self.line(format!("  balancer: {state}, {connections} connections now, {requests} requests"));
        self.line("");
    }

    fn router(&mut self, router: &RouterStatus) {
        let state = self.paint(
            &router.state.to_string(),
            match router.state {
                State::Active | State::Backup => Colour::Good,
                State::Init => Colour::Middling,
                State::Fault => Colour::Bad,
            },
        );
        let mut line = format!("  {}: {state}", router.name);
        if let Ok(since) = router.since.parse::<Timestamp>() {
            let _ = write!(line, " for {}", duration(self.now.duration_since(since).as_secs_f64()));
        }
        if !router.since.is_empty() {
            let _ = write!(line, " (since {})", router.since);
        }
        if !router.reason.is_empty() {
            let _ = write!(line, ": {}", router.reason);
        }
        self.line(line);
        let mut line = format!(
            "    {} on {}, VRID {}, priority {}",
            router.addresses.join(", "),
            router.interface,
            router.virtual_router_id,
            router.priority
        );
        if router.effective_priority != router.priority {
            let _ = write!(line, " (now {})", router.effective_priority);
        }
        if let Some(active) = router.active_router.filter(|_| router.state != State::Active) {
            let _ = write!(line, ", active is {active}");
        }
        self.line(line);
    }

    fn peer(&mut self, peer: &PeerStatus) {
        if peer.connected {
            return self.node(&NodeStatus { node: peer.name.clone(), ..peer.status.clone() }, "peer");
        }
        let (name, down) = (self.paint(&peer.name, Colour::Title), self.paint("link down", Colour::Bad));
        self.line(format!("{name}  peer, {down}: {}", peer.link_error));
        for router in &peer.status.vrrp {
            self.line(format!("  {}: was {} when it was last heard", router.name, router.state));
        }
        self.line("");
    }

    /// One row for each server, one column for each node that is heard.
    fn servers(&mut self, pair: &PairStatus) {
        let peers = pair.peers.iter().filter(|peer| peer.connected);
        let nodes: Vec<(&str, &NodeStatus)> = std::iter::once((pair.node.node.as_str(), &pair.node))
            .chain(peers.map(|peer| (peer.name.as_str(), &peer.status)))
            .collect();
        let mut rows = Vec::new();
        for (backend, server) in servers_of(&pair.node) {
            let mut row = vec![
                Cell::left(format!("{backend}/{}", server.name)),
                Cell::left(&server.address),
                Cell::right(server.weight),
                Cell::right(server.connections),
                Cell::right(server.requests),
            ];
            row.extend(nodes.iter().map(|(_, node)| match find(node, backend, &server.name) {
                Some(server) => Cell::state(server.state),
                None => Cell::left("-"),
            }));
            rows.push(row);
        }
        if rows.is_empty() {
            return;
        }
        let titles = ["server", "address", "weight", "connections", "requests"].into_iter();
        rows.insert(0, titles.chain(nodes.iter().map(|(name, _)| *name)).map(Cell::title).collect());
        self.table(&rows);
        for (name, node) in nodes {
            for (backend, server) in servers_of(node) {
                if server.state != ServerState::Up && !server.reason.is_empty() {
                    let state = server_word(server.state).0;
                    self.line(format!("  {backend}/{} is {state} on {name}: {}", server.name, server.reason));
                }
            }
        }
        self.line("");
    }

    fn table(&mut self, rows: &[Vec<Cell>]) {
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = " ".repeat(width - cell.width());
                let painted = cell.colour.map_or_else(|| cell.text.clone(), |colour| self.paint(&cell.text, colour));
                let (before, after) = if cell.to_the_right { (padding.as_str(), "") } else { ("", padding.as_str()) };
                let _ = write!(line, "{before}{painted}{after}  ");
            }
            self.line(line);
        }
    }

    /// What would happen now if a node failed, and whether both run the same configuration.
    fn takeover(&mut self, pair: &PairStatus) {
        if pair.peers.is_empty() {
            self.line("takeover: not known, this node has no [peering] to ask its peers");
            return;
        }
        self.could_take_over(&pair.node.node, &pair.node);
        for peer in &pair.peers {
            self.could_take_over(&peer.name, &peer.status);
        }
        for peer in pair.peers.iter().filter(|peer| peer.connected) {
            let too = |own: &&RouterStatus| {
                active(&peer.status).any(|router| router.virtual_router_id == own.virtual_router_id)
            };
            for router in active(&pair.node).filter(too) {
                let both = self.paint("are both active", Colour::Bad);
                let (own, name) = (&pair.node.node, &peer.name);
                self.line(format!(
                    "takeover: {own} and {name} {both} on {}: no advert passes between them",
                    router.name
                ));
            }
        }
        for peer in &pair.peers {
            let (own, name) = (&pair.node.node, &peer.name);
            let verdict = match (peer.connected, peer.config_matches) {
                (true, true) => self.paint("the same", Colour::Good) + &format!(" on {own} and {name}"),
                (true, false) => {
                    self.paint("differs", Colour::Bad)
                        + &format!(
                            " between {own} and {name}: make both files agree, `relevo check` prints their digest"
                        )
                }
                (false, _) => format!("that of {name} is not known while its link is down"),
            };
            self.line(format!("configuration: {verdict}"));
        }
    }

    fn could_take_over(&mut self, name: &str, node: &NodeStatus) {
        // Who holds everything has nothing to take over.
        if node.can_take_over && !node.vrrp.is_empty() && node.vrrp.iter().all(|router| router.state == State::Active) {
            return;
        }
        let verdict = if node.can_take_over {
            format!("{name} {}", self.paint("could take over now", Colour::Good))
        } else {
            let because = Some(&node.cannot_take_over_because).filter(|because| !because.is_empty());
            let because = because.map_or("it does not say why", String::as_str);
            format!("{name} {}: {because}", self.paint("could not take over now", Colour::Bad))
        };
        self.line(format!("takeover: {verdict}"));
    }
}

struct Cell {
    text: String,
    to_the_right: bool,
    colour: Option<Colour>,
}

impl Cell {
    fn left(text: impl ToString) -> Cell {
        Cell { text: text.to_string(), to_the_right: false, colour: None }
    }

    fn right(number: impl ToString) -> Cell {
        Cell { to_the_right: true, ..Cell::left(number) }
    }

    fn title(text: &str) -> Cell {
        Cell { colour: Some(Colour::Title), ..Cell::left(text) }
    }

    fn state(state: ServerState) -> Cell {
        let (word, colour) = server_word(state);
        Cell { colour: Some(colour), ..Cell::left(word) }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

fn active(node: &NodeStatus) -> impl Iterator<Item = &RouterStatus> {
    node.vrrp.iter().filter(|router| router.state == State::Active)
}

fn servers_of(node: &NodeStatus) -> impl Iterator<Item = (&str, &ServerStatus)> {
    node.backends.iter().flat_map(|backend| backend.servers.iter().map(|server| (backend.name.as_str(), server)))
}

fn find<'a>(node: &'a NodeStatus, backend: &str, server: &str) -> Option<&'a ServerStatus> {
    servers_of(node).find(|(its_backend, it)| *its_backend == backend && it.name == server).map(|(_, it)| it)
}

fn server_word(state: ServerState) -> (&'static str, Colour) {
    match state {
        ServerState::Starting => ("starting", Colour::Middling),
        ServerState::Up => ("up", Colour::Good),
        ServerState::Down => ("down", Colour::Bad),
        ServerState::Drain => ("drain", Colour::Middling),
        ServerState::Maintenance => ("maintenance", Colour::Middling),
    }
}

/// In the two largest units.
fn duration(seconds: f64) -> String {
    // Saturates: a clock that went back gives 0.
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{BackendStatus, BalancerStatus};

    fn server(name: &str, last: u8, state: ServerState, reason: &str) -> ServerStatus {
        let address = format!("192.168.1.{last}:80");
        let (name, reason) = (name.into(), reason.into());
        ServerStatus { name, address, state, reason, weight: 60, connections: 1, requests: 500 }
    }

    fn node(name: &str, state: State, second: ServerStatus) -> NodeStatus {
        let router = RouterStatus {
            name: "main".into(),
            virtual_router_id: 51,
            interface: "eth1".into(),
            state,
            priority: 200,
            effective_priority: 200,
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
            balancer: BalancerStatus { state: BalancerState::Serving, pid: 7, connections: 3, requests: 1000 },
            backends: vec![BackendStatus { name: "app".into(), servers }],
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
    192.168.1.20/24 on eth1, VRID 51, priority 200, active is 192.168.1.11
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
        peer.link_error = "no keeper runs at 192.168.1.12:8650".into();
        peer.status.can_take_over = false;
        peer.status.cannot_take_over_because = "the link to it is down".into();
        let text = text(&pair);
        assert!(text.contains("lb2  peer, link down: no keeper runs at 192.168.1.12:8650\n"), "{text}");
        assert!(text.contains("  main: was backup when it was last heard\n"), "{text}");
        assert!(text.contains("takeover: lb2 could not take over now: the link to it is down\n"), "{text}");
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
    fn two_active_nodes() {
        let mut pair = pair();
        pair.peers[0].status.vrrp[0].state = State::Active;
        let text = text(&pair);
        assert!(
            text.contains("takeover: lb1 and lb2 are both active on main: no advert passes between them\n"),
            "{text}"
        );
    }

    #[test]
    fn alone_and_without_servers() {
        let pair = PairStatus { node: NodeStatus { node: "lb1".into(), ..NodeStatus::default() }, peers: vec![] };
        let text = text(&pair);
        assert!(text.contains("takeover: not known, this node has no [peering]"), "{text}");
        assert!(!text.contains("server"), "{text}");
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
}
