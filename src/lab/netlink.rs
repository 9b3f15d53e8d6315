//! One request to the kernel's routing socket and its answer, in the namespace of the calling thread.

use std::io;
use std::net::Ipv4Addr;

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec};

use super::error::{Context, Result};

/// Sends it and waits for the acknowledgement.
pub(super) fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

/// Flags of a request that makes something new.
pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The number of an interface.
pub(super) fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).context(|| format!("cannot find the interface {name}"))
}

/// Makes an interface.
pub(super) fn add_link(link: rtnetlink::packet_route::link::LinkMessage, what: &str) -> Result<()> {
    request(RouteNetlinkMessage::NewLink(link), NEW).context(|| format!("cannot make {what}"))
}

/// Changes an interface.
pub(super) fn change_link(
    name: &str,
    change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
) -> Result<()> {
    let link = change(LinkUnspec::new_with_index(index(name)?)).build();
    request(RouteNetlinkMessage::SetLink(link), 0).context(|| format!("cannot change the interface {name}"))
}

/// Administratively up.
pub(super) fn set_up(name: &str) -> Result<()> {
    change_link(name, LinkMessageBuilder::up)
}

/// Gives an interface an address.
pub(super) fn add_address(interface: &str, address: Ipv4Addr, prefix_length: u8) -> Result<()> {
    let message =
        AddressMessageBuilder::<Ipv4Addr>::new().index(index(interface)?).address(address, prefix_length).build();
    request(RouteNetlinkMessage::NewAddress(message), NEW)
        .context(|| format!("cannot give {interface} the address {address}/{prefix_length}"))
}

/// Takes an address from an interface.
#[cfg(test)]
pub(super) fn remove_address(interface: &str, address: Ipv4Addr, prefix_length: u8) -> Result<()> {
    let message =
        AddressMessageBuilder::<Ipv4Addr>::new().index(index(interface)?).address(address, prefix_length).build();
    request(RouteNetlinkMessage::DelAddress(message), 0)
        .context(|| format!("cannot take the address {address} from {interface}"))
}
