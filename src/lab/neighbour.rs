//! A client's neighbour cache: what it believes about who has an address.

use std::net::Ipv4Addr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::{Context, Result};
use super::namespace::Namespace;
use super::netlink;
use super::network::INTERFACE;

/// Forgets `address`: the next packet to it asks who has it. No entry is success.
pub fn forget(namespace: &Namespace, address: Ipv4Addr) -> Result<()> {
    namespace.run(|| {
        let message = entry(address, NeighbourState::None)?;
        match netlink::request(RouteNetlinkMessage::DelNeighbour(message), 0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.context(|| format!("cannot forget the neighbour {address}")),
        }
    })?
}

/// Believes that `mac` has `address`, without having heard it lately.
pub fn believe(namespace: &Namespace, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
    namespace.run(|| {
        let mut message = entry(address, NeighbourState::Stale)?;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        netlink::request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .context(|| format!("cannot enter the neighbour {address}"))
    })?
}

fn entry(address: Ipv4Addr, state: NeighbourState) -> Result<NeighbourMessage> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = netlink::index(INTERFACE)?;
    message.header.state = state;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    Ok(message)
}
