//! What a virtual router is (configuration) and what it is doing (status): the words shared by all of this crate.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A virtual router this node takes part in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualRouter {
    /// Its name on this node.
    pub name: String,
    /// The interface that adverts and virtual addresses live on.
    pub interface: String,
    /// VRID, 1–255 (RFC 9568 §5.2.3).
    pub virtual_router_id: NonZeroU8,
    /// 1–254, or 255 for the owner of the addresses (RFC 9568 §5.2.4).
    pub priority: NonZeroU8,
    /// At least one.
    pub addresses: Vec<VirtualAddress>,
    /// 10 ms to 40.95 s, whole centiseconds (RFC 9568 §5.2.7).
    pub advertisement_interval: Duration,
    /// Takes over from an active router of lower priority.
    pub preempt: bool,
    /// Empty: multicast.
    pub unicast_peers: Vec<Ipv4Addr>,
    /// Obeys adverts that list other addresses, whoever sends them.
    pub obey_other_addresses: bool,
}

/// An address that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct VirtualAddress {
    pub address: Ipv4Addr,
    pub prefix_length: u8,
}

impl std::fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

/// The role of a router in the election. `Fault` is ours: a router that cannot take part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "RFC 9568 §6.3")]
pub enum State {
    #[default]
    Init,
    Backup,
    Active,
    Fault,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Init => "init",
            State::Backup => "backup",
            State::Active => "active",
            State::Fault => "fault",
        })
    }
}

/// What a virtual router is doing, as `relevo status --json` prints it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouterStatus {
    /// Its name.
    pub name: String,
    /// VRID.
    pub virtual_router_id: u8,
    /// Where it lives.
    pub interface: String,
    /// Its role.
    pub state: State,
    /// As configured.
    pub priority: u8,
    /// As adverted; 0 in fault.
    pub effective_priority: u8,
    /// Why that is 1 for now, in a sentence.
    pub unready_because: Option<String>,
    /// With their prefix lengths.
    pub addresses: Vec<String>,
    /// The source address of this node's adverts, if it has one.
    pub own_address: Option<Ipv4Addr>,
    /// The source address of the active router's adverts, if it is known.
    pub active_router: Option<Ipv4Addr>,
    /// Since when in this state (RFC 3339, UTC).
    pub since: String,
    /// Why, in a sentence.
    pub reason: String,
    /// Changes of state since the start.
    pub transitions: u64,
    /// Sent.
    pub adverts_sent: u64,
    /// Could be sent to nobody.
    pub adverts_unsent: u64,
    /// Accepted.
    pub adverts_received: u64,
    /// Not valid, and ignored.
    pub adverts_rejected: u64,
    /// Of other installations, and ignored.
    pub adverts_of_others: u64,
    /// Other installations that use the same VRID for other addresses.
    pub other_routers: Vec<OtherRouter>,
    /// Hosts that are no nodes and answer for its addresses.
    pub address_conflicts: Vec<AddressConflict>,
}

/// A host that answers for a virtual address, and is no node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConflict {
    /// The virtual address.
    pub address: Ipv4Addr,
    /// Whose it is: `02:00:00:00:00:01`.
    pub mac: String,
}

/// A router that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherRouter {
    /// Where its adverts come from.
    pub source: Ipv4Addr,
    /// Of the last one.
    pub priority: u8,
    /// That it lists.
    pub addresses: Vec<Ipv4Addr>,
}
