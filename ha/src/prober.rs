//! Asks for an address by an ARP probe (RFC 5227 §2.1.1), and hears what senders of ARP packets say of some.

use std::io;
use std::net::Ipv4Addr;

use nix::unistd::read;
use pnet::packet::Packet as _;
use pnet::packet::arp::{ArpHardwareTypes, ArpPacket};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use socket2::{SockFilter, Socket};

use crate::announce::request;
use crate::conflict::Sender;
use crate::packet_socket;

/// So many addresses are listened for; the kernel takes no filter of any length.
const MOST_ADDRESSES: usize = 1000;
/// An ARP packet of Ethernet and IPv4, padded.
const LONGEST_FRAME: usize = 64;
/// Where a frame has the address of its sender.
const SENDER_ADDRESS: u32 = 28;

/// On one interface.
#[derive(Debug)]
pub(crate) struct Prober {
    socket: Socket,
    heard: Vec<Ipv4Addr>,
}

impl Prober {
    pub(crate) fn open(interface_index: u32) -> io::Result<Prober> {
        Ok(Prober { socket: packet_socket::open_arp(interface_index, &filter(&[]))?, heard: Vec::new() })
    }

    /// Of all senders those of these addresses are to be heard: the kernel drops the others, however many there are.
    pub(crate) fn listen_for(&mut self, addresses: &[Ipv4Addr]) -> io::Result<()> {
        if self.heard == addresses {
            return Ok(());
        }
        self.socket.attach_filter(&filter(addresses))?;
        self.heard = addresses.to_vec();
        Ok(())
    }

    /// Asks; never waits.
    pub(crate) fn probe(&self, address: Ipv4Addr, hardware_address: [u8; 6]) -> io::Result<()> {
        self.socket.send(&request(hardware_address, Ipv4Addr::UNSPECIFIED, address)).map(|_sent| ())
    }

    /// The sender of a packet that waits, if one does: the inner one of a packet that is ARP of Ethernet and IPv4.
    pub(crate) fn waiting(&self) -> Option<Option<Sender>> {
        let mut frame = [0; LONGEST_FRAME];
        let length = read(&self.socket, &mut frame).ok()?;
        Some(frame.get(..length).and_then(sender))
    }
}

fn filter(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut filter = vec![SockFilter::new(LOAD, 0, 0, SENDER_ADDRESS)];
    for &address in addresses.iter().take(MOST_ADDRESSES) {
        filter.push(SockFilter::new(IF_EQUAL, 0, 1, address.into()));
        filter.push(SockFilter::new(RETURN, 0, 0, LONGEST_FRAME as u32));
    }
    filter.push(SockFilter::new(RETURN, 0, 0, 0));
    filter
}

fn sender(frame: &[u8]) -> Option<Sender> {
    let ethernet = EthernetPacket::new(frame).filter(|ethernet| ethernet.get_ethertype() == EtherTypes::Arp)?;
    let arp = ArpPacket::new(ethernet.payload())?;
    let is_of_ethernet = arp.get_hardware_type() == ArpHardwareTypes::Ethernet && arp.get_hw_addr_len() == 6;
    let is_of_ipv4 = arp.get_protocol_type() == EtherTypes::Ipv4 && arp.get_proto_addr_len() == 4;
    (is_of_ethernet && is_of_ipv4)
        .then(|| Sender { address: arp.get_sender_proto_addr(), hardware_address: arp.get_sender_hw_addr().octets() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_of_a_packet_is_read_of_whole_packets_alone() {
        let address = Ipv4Addr::new(192, 0, 2, 20);
        let hardware_address = [2, 0, 0, 0, 0, 1];
        let frame = request(hardware_address, address, address);
        assert_eq!(sender(&frame), Some(Sender { address, hardware_address }));
        for length in 0..frame.len() {
            assert_eq!(sender(&frame[..length]), None, "of {length} bytes");
        }
        for (place, value) in [(12, 0x86), (15, 6), (17, 6), (18, 8), (19, 16)] {
            let mut other = frame;
            other[place] = value;
            assert_eq!(sender(&other), None, "byte {place}");
        }
    }
}
