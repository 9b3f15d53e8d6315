//! Could the nodes stand in for each other, and what keeps them from it.

use relevo_ha::{RouterStatus, State};

use super::{Colour, Text};
use crate::status::{BackendStatus, BalancerState, NodeStatus, PairStatus, PeerStatus, ServerState, rivalries};

impl Text {
    /// What would happen now if a node failed, and whether both run the same configuration.
    pub(super) fn takeover(&mut self, pair: &PairStatus) {
        if pair.peers.is_empty() {
            self.line(match pair.node.vrrp.is_empty() {
                true => "takeover: none, this node has no [vrrp]: it serves on its own, and no other stands in for it",
                false => "takeover: not known, this node has no [peering] to ask its peers; the adverts alone decide",
            });
            return;
        }
        self.could_take_over(&pair.node.node, &pair.node);
        self.peers_could_take_over(pair);
        for rivalry in rivalries(&pair.node.vrrp, &pair.peers) {
            let both = self.paint("are both active", Colour::Bad);
            let (own, name, object) = (&pair.node.node, &rivalry.peer.name, rivalry.object());
            self.line(format!("takeover: {own} and {name} {both} for {object}: {}", rivalry.remedy(own)));
        }
        self.servers_out_of_reach(pair);
        self.equal_priorities(pair);
        for peer in &pair.peers {
            let (own, name) = (&pair.node.node, &peer.name);
            let verdict = match (peer.connected, peer.config_matches) {
                (true, true) => self.paint("the same", Colour::Good) + &format!(" on {own} and {name}"),
                (true, false) => {
                    self.paint("differs", Colour::Bad)
                        + &format!(
                            " between {own} and {name}: make both files agree (`relevo check` prints their digest) and \
                             run `relevo reload` on both"
                        )
                }
                (false, _) => format!("that of {name} is not known while its link is down"),
            };
            self.line(format!("configuration: {verdict}"));
        }
    }

    fn peers_could_take_over(&mut self, pair: &PairStatus) {
        let holds = active(&pair.node).next().is_some();
        let is_gone = |peer: &PeerStatus| peer.gone && !is_heard(peer, &pair.node);
        if holds && pair.peers.iter().all(is_gone) {
            let nobody = self.paint("nobody could take over", Colour::Bad);
            let reasons: Vec<_> = pair.peers.iter().map(absence).collect();
            return self.line(format!("takeover: {nobody}: {}", reasons.join("; ")));
        }
        for peer in &pair.peers {
            if peer.outdated && peer.connected {
                let unknown = self.paint("not known", Colour::Middling);
                let because = &peer.status.cannot_take_over_because;
                self.line(format!("takeover: {unknown} of {}: {because}", peer.name));
            } else if peer.connected {
                self.could_take_over(&peer.name, &peer.status);
            } else if is_gone(peer) {
                let obstacle = self.paint("could not take over now", Colour::Bad);
                self.line(format!("takeover: {} {obstacle}: {}", peer.name, absence(peer)));
            } else {
                let unknown = self.paint("not known", Colour::Middling);
                let adverts =
                    if is_heard(peer, &pair.node) { "its adverts are heard, and they" } else { "the adverts" };
                self.line(format!(
                    "takeover: {unknown} of {}, whose peer link is down for the reason above; {adverts} alone decide",
                    peer.name
                ));
            }
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
            let held: Vec<_> = active(node).map(|router| router.name.as_str()).collect();
            let obstacle = match (held.as_slice(), node.balancer.state) {
                ([], _) => self.paint("could not take over now", Colour::Bad),
                (_, BalancerState::Serving) => {
                    let others = self.paint("could not take over the rest now", Colour::Bad);
                    format!("is active for {} and {others}", held.join(", "))
                }
                // It holds on where no other node could serve either.
                _ => format!("is active and {}", self.paint("serves nobody", Colour::Bad)),
            };
            format!("{name} {obstacle}: {because}")
        };
        self.line(format!("takeover: {verdict}"));
    }

    /// The address does not follow the servers; so somebody has to be told.
    fn servers_out_of_reach(&mut self, pair: &PairStatus) {
        let connected = pair.peers.iter().filter(|peer| peer.connected && !peer.outdated);
        let nodes: Vec<_> = std::iter::once((&pair.node.node, &pair.node))
            .chain(connected.map(|peer| (&peer.name, &peer.status)))
            .collect();
        for (name, node) in nodes.iter().filter(|(_, node)| active(node).next().is_some()) {
            for backend in node.backends.iter().filter(|backend| reach(backend).is_none_at_all()) {
                let others = nodes.iter().filter(|(other, _)| other != name).filter_map(|(other, node)| {
                    let its = reach(node.backends.iter().find(|its| its.name == backend.name)?);
                    (its.up > 0).then(|| format!("{other} reaches {} of {}", its.up, its.all))
                });
                let others: Vec<_> = others.collect();
                if !others.is_empty() {
                    let none = self.paint("reaches no server", Colour::Bad);
                    self.line(format!(
                        "servers: {name} is active and {none} of {}; {}",
                        backend.name,
                        others.join(", ")
                    ));
                }
            }
        }
    }

    fn equal_priorities(&mut self, pair: &PairStatus) {
        for peer in pair.peers.iter().filter(|peer| peer.connected) {
            for own in &pair.node.vrrp {
                let is_equal = |its: &&RouterStatus| {
                    (its.virtual_router_id, its.priority) == (own.virtual_router_id, own.priority)
                };
                if peer.status.vrrp.iter().any(|its| is_equal(&its)) {
                    let equal = self.paint("equal", Colour::Middling);
                    let (priority, node, name, router) = (own.priority, &pair.node.node, &peer.name, &own.name);
                    self.line(format!(
                        "priority: {equal}, {priority} on {node} and {name} for {router}: give the node that should be \
                         active a higher one"
                    ));
                }
            }
        }
    }
}

fn active(node: &NodeStatus) -> impl Iterator<Item = &RouterStatus> {
    node.vrrp.iter().filter(|router| router.state == State::Active)
}

/// Does this node hear its adverts, whatever became of its link?
fn is_heard(peer: &PeerStatus, node: &NodeStatus) -> bool {
    let is_active = |own: &RouterStatus| {
        own.state == State::Backup
            && own.active_router.is_some()
            && peer.status.vrrp.iter().any(|its| its.own_address == own.active_router)
    };
    node.vrrp.iter().any(is_active)
}

fn absence(peer: &PeerStatus) -> String {
    match peer.goodbye.as_str() {
        "" => format!("the keeper of {} has ended, and nothing listens where it did", peer.name),
        reason => format!("{} stopped: {reason}", peer.name),
    }
}

/// The servers of a backend as one node sees them.
struct Reach {
    up: usize,
    down: usize,
    all: usize,
}

impl Reach {
    /// Servers that people have taken out of service are not out of reach.
    fn is_none_at_all(&self) -> bool {
        self.up == 0 && self.down > 0
    }
}

fn reach(backend: &BackendStatus) -> Reach {
    let count = |state| backend.servers.iter().filter(|server| server.state == state).count();
    Reach { up: count(ServerState::Up), down: count(ServerState::Down), all: backend.servers.len() }
}
