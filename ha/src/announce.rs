//! Gratuitous ARP (RFC 9568 §6.4.1, RFC 5227 §3): tells a segment that an address now lives at this interface.

use std::io;
use std::net::Ipv4Addr;

use pnet::packet::MutablePacket;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet::util::MacAddr;
use socket2::Socket;

use crate::packet_socket;

const ETHERNET_HEADER: usize = MutableEthernetPacket::minimum_packet_size();
const FRAME: usize = ETHERNET_HEADER + MutableArpPacket::minimum_packet_size();

/// Announces on one interface.
#[derive(Debug)]
pub(crate) struct Announcer(Socket);

impl Announcer {
    pub(crate) fn open(interface_index: u32) -> io::Result<Announcer> {
        packet_socket::open(interface_index).map(Announcer)
    }

    /// Sends one announcement; never waits.
    pub(crate) fn announce(&self, address: Ipv4Addr, hardware_address: [u8; 6]) -> io::Result<()> {
        self.0.send(&request(hardware_address, address, address)).map(|_sent| ())
    }
}

/// A request to all. One whose sender and target are one address announces it: it is what every neighbour learns from.
pub(crate) fn request(hardware_address: [u8; 6], sender_address: Ipv4Addr, target: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let sender = MacAddr::from(hardware_address);
    if let Some(mut ethernet) = MutableEthernetPacket::new(&mut frame) {
        ethernet.set_destination(MacAddr::broadcast());
        ethernet.set_source(sender);
        ethernet.set_ethertype(EtherTypes::Arp);
        if let Some(mut arp) = MutableArpPacket::new(ethernet.payload_mut()) {
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(ArpOperations::Request);
            arp.set_sender_hw_addr(sender);
            arp.set_sender_proto_addr(sender_address);
            arp.set_target_proto_addr(target);
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_on_the_wire() {
        let address = Ipv4Addr::new(192, 168, 1, 20);
        let frame = request([2, 0, 0, 0, 0, 1], address, address);
        #[rustfmt::skip]
        assert_eq!(frame, [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // to all, from us, ARP
            0, 1, 0x08, 0x00, 6, 4, 0, 1,                                     // Ethernet, IPv4, request
            2, 0, 0, 0, 0, 1, 192, 168, 1, 20,                                // sender
            0, 0, 0, 0, 0, 0, 192, 168, 1, 20,                                // target
        ]);
    }
}
