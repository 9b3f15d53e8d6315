//! What the elections are told of this node: whether it may be active, and whether it may take the addresses from others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use relevo_ha::{RouterStatus, State};
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::readiness::{self, Means, Readiness, Rival, Situation};
use super::{Keeper, view};
use crate::config::model::Config;
use crate::status::{BalancerState, PeerStatus};

/// What they were told last, and what it follows from.
#[derive(Default)]
pub(super) struct Standing {
    is_eligible: bool,
    readiness: Readiness,
    /// By name of the virtual router.
    ready: BTreeMap<String, Result<(), String>>,
    /// From what address each router, by its name, sent its adverts when it last could.
    own_addresses: BTreeMap<String, Ipv4Addr>,
    /// Addresses of the other nodes.
    nodes: BTreeSet<Ipv4Addr>,
}

impl Standing {
    /// As the file says.
    pub(super) fn new(config: &Config) -> Self {
        Self { nodes: addresses_of_peers(config), ..Self::default() }
    }

    pub(super) fn nodes(&self) -> Vec<Ipv4Addr> {
        self.nodes.iter().copied().collect()
    }

    /// When readiness is to be looked at, though nothing happens. Cancel-safe.
    pub(super) async fn is_due(&self) {
        match self.readiness.deadline() {
            Some(deadline) => sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }
}

impl Keeper {
    /// A balancer serves that did not before.
    pub(super) fn stands_by(&mut self) {
        self.standing.readiness.serves(Instant::now(), readiness::patience(&self.config.balancer));
        // Whoever is not ready is to be so from the first moment.
        self.decide_readiness();
        self.decide_eligibility("");
    }

    /// Without a balancer the node gives its addresses up, for this reason, unless that would help nobody; once it has, it
    /// does not reach for them again before it serves.
    pub(super) fn decide_eligibility(&mut self, reason: &str) {
        let serves = self.serves_now();
        if serves == self.standing.is_eligible || (!serves && self.may_hold_on()) {
            return;
        }
        self.driver.set_eligible(if serves { Ok(()) } else { Err(reason.to_owned()) });
        self.standing.is_eligible = serves;
    }

    pub(super) fn is_eligible(&self) -> bool {
        self.standing.is_eligible
    }

    fn may_hold_on(&self) -> bool {
        let peers = self.peers.as_ref().map(watch::Receiver::borrow);
        view::may_hold_on(&self.routers.borrow(), peers.as_deref().map(Vec::as_slice))
    }

    fn serves_now(&self) -> bool {
        self.balancer.status().state == BalancerState::Serving
    }

    /// Has servers checked when something has come back, and tells each election whether this node may take the addresses from
    /// one that works.
    pub(super) fn decide_readiness(&mut self) {
        let Standing { readiness, ready, .. } = &mut self.standing;
        let routers = self.routers.borrow();
        let peers = self.peers.as_ref().map(watch::Receiver::borrow);
        let peers = peers.as_deref().map_or(&[][..], Vec::as_slice);
        let now = Instant::now();
        if let Some(round) = readiness.look(means(&routers, peers), now, readiness::patience(&self.config.balancer)) {
            self.balancer.check_again(round);
        }
        readiness.checked(self.balancer.checked(), now);
        for router in routers.iter() {
            let rivals: Vec<_> = rivals(router.virtual_router_id, peers).collect();
            let judged = readiness.judge(&Situation {
                is_active: router.state == State::Active,
                backends: self.balancer.backends(),
                rivals: &rivals,
            });
            if ready.get(&router.name).unwrap_or(&Ok(())) != &judged {
                self.driver.set_ready(&router.name, judged.clone());
                ready.insert(router.name.clone(), judged);
            }
        }
    }

    /// The balancer is told which of this host's addresses are cut off.
    pub(super) fn know_what_is_cut_off(&mut self) {
        let cut_off = cut_off(&mut self.standing.own_addresses, &self.routers.borrow());
        self.balancer.cut_off(cut_off.into_iter().map(IpAddr::V4).collect());
    }

    /// What linked peers have told of their own addresses stays true when the link is lost.
    pub(super) fn know_nodes(&mut self) {
        let Some(peers) = &self.peers else { return };
        let (peers, nodes) = (peers.borrow(), &mut self.standing.nodes);
        let known = nodes.len();
        let linked = peers.iter().filter(|peer| peer.connected);
        nodes.extend(linked.flat_map(|peer| peer.status.vrrp.iter().filter_map(|router| router.own_address)));
        if nodes.len() > known {
            self.driver.set_nodes(&self.standing.nodes());
        }
    }
}

/// Own addresses of interfaces that carry nothing now, as they were when that was otherwise.
fn cut_off(own_addresses: &mut BTreeMap<String, Ipv4Addr>, routers: &[RouterStatus]) -> BTreeSet<Ipv4Addr> {
    let with_address = routers.iter().filter_map(|router| Some((router.name.clone(), router.own_address?)));
    own_addresses.extend(with_address);
    let are_cut_off = routers.iter().filter(|router| router.own_address.is_none());
    are_cut_off.filter_map(|router| own_addresses.get(&router.name).copied()).collect()
}

/// What is there of what this node needs.
fn means(routers: &[RouterStatus], peers: &[PeerStatus]) -> BTreeSet<Means> {
    let usable = routers.iter().filter(|router| router.own_address.is_some());
    let linked = peers.iter().filter(|peer| peer.connected);
    let interfaces = usable.map(|router| Means::Interface(router.name.clone()));
    interfaces.chain(linked.map(|peer| Means::Link(peer.name.clone()))).collect()
}

/// Peers that are active in this virtual router, or may be by now, as far as is known: the link to them was lost, and they
/// are not known to be gone.
fn rivals(virtual_router_id: u8, peers: &[PeerStatus]) -> impl Iterator<Item = Rival<'_>> {
    let is_active = move |peer: &PeerStatus| {
        let mut routers = peer.status.vrrp.iter();
        routers.any(|its| its.virtual_router_id == virtual_router_id && its.state == State::Active)
    };
    let is_lost = |peer: &PeerStatus| !peer.connected && !peer.gone && peer.goodbye.is_empty();
    let may_be_active = move |peer: &&PeerStatus| is_lost(peer) || (peer.connected && is_active(peer));
    peers.iter().filter(may_be_active).map(|peer| Rival {
        name: &peer.name,
        is_linked: peer.connected,
        backends: &peer.status.backends,
    })
}

/// Where the file says that they are.
fn addresses_of_peers(config: &Config) -> BTreeSet<Ipv4Addr> {
    let addresses = config.peering.iter().flat_map(|peering| peering.peers.values());
    let addresses = addresses.filter_map(|address| match address.ip().to_canonical() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VRID is one interface's own: on another interface the same number is another router.
    #[test]
    fn what_is_cut_off_is_the_address_of_the_interface_that_carries_nothing() {
        let router = |name: &str, last: Option<u8>| RouterStatus {
            name: name.to_owned(),
            virtual_router_id: 71,
            own_address: last.map(|last| Ipv4Addr::new(192, 0, 2, last)),
            ..RouterStatus::default()
        };
        let mut known = BTreeMap::new();
        assert!(cut_off(&mut known, &[router("inner", Some(1)), router("outer", Some(2))]).is_empty());
        let inner = cut_off(&mut known, &[router("inner", None), router("outer", Some(2))]);
        assert_eq!(Vec::from_iter(inner), [Ipv4Addr::new(192, 0, 2, 1)]);
        let outer = cut_off(&mut known, &[router("inner", Some(1)), router("outer", None)]);
        assert_eq!(Vec::from_iter(outer), [Ipv4Addr::new(192, 0, 2, 2)]);
    }
}
