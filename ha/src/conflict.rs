//! Hosts that answer for a virtual address and are no node: whose MAC address is it? Pure.
//!
//! A node is known by its MAC address, and that by the address that its adverts come from: where a claim is heard of a MAC
//! address that is not known yet, the nodes are asked for theirs, and only a claim that is heard again after that is a
//! conflict. So a node that has just taken over is none.

use std::net::Ipv4Addr;
use std::time::Duration;

use tracing::{error, info};

use crate::election::Time;
use crate::router::{AddressConflict, VirtualRouter};

/// Between two probes (RFC 5227 §2.1.1) of a backup.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// The same, while it is open whose a MAC address is.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// A claim that was heard no later than this ago is one that is made now.
const FRESH: Duration = Duration::from_secs(3);
/// A conflict is over when nothing was heard of it for more than two probes.
const OVER: Duration = Duration::from_secs(75);
/// So many MAC addresses are remembered, of nodes and of others.
const MOST: usize = 32;

/// An ARP packet's sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) address: Ipv4Addr,
    pub(crate) hardware_address: [u8; 6],
}

/// What was heard.
#[derive(Debug, Default)]
pub(crate) struct Conflicts {
    /// MAC addresses of nodes.
    nodes: Vec<[u8; 6]>,
    claims: Vec<Claim>,
    asked_at: Option<Time>,
}

#[derive(Debug)]
struct Claim {
    sender: Sender,
    first: Time,
    last: Time,
    is_told: bool,
}

impl Conflicts {
    /// A packet; `own` is this interface's MAC address, `nodes` are the addresses that are nodes' own.
    pub(crate) fn hear(
        &mut self,
        sender: Sender,
        router: &VirtualRouter,
        own: Option<[u8; 6]>,
        nodes: &[Ipv4Addr],
        now: Time,
    ) {
        let Sender { address, hardware_address } = sender;
        if nodes.contains(&address) {
            self.learn(hardware_address);
            return;
        }
        let is_ours = Some(hardware_address) == own
            || hardware_address == virtual_mac(router)
            || self.nodes.contains(&hardware_address);
        if is_ours || !router.addresses.iter().any(|virtual_address| virtual_address.address == address) {
            return;
        }
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.sender == sender) {
            claim.last = now;
        } else if self.claims.len() < MOST {
            self.claims.push(Claim { sender, first: now, last: now, is_told: false });
        }
    }

    fn learn(&mut self, hardware_address: [u8; 6]) {
        self.claims.retain(|claim| claim.sender.hardware_address != hardware_address);
        if self.nodes.contains(&hardware_address) {
            return;
        }
        if self.nodes.len() >= MOST {
            self.nodes.remove(0);
        }
        self.nodes.push(hardware_address);
    }

    /// The virtual addresses and those of the nodes were asked for.
    pub(crate) fn asked(&mut self, now: Time) {
        self.asked_at = Some(now);
    }

    /// Whether it is time to ask. An active router, which need not, does so only while it has heard a claim.
    pub(crate) fn is_due(&self, is_active: bool, now: Time) -> bool {
        if is_active && self.claims.is_empty() {
            return false;
        }
        let is_in_doubt = self.claims.iter().any(|claim| !claim.is_told);
        let interval = if is_in_doubt { DOUBT_INTERVAL } else { PROBE_INTERVAL };
        self.asked_at.is_none_or(|asked_at| now >= asked_at + interval)
    }

    /// Tells what is a conflict by now, and forgets what is none any more.
    pub(crate) fn look(&mut self, router: &VirtualRouter, now: Time) {
        let VirtualRouter { name, interface, .. } = router;
        let asked_at = self.asked_at;
        for claim in self.claims.iter_mut().filter(|claim| !claim.is_told) {
            if asked_at.is_some_and(|asked_at| claim.first <= asked_at && asked_at < claim.last) {
                claim.tell(router);
            }
        }
        self.claims.retain(|claim| {
            let stays = now < claim.last + if claim.is_told { OVER } else { FRESH };
            if !stays && claim.is_told {
                let (address, mac) = (claim.sender.address, text(claim.sender.hardware_address));
                info!(router = name, interface, %address, mac, "no other host is heard any more that answers for a virtual address");
            }
            stays
        });
    }

    /// For a router that starts and hears no active one: the claim that is made now, in a sentence, and told.
    pub(crate) fn at_start(&mut self, router: &VirtualRouter, now: Time) -> Option<String> {
        let claim = self.claims.iter_mut().find(|claim| now < claim.last + FRESH)?;
        if !claim.is_told {
            claim.tell(router);
        }
        let Sender { address, hardware_address } = claim.sender;
        Some(format!("another host, of MAC address {}, answers for {address}", text(hardware_address)))
    }

    /// For the status.
    pub(crate) fn shown(&self) -> Vec<AddressConflict> {
        let conflict = |claim: &Claim| {
            let Sender { address, hardware_address } = claim.sender;
            AddressConflict { address, mac: text(hardware_address) }
        };
        self.claims.iter().filter(|claim| claim.is_told).map(conflict).collect()
    }
}

impl Claim {
    fn tell(&mut self, router: &VirtualRouter) {
        self.is_told = true;
        let VirtualRouter { name, interface, .. } = router;
        let (address, mac) = (self.sender.address, text(self.sender.hardware_address));
        error!(
            router = name, interface, %address, mac,
            "another host, which is no node, answers for a virtual address, and clients may reach it instead: find it by its MAC address, \
             and take the address from it"
        );
    }
}

/// RFC 9568 §7.3; who has it is a router of this VRID.
fn virtual_mac(router: &VirtualRouter) -> [u8; 6] {
    [0, 0, 0x5e, 0, 1, router.virtual_router_id.get()]
}

fn text(hardware_address: [u8; 6]) -> String {
    hardware_address.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::router::VirtualAddress;

    const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
    const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const STRANGER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x63];

    /// A router's ears, with a clock of seconds.
    struct Ears {
        conflicts: Conflicts,
        router: VirtualRouter,
    }

    impl Ears {
        fn new() -> Ears {
            let router = VirtualRouter {
                name: "main".to_owned(),
                interface: "eth1".to_owned(),
                virtual_router_id: NonZeroU8::new(51).unwrap(),
                priority: NonZeroU8::MIN,
                addresses: vec![VirtualAddress { address: VIRTUAL, prefix_length: 24 }],
                advertisement_interval: Duration::from_secs(1),
                preempt: true,
                unicast_peers: Vec::new(),
                obey_other_addresses: false,
            };
            Ears { conflicts: Conflicts::default(), router }
        }

        fn hear(&mut self, address: Ipv4Addr, hardware_address: [u8; 6], second: u64) {
            let sender = Sender { address, hardware_address };
            self.conflicts.hear(sender, &self.router, Some(OWN_MAC), &[NODE], at(second));
        }

        fn shown(&mut self, second: u64) -> Vec<String> {
            self.conflicts.look(&self.router, at(second));
            self.conflicts.shown().into_iter().map(|conflict| conflict.mac).collect()
        }
    }

    fn at(second: u64) -> Time {
        Time(1_000_000 * second)
    }

    #[test]
    fn a_stranger_that_answers_again_after_the_nodes_were_asked_is_a_conflict_until_it_is_silent() {
        let mut ears = Ears::new();
        ears.hear(VIRTUAL, STRANGER_MAC, 1);
        assert!(ears.shown(1).is_empty(), "it may be a node's");
        assert!(ears.conflicts.is_due(true, at(1)), "so the nodes are asked");
        ears.conflicts.asked(at(1));
        assert!(!ears.conflicts.is_due(false, at(1)));
        ears.hear(NODE, NODE_MAC, 2);
        ears.hear(VIRTUAL, STRANGER_MAC, 2);
        assert_eq!(ears.shown(2), ["02:00:00:00:00:63"]);
        assert_eq!(ears.shown(76), ["02:00:00:00:00:63"]);
        assert!(ears.shown(77).is_empty());
    }

    #[test]
    fn a_node_is_none_whether_it_is_known_before_or_after() {
        let mut ears = Ears::new();
        ears.hear(VIRTUAL, NODE_MAC, 1);
        ears.conflicts.asked(at(1));
        ears.hear(VIRTUAL, NODE_MAC, 2);
        ears.hear(NODE, NODE_MAC, 2);
        assert!(ears.shown(2).is_empty());
        ears.hear(VIRTUAL, NODE_MAC, 3);
        assert!(ears.conflicts.at_start(&ears.router, at(3)).is_none());
        assert!(!ears.conflicts.is_due(true, at(3)), "nothing is open");
    }

    #[test]
    fn a_virtual_mac_of_the_same_vrid_and_our_own_are_none_and_that_of_another_vrid_is_one() {
        let mut ears = Ears::new();
        for mac in [OWN_MAC, [0, 0, 0x5e, 0, 1, 51]] {
            ears.hear(VIRTUAL, mac, 1);
            assert!(ears.conflicts.at_start(&ears.router, at(1)).is_none(), "{mac:?}");
        }
        ears.hear(VIRTUAL, [0, 0, 0x5e, 0, 1, 52], 1);
        let reason = ears.conflicts.at_start(&ears.router, at(1));
        assert_eq!(reason.unwrap(), "another host, of MAC address 00:00:5e:00:01:34, answers for 192.0.2.20");
    }

    #[test]
    fn one_claim_alone_is_forgotten_and_holds_no_start_back_later() {
        let mut ears = Ears::new();
        ears.hear(VIRTUAL, STRANGER_MAC, 1);
        ears.conflicts.asked(at(1));
        assert!(ears.shown(4).is_empty());
        assert!(ears.conflicts.at_start(&ears.router, at(4)).is_none());
        assert!(!ears.conflicts.is_due(false, at(5)));
        assert!(ears.conflicts.is_due(false, at(31)) && !ears.conflicts.is_due(true, at(31)), "a backup alone probes");
    }

    #[test]
    fn other_addresses_are_nobodys_concern_and_a_flood_of_senders_ends() {
        let mut ears = Ears::new();
        ears.hear(Ipv4Addr::new(192, 0, 2, 21), STRANGER_MAC, 1);
        ears.hear(Ipv4Addr::UNSPECIFIED, STRANGER_MAC, 1);
        assert!(ears.conflicts.claims.is_empty());
        for last in 10..=255 {
            ears.hear(VIRTUAL, [2, 0, 0, 0, 0, last], 1);
        }
        assert_eq!(ears.conflicts.claims.len(), MOST);
    }
}
