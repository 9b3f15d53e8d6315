//! Packet sockets of one interface: one only sends, bound with protocol 0, so that no frame is ever queued for it; one hears the
//! ARP packets that a filter lets through.
#![allow(unsafe_code)]

use std::io;

use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// Opens it. What is sent on it must begin with the link layer's header.
pub(crate) fn open(interface_index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address(interface_index, 0)?)?;
    Ok(socket)
}

/// The same, for ARP packets in both directions. To close it waits for the kernel.
pub(crate) fn open_arp(interface_index: u32, filter: &[SockFilter]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(filter)?;
    socket.bind(&address(interface_index, libc::ETH_P_ARP as u16)?)?;
    Ok(socket)
}

fn address(interface_index: u32, protocol: u16) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the address types the storage is made for.
    let link_layer = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link_layer.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link_layer.sll_protocol = protocol.to_be();
    link_layer.sll_ifindex = i32::try_from(interface_index).map_err(io::Error::other)?;
    // SAFETY: the storage holds a `sockaddr_ll`, whose length this is.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}
