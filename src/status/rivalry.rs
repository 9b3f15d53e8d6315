//! Two nodes that are both active for the same address. Pure.

use relevo_ha::{RouterStatus, State};

use super::PeerStatus;

/// A virtual router of this node and one of a peer: both are active, for an address that they share or by their VRID.
#[derive(Debug)]
pub struct Rivalry<'a> {
    /// This node's.
    pub own: &'a RouterStatus,
    /// The peer that says so.
    pub peer: &'a PeerStatus,
    /// The peer's.
    pub its: &'a RouterStatus,
}

/// Of this node's virtual routers with those of the peers that are heard: after this node took over, since a peer that died
/// suddenly has last said that it is active.
pub fn rivalries<'a>(
    routers: &'a [RouterStatus],
    peers: &'a [PeerStatus],
) -> impl Iterator<Item = Rivalry<'a>> + use<'a> {
    peers.iter().filter(|peer| peer.connected && !peer.outdated).flat_map(move |peer| {
        active(routers).flat_map(move |own| {
            let rivals = active(&peer.status.vrrp).map(move |its| Rivalry { own, peer, its });
            rivals.filter(|rivalry| rivalry.is_one_router() || rivalry.addresses().next().is_some())
        })
    })
}

impl Rivalry<'_> {
    /// What both are active for: `192.168.1.20`.
    pub fn object(&self) -> String {
        let addresses: Vec<_> = self.addresses().collect();
        if addresses.is_empty() { format!("virtual router {}", self.own.name) } else { addresses.join(", ") }
    }

    /// How it comes, and what to do. `node` is the name of this one.
    pub fn remedy(&self, node: &str) -> String {
        let (own, peer, its) = (self.own, &self.peer.name, self.its);
        if self.is_one_router() {
            return format!(
                "adverts do not arrive; let protocol 112 through the firewall (224.0.0.18 or the unicast peers), and see \
                 the network of {}",
                own.interface
            );
        }
        let (own, its) = (own.virtual_router_id, its.virtual_router_id);
        format!("VRID {own} on {node} and {its} on {peer} are two elections; make virtual_router_id the same on both")
    }

    fn is_one_router(&self) -> bool {
        self.own.virtual_router_id == self.its.virtual_router_id
    }

    /// Those they share; prefix lengths do not matter.
    fn addresses(&self) -> impl Iterator<Item = &str> {
        let its = |address: &&str| self.its.addresses.iter().any(|other| bare(other) == *address);
        self.own.addresses.iter().map(|address| bare(address)).filter(its)
    }
}

fn active(routers: &[RouterStatus]) -> impl Iterator<Item = &RouterStatus> {
    routers.iter().filter(|router| router.state == State::Active)
}

fn bare(address: &str) -> &str {
    address.split_once('/').map_or(address, |(address, _)| address)
}
