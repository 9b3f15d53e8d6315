//! Could the nodes stand in for each other, and what keeps them from it.

use relevo_ha::{RouterStatus, State};

use super::{Colour, Text};
use crate::status::{BalancerState, NodeStatus, PairStatus};

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
        for peer in &pair.peers {
            if peer.connected {
                self.could_take_over(&peer.name, &peer.status);
            } else {
                let unknown = self.paint("not known", Colour::Middling);
                self.line(format!(
                    "takeover: {unknown} of {}, whose peer link is down for the reason above; the adverts alone decide",
                    peer.name
                ));
            }
        }
        for peer in pair.peers.iter().filter(|peer| peer.connected) {
            let too = |own: &&RouterStatus| {
                active(&peer.status).any(|router| router.virtual_router_id == own.virtual_router_id)
            };
            for router in active(&pair.node).filter(too) {
                let both = self.paint("are both active", Colour::Bad);
                let (own, name) = (&pair.node.node, &peer.name);
                self.line(format!(
                    "takeover: {own} and {name} {both} on {}: no advert passes between them; see the network of {}, and \
                     whether a firewall drops VRRP (IP protocol 112)",
                    router.name, router.interface
                ));
            }
        }
        self.equal_priorities(pair);
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
