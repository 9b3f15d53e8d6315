//! `relevo status --check`: the state of the pair as monitoring takes it, in a line and an exit status (0 OK, 1 WARNING,
//! 2 CRITICAL, 3 UNKNOWN, as plugins of Nagios and its kin have it). Pure.

use relevo_ha::State;

use super::StatusError;
use crate::cli::control;
use crate::status::{BalancerState, NodeStatus, PairStatus, ServerState, rivalries};

/// How bad it is; the number is the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

/// What is so, and how bad that is: everything that is wrong, the worst first.
pub(super) fn judge(asked: &Result<PairStatus, StatusError>) -> (Level, String) {
    let pair = match asked {
        Ok(pair) => pair,
        Err(error @ StatusError::Control(control::Error::NotRunning(_))) => {
            return (Level::Critical, format!("CRITICAL: {error}\n"));
        }
        Err(error) => return (Level::Unknown, format!("UNKNOWN: {error}\n")),
    };
    let mut found = of_node(&pair.node);
    found.extend(of_pair(pair));
    found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let level = found.first().map_or(Level::Ok, |(level, _)| *level);
    let word = if level == Level::Critical { "CRITICAL" } else { "WARNING" };
    let text = match found.is_empty() {
        true => format!("OK: {}", summary(pair)),
        false => format!("{word}: {}", found.into_iter().map(|(_, what)| what).collect::<Vec<_>>().join("; ")),
    };
    // One line: what is wrong may come from a server or a peer.
    (level, text.replace(['\n', '|'], " ") + "\n")
}

fn of_node(node: &NodeStatus) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    if node.balancer.state != BalancerState::Serving {
        found.push((Level::Critical, format!("the balancer of {} is {}", node.node, node.balancer.state)));
    }
    for router in &node.vrrp {
        if !matches!(router.state, State::Active | State::Backup) {
            found.push((
                Level::Critical,
                format!("virtual router {} is {}: {}", router.name, router.state, router.reason),
            ));
        }
        for other in &router.other_routers {
            found.push((
                Level::Warning,
                format!("{} uses the VRID of {} for other addresses", other.source, router.name),
            ));
        }
    }
    for backend in &node.backends {
        let down = |level, what: &str| (level, format!("backend {} {what}", backend.name));
        let count = |state| backend.servers.iter().filter(|server| server.state == state).count();
        let fallen = count(ServerState::Down);
        match (count(ServerState::Up), fallen) {
            (_, 0) => {}
            (0, _) => found.push(down(Level::Critical, "has no server up")),
            (_, fallen) => {
                found.push(down(Level::Warning, &format!("has {fallen} of {} servers down", backend.servers.len())))
            }
        }
    }
    let sentences = node.foreign_addresses.iter().chain(&node.file_differs);
    found.extend(sentences.map(|sentence| (Level::Warning, sentence.clone())));
    found
}

fn of_pair(pair: &PairStatus) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    for peer in &pair.peers {
        let name = &peer.name;
        if !peer.connected {
            found.push((Level::Warning, format!("no link to {name}: {}", peer.link_error)));
            continue;
        }
        if !peer.status.can_take_over {
            found.push((
                Level::Warning,
                format!("{name} could not take over: {}", peer.status.cannot_take_over_because),
            ));
        }
        if !peer.config_matches {
            found.push((Level::Warning, format!("the configuration of {name} is another one")));
        }
    }
    for rivalry in rivalries(&pair.node.vrrp, &pair.peers) {
        found.push((Level::Critical, format!("both nodes are active for {}", rivalry.object())));
    }
    found
}

fn summary(pair: &PairStatus) -> String {
    let routers =
        pair.node.vrrp.iter().map(|router| format!("{} is {} for {}", pair.node.node, router.state, router.name));
    let peers = pair.peers.iter().map(|peer| format!("{} could take over", peer.name));
    let servers = || pair.node.backends.iter().flat_map(|backend| &backend.servers);
    let up = servers().filter(|server| server.state == ServerState::Up).count();
    let servers = format!("{up} of {} servers up", servers().count());
    routers.chain(peers).chain([servers]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use relevo_ha::RouterStatus;

    use super::*;
    use crate::status::{BackendStatus, PeerStatus, ServerStatus};

    fn pair() -> PairStatus {
        let router =
            |state| RouterStatus { name: "main".into(), virtual_router_id: 71, state, ..RouterStatus::default() };
        let server = |state| ServerStatus { state, ..ServerStatus::default() };
        let servers = vec![server(ServerState::Up), server(ServerState::Up)];
        let mut pair = PairStatus::default();
        pair.node.node = "lb1".into();
        pair.node.balancer.state = BalancerState::Serving;
        pair.node.vrrp = vec![router(State::Active)];
        pair.node.backends = vec![BackendStatus { name: "app".into(), servers, ..BackendStatus::default() }];
        let mut peer =
            PeerStatus { name: "lb2".into(), connected: true, config_matches: true, ..PeerStatus::default() };
        peer.status.can_take_over = true;
        peer.status.vrrp = vec![router(State::Backup)];
        pair.peers = vec![peer];
        pair
    }

    fn judged(change: impl FnOnce(&mut PairStatus)) -> (Level, String) {
        let mut pair = pair();
        change(&mut pair);
        judge(&Ok(pair))
    }

    #[test]
    fn a_pair_that_is_well_is_ok() {
        let line = "OK: lb1 is active for main, lb2 could take over, 2 of 2 servers up\n";
        assert_eq!(judged(|_| ()), (Level::Ok, line.to_owned()));
    }

    #[test]
    fn what_is_wrong_is_as_bad_as_it_is_for_clients() {
        type Change = fn(&mut PairStatus);
        let rows: [(Change, Level, &str); 8] = [
            (|pair| pair.node.balancer.state = BalancerState::Down, Level::Critical, "the balancer of lb1 is down"),
            (|pair| pair.node.vrrp[0].state = State::Fault, Level::Critical, "virtual router main is fault"),
            (
                |pair| pair.node.backends[0].servers.iter_mut().for_each(|it| it.state = ServerState::Down),
                Level::Critical,
                "backend app has no server up",
            ),
            (
                |pair| pair.node.backends[0].servers[0].state = ServerState::Down,
                Level::Warning,
                "backend app has 1 of 2 servers down",
            ),
            (|pair| pair.peers[0].connected = false, Level::Warning, "no link to lb2"),
            (|pair| pair.peers[0].status.can_take_over = false, Level::Warning, "lb2 could not take over"),
            (|pair| pair.peers[0].config_matches = false, Level::Warning, "the configuration of lb2 is another one"),
            (
                |pair| pair.node.file_differs = Some("relevo.toml is not\nwhat runs".into()),
                Level::Warning,
                "relevo.toml is not what runs",
            ),
        ];
        for (change, expected, words) in rows {
            let (level, line) = judged(change);
            assert!(level == expected && line.contains(words) && line.lines().count() == 1, "{level:?} {line}");
        }
    }

    #[test]
    fn the_worst_comes_first() {
        let (level, line) = judged(|pair| {
            pair.peers[0].connected = false;
            pair.node.balancer.state = BalancerState::Down;
        });
        assert_eq!(level, Level::Critical);
        assert!(line.starts_with("CRITICAL: the balancer of lb1 is down; no link to lb2"), "{line}");
    }
}
