//! What a virtual router does about hosts that answer for its addresses: it asks, hears, tells; and while it starts, and no active
//! router is heard, it stays away from an address that another host has.

use std::net::Ipv4Addr;

use super::Instance;
use crate::clock;
use crate::router::State;

/// Packets read at one go.
const BATCH: usize = 64;

impl Instance {
    /// Asks for the virtual addresses, and for those of the nodes, whose MAC addresses tell their answers from others'.
    pub(super) fn probe(&mut self) {
        let nodes = self.addresses_of_nodes();
        self.listen(&nodes);
        let Some(sockets) = &self.sockets else { return };
        let Some(hardware_address) = sockets.interface.hardware_address else { return };
        let own = |address: &&Ipv4Addr| **address == sockets.interface.own_address;
        // Where it cannot be asked nothing is known, and nothing depends on it.
        let ask = |address: Ipv4Addr| drop(sockets.prober.probe(address, hardware_address));
        self.router.addresses.iter().for_each(|virtual_address| ask(virtual_address.address));
        nodes.iter().filter(|node| !own(node)).for_each(|&node| ask(node));
        self.conflicts.asked(clock::now());
    }

    /// Once a second.
    pub(super) fn look_for_claims(&mut self) {
        self.hear_claims();
        let now = clock::now();
        self.conflicts.look(&self.router, now);
        if self.held_back && self.conflicts.at_start(&self.router, now).is_none() {
            self.held_back = false;
            self.follow_interface();
        }
        let state = self.shown.state;
        let takes_part = matches!(state, State::Backup | State::Active);
        if self.held_back || (takes_part && self.conflicts.is_due(state == State::Active, now)) {
            self.probe();
        }
        self.shown.address_conflicts = self.conflicts.shown();
    }

    /// Whether this router, which would become active now, is to stay away: it starts, has heard no active router, and another host
    /// has an address. One that takes over from another is never kept.
    pub(super) fn is_held_back(&mut self) -> bool {
        if !self.is_starting || self.shown.state != State::Backup {
            return false;
        }
        self.hear_claims();
        let Some(reason) = self.conflicts.at_start(&self.router, clock::now()) else { return false };
        self.held_back = true;
        self.shown.address_conflicts = self.conflicts.shown();
        self.link_down(reason);
        true
    }

    /// A router of ours is active: what answers for the addresses is its affair.
    pub(super) fn active_one_heard(&mut self, source: Ipv4Addr) {
        self.is_starting = false;
        if !self.routers_heard.contains(&source) && self.routers_heard.len() < BATCH {
            self.routers_heard.push(source);
        }
        if std::mem::take(&mut self.held_back) {
            self.follow_interface();
        }
    }

    fn hear_claims(&mut self) {
        let nodes = self.addresses_of_nodes();
        self.listen(&nodes);
        let Some(sockets) = &self.sockets else { return };
        let now = clock::now();
        for sender in (0..BATCH).map_while(|_| sockets.prober.waiting()).flatten() {
            self.conflicts.hear(sender, &self.router, sockets.interface.hardware_address, &nodes, now);
        }
    }

    fn listen(&mut self, nodes: &[Ipv4Addr]) {
        let Some(sockets) = &mut self.sockets else { return };
        let virtual_addresses = self.router.addresses.iter().map(|virtual_address| virtual_address.address);
        let addresses: Vec<_> = virtual_addresses.chain(nodes.iter().copied()).collect();
        // What is not heard is not known.
        let _ = sockets.prober.listen_for(&addresses);
    }

    /// Those that are nodes' own, as far as they are known.
    fn addresses_of_nodes(&self) -> Vec<Ipv4Addr> {
        let own = self.sockets.iter().map(|sockets| sockets.interface.own_address);
        let others = [&self.nodes[..], &self.router.unicast_peers, &self.routers_heard].concat();
        let mut nodes: Vec<_> = own.chain(others).collect();
        nodes.sort_unstable();
        nodes.dedup();
        // Somebody who sends adverts from a virtual address makes nobody a node.
        nodes.retain(|node| !self.router.addresses.iter().any(|virtual_address| virtual_address.address == *node));
        nodes
    }
}
