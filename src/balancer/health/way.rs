//! By which of this host's addresses a server is reached, to know whether that way is cut off.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::model::Server;

/// Does the way to a server begin at one of these addresses? Then it cannot be reached now, and nothing follows from that. Where
/// the kernel knows no way at all while something is cut off, that is why.
pub(super) fn is_cut_off(cut_off: &[IpAddr], server: &Server, address: SocketAddr) -> bool {
    if cut_off.is_empty() {
        return false;
    }
    let source = server.source.filter(|_| !server.source_is_virtual);
    source.map_or_else(|| first_hop(address), Ok).map_or(true, |source| cut_off.contains(&source))
}

/// The kernel chooses a source address for a socket that is only said to be connected: nothing is sent.
fn first_hop(address: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::state::tests::server;

    #[test]
    fn a_server_is_cut_off_where_its_way_begins_at_an_address_that_is() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1), 80));
        assert!(!is_cut_off(&[], &server("a", 1), address));
        assert!(!is_cut_off(&[other], &server("a", 1), address));
        assert!(is_cut_off(&[local], &server("a", 1), address));
        let from = Server { source: Some(other), ..server("a", 1) };
        assert!(is_cut_off(&[other], &from, address));
        assert!(!is_cut_off(&[local], &from, address));
    }
}
