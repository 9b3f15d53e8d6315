//! The state of the pair as a text for people. Pure.

mod takeover;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use relevo_ha::{AddressConflict, OtherRouter, RouterStatus, State};

use crate::status::{BalancerState, NodeStatus, PairStatus, PeerStatus, ServerState, ServerStatus};

/// Both nodes, their servers, and whether they could stand in for each other. `now` is for "since".
pub(in crate::cli) fn render(pair: &PairStatus, now: Timestamp, colour: bool) -> String {
    let mut text = Text { out: String::new(), now, colour };
    text.node(&pair.node, "this node");
    for peer in &pair.peers {
        text.peer(peer);
    }
    text.servers(pair);
    text.takeover(pair);
    text.out
}

/// The servers of one node, for `relevo server list`.
pub(in crate::cli) fn servers(node: &NodeStatus, colour: bool) -> String {
    let mut text = Text { out: String::new(), now: Timestamp::UNIX_EPOCH, colour };
    let row = |(backend, server): (&str, &ServerStatus)| {
        let weight = match server.configured_weight {
            configured if configured == server.weight => server.weight.to_string(),
            configured => format!("{} of {configured}", server.weight),
        };
        vec![
            Cell::server(backend, server),
            Cell::left(&server.address),
            Cell::state(server.state),
            Cell::right(weight),
            Cell::right(server.connections),
            Cell::right(server.requests),
            Cell::left(&server.reason),
        ]
    };
    let titles = ["server", "address", "state", "weight", "connections", "requests", "because"];
    let rows: Vec<_> = std::iter::once(titles.map(Cell::title).into()).chain(servers_of(node).map(row)).collect();
    text.table(&rows);
    text.out
}

/// Servers of a backend that are all shown.
const MOST_ROWS: usize = 20;

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
        let old = &balancer.old_configurations;
        if old.count > 0 {
            let (word, since) =
                (if old.count == 1 { "configuration" } else { "configurations" }, duration(old.oldest_s));
            self.line(format!("    something goes on under {} old {word}, replaced {since} ago at most", old.count));
        }
        if let Some(sentence) = &node.file_differs {
            let file = self.paint("file", Colour::Middling);
            self.line(format!("  {file}: {sentence}"));
        }
        for sentence in &node.foreign_addresses {
            let wrong = self.paint("wrong", Colour::Bad);
            self.line(format!("  {wrong}: {sentence}"));
        }
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
            let because = router.unready_because.iter().map(|reason| format!(": {reason}")).collect::<String>();
            let _ = write!(line, " (now {}{because})", router.effective_priority);
        }
        if let Some(active) = router.active_router.filter(|_| router.state != State::Active) {
            let _ = write!(line, ", active is {active}");
        }
        self.line(line);
        for AddressConflict { address, mac } in &router.address_conflicts {
            let wrong = self.paint("wrong", Colour::Bad);
            self.line(format!(
                "    {wrong}: another host, of MAC address {mac}, answers for {address}: find it and take the address from it"
            ));
        }
        for OtherRouter { source, priority, addresses } in &router.other_routers {
            let wrong = self.paint("wrong", Colour::Bad);
            let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.line(format!(
                "    {wrong}: {source} uses VRID {} for {addresses} with priority {priority}, and is not obeyed: give one of the two \
                 another virtual_router_id",
                router.virtual_router_id
            ));
        }
    }

    fn peer(&mut self, peer: &PeerStatus) {
        if peer.connected {
            let which = if peer.outdated { "peer, as it was before this node took over" } else { "peer" };
            return self.node(&NodeStatus { node: peer.name.clone(), ..peer.status.clone() }, which);
        }
        let (name, down) = (self.paint(&peer.name, Colour::Title), self.paint("link down", Colour::Bad));
        self.line(format!("{name}  peer, {down}: {}", peer.link_error));
        if !peer.goodbye.is_empty() {
            self.line(format!("  stopped: {}", peer.goodbye));
        }
        for router in peer.status.vrrp.iter().filter(|_| peer.goodbye.is_empty()) {
            self.line(format!("  {}: was {} when it was last heard", router.name, router.state));
        }
        self.line("");
    }

    /// One row for each server, one column for each node that is heard. Of many servers those that are up everywhere are only counted.
    fn servers(&mut self, pair: &PairStatus) {
        let peers = pair.peers.iter().filter(|peer| peer.connected);
        let nodes: Vec<(&str, &NodeStatus)> = std::iter::once((pair.node.node.as_str(), &pair.node))
            .chain(peers.map(|peer| (peer.name.as_str(), &peer.status)))
            .collect();
        let mut rows = Vec::new();
        let is_up = |node: &NodeStatus, backend: &str, server: &str| {
            find(node, backend, server).is_none_or(|server| server.state == ServerState::Up)
        };
        let is_many = |name: &str| {
            let mut backends = pair.node.backends.iter();
            backends.any(|backend| backend.name == name && backend.servers.len() > MOST_ROWS)
        };
        let mut folded: BTreeMap<&str, usize> = BTreeMap::new();
        for (backend, server) in servers_of(&pair.node) {
            if is_many(backend) && nodes.iter().all(|(_, node)| is_up(node, backend, &server.name)) {
                *folded.entry(backend).or_default() += 1;
                continue;
            }
            let mut row = vec![
                Cell::server(backend, server),
                Cell::left(&server.address),
                Cell::right(server.weight),
                match server.max_connections {
                    Some(most) => Cell::right(format!("{} of {most}", server.connections)),
                    None => Cell::right(server.connections),
                },
                Cell::right(server.requests),
            ];
            row.extend(nodes.iter().map(|(_, node)| match find(node, backend, &server.name) {
                Some(server) => Cell::state(server.state),
                None => Cell::left("-"),
            }));
            rows.push(row);
        }
        if rows.is_empty() && folded.is_empty() {
            return;
        }
        let titles = ["server", "address", "weight", "connections", "requests"].into_iter();
        rows.insert(0, titles.chain(nodes.iter().map(|(name, _)| *name)).map(Cell::title).collect());
        if rows.len() > 1 {
            self.table(&rows);
        }
        for (backend, count) in folded {
            self.line(format!("{backend}: {count} more servers, all up (relevo server list {backend})"));
        }
        for (name, node) in nodes {
            for backend in &node.backends {
                self.waiting(name, &backend.name, backend.queue);
                for server in &backend.servers {
                    self.waiting(name, &format!("{}/{}", backend.name, server.name), server.queue);
                }
            }
            for (backend, server) in servers_of(node) {
                if server.state != ServerState::Up && !server.reason.is_empty() {
                    let state = server.state.in_a_sentence();
                    self.line(format!("  {backend}/{} is {state} on {name}: {}", server.name, server.reason));
                }
            }
        }
        self.line("");
    }

    fn waiting(&mut self, node: &str, place: &str, queue: u64) {
        match queue {
            0 => {}
            1 => self.line(format!("  1 request waits for {place} on {node}")),
            more => self.line(format!("  {more} requests wait for {place} on {node}")),
        }
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

    fn server(backend: &str, server: &ServerStatus) -> Cell {
        let backup = if server.backup { " (backup)" } else { "" };
        Cell::left(format!("{backend}/{}{backup}", server.name))
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
