//! The bytes of a VRRPv3 advert over IPv4 (RFC 9568 §5): built with its IP header, parsed as a raw socket delivers it.
//!
//! Two dialects of the checksum are alive. RFC 5798 covers a pseudo-header and the message, RFC 9568 over IPv4 the message
//! alone. We send the first, which most implementations understand, and accept both.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use pnet::packet::ip::IpNextHeaderProtocols::Vrrp;
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::util::{checksum, ipv4_checksum};
use thiserror::Error;

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// Where adverts go when there are no unicast peers (RFC 9568 §5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

const VERSION: u8 = 3;
const TYPE_ADVERTISEMENT: u8 = 1;
const TTL: u8 = 255;
/// CS6, internetwork control, as six bits of DSCP.
const DSCP: u8 = 0xc0 >> 2;
const IP_HEADER: usize = Ipv4Packet::minimum_packet_size();
const FIXED_PART: usize = 8;
const ADDRESS: usize = 4;
const CHECKSUM: std::ops::Range<usize> = 6..8;
/// The HMAC trailer of draft-cassen-vrrp-auth-hmac, which some routers append to the message.
const AUTHENTICATION_TRAILER: usize = 28;
const CENTISECOND_US: u128 = 10_000;

/// What a router says of itself (RFC 9568 §5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// VRID.
    pub virtual_router_id: NonZeroU8,
    /// 0: it lets go. 255: it owns the addresses.
    pub priority: u8,
    /// 10 ms to 40.95 s, whole centiseconds.
    pub advertisement_interval: Duration,
    /// 1 to 255 addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// A valid advert, with the ends of its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it: the router's own address.
    pub source: Ipv4Addr,
    /// The group, or our address.
    pub destination: Ipv4Addr,
    /// What it says.
    pub advert: Advert,
}

/// Why a packet is no valid advert (RFC 9568 §7.1). The packet is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Invalid {
    #[error("cut off: {found} bytes where {expected} were announced")]
    Truncated { found: usize, expected: usize },
    #[error("{excess} bytes too long for the {addresses} addresses it announces")]
    Oversize { excess: usize, addresses: u8 },
    #[error("not IPv4 but version {0}")]
    NotIpv4(u8),
    #[error("an IP header that says it is {0} bytes long")]
    IpHeaderLength(usize),
    #[error("IP protocol {0}, not 112")]
    Protocol(u8),
    #[error("TTL {0}, not 255: it was forwarded, or forged from another network")]
    TimeToLive(u8),
    #[error("VRRP version {0}, not 3: let that router use version 3")]
    Version(u8),
    #[error("VRRP type {0}, not 1 (advertisement)")]
    Type(u8),
    #[error("wrong checksum {found:#06x}")]
    Checksum { found: u16 },
    #[error("virtual router id 0")]
    VirtualRouterIdZero,
    #[error("no address in it")]
    NoAddresses,
    #[error("advertisement interval 0")]
    IntervalZero,
}

impl Advert {
    /// The complete IPv4 packet. An interval out of range is sent as the nearest in range, addresses beyond 255 not at all.
    pub fn encode(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let message = self.message(source, destination);
        let length = IP_HEADER + message.len();
        let mut bytes = vec![0; IP_HEADER];
        if let Some(mut header) = MutableIpv4Packet::new(&mut bytes) {
            header.set_version(4);
            header.set_header_length((IP_HEADER / 4) as u8);
            header.set_dscp(DSCP);
            // At most 20 + 8 + 4 × 255 bytes.
            header.set_total_length(length as u16);
            header.set_ttl(TTL);
            header.set_next_level_protocol(Vrrp);
            header.set_source(source);
            header.set_destination(destination);
            let sum = ipv4::checksum(&header.to_immutable());
            header.set_checksum(sum);
        }
        bytes.extend_from_slice(&message);
        bytes
    }

    fn message(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let count = self.addresses.len().min(usize::from(u8::MAX));
        let centiseconds = (self.advertisement_interval.as_micros() / CENTISECOND_US).clamp(1, 0x0fff) as u16;
        let mut message = Vec::with_capacity(FIXED_PART + ADDRESS * count);
        message.push(VERSION << 4 | TYPE_ADVERTISEMENT);
        message.push(self.virtual_router_id.get());
        message.push(self.priority);
        message.push(count as u8);
        message.extend_from_slice(&centiseconds.to_be_bytes());
        message.extend_from_slice(&[0, 0]);
        for address in self.addresses.iter().take(count) {
            message.extend_from_slice(&address.octets());
        }
        let sum = with_pseudo_header(&message, source, destination);
        message[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        message
    }
}

/// Reads what a raw socket of protocol 112 delivers: an IPv4 packet with its header. Whether the virtual router is one of
/// ours is for the caller to see.
///
/// # Errors
/// What is wrong with it, by RFC 9568 §7.1.
pub fn parse(bytes: &[u8]) -> Result<Incoming, Invalid> {
    let header = Ipv4Packet::new(bytes).ok_or(Invalid::Truncated { found: bytes.len(), expected: IP_HEADER })?;
    if header.get_version() != 4 {
        return Err(Invalid::NotIpv4(header.get_version()));
    }
    if header.get_next_level_protocol() != Vrrp {
        return Err(Invalid::Protocol(header.get_next_level_protocol().0));
    }
    if header.get_ttl() != TTL {
        return Err(Invalid::TimeToLive(header.get_ttl()));
    }
    let (start, end) = (usize::from(header.get_header_length()) * 4, usize::from(header.get_total_length()));
    if start < IP_HEADER {
        return Err(Invalid::IpHeaderLength(start));
    }
    let payload = bytes.get(start..end).ok_or(Invalid::Truncated { found: bytes.len(), expected: end.max(start) })?;
    let (source, destination) = (header.get_source(), header.get_destination());
    Ok(Incoming { source, destination, advert: parse_message(payload, source, destination)? })
}

fn parse_message(payload: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> Result<Advert, Invalid> {
    let Some(&[version_and_type, virtual_router_id, priority, count, interval_high, interval_low, sum_high, sum_low]) =
        payload.first_chunk::<FIXED_PART>()
    else {
        return Err(Invalid::Truncated { found: payload.len(), expected: FIXED_PART });
    };
    if version_and_type >> 4 != VERSION {
        return Err(Invalid::Version(version_and_type >> 4));
    }
    if version_and_type & 0x0f != TYPE_ADVERTISEMENT {
        return Err(Invalid::Type(version_and_type & 0x0f));
    }
    let length = FIXED_PART + ADDRESS * usize::from(count);
    let Some((message, trailer)) = payload.split_at_checked(length) else {
        return Err(Invalid::Truncated { found: payload.len(), expected: length });
    };
    if !matches!(trailer.len(), 0 | AUTHENTICATION_TRAILER) {
        return Err(Invalid::Oversize { excess: trailer.len(), addresses: count });
    }
    let sum = u16::from_be_bytes([sum_high, sum_low]);
    if sum != with_pseudo_header(message, source, destination) && sum != message_only(message) {
        return Err(Invalid::Checksum { found: sum });
    }
    let virtual_router_id = NonZeroU8::new(virtual_router_id).ok_or(Invalid::VirtualRouterIdZero)?;
    if count == 0 {
        return Err(Invalid::NoAddresses);
    }
    // The upper four bits are reserved, and ignored on receipt.
    let centiseconds = u16::from_be_bytes([interval_high & 0x0f, interval_low]);
    if centiseconds == 0 {
        return Err(Invalid::IntervalZero);
    }
    let (addresses, _) = message.split_at(FIXED_PART).1.as_chunks::<ADDRESS>();
    Ok(Advert {
        virtual_router_id,
        priority,
        advertisement_interval: Duration::from_millis(u64::from(centiseconds) * 10),
        addresses: addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect(),
    })
}

/// RFC 5798 §5.2.8, with the destination that is really in the header, be it the group or a unicast peer.
fn with_pseudo_header(message: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> u16 {
    ipv4_checksum(message, CHECKSUM.start / 2, &[], &source, &destination, Vrrp)
}

/// RFC 9568 §5.2.8.
fn message_only(message: &[u8]) -> u16 {
    checksum(message, CHECKSUM.start / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);

    fn advert() -> Advert {
        Advert {
            virtual_router_id: NonZeroU8::new(51).unwrap(),
            priority: 200,
            advertisement_interval: Duration::from_millis(100),
            addresses: vec![Ipv4Addr::new(192, 168, 1, 20)],
        }
    }

    /// The packet of [`advert`], changed, with its checksum made right again (as RFC 9568 would).
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = advert().encode(SOURCE, GROUP);
        change(&mut bytes);
        let sum = message_only(&bytes[IP_HEADER..]);
        bytes[IP_HEADER..][CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn every_byte_on_the_wire() {
        assert_eq!(
            advert().encode(SOURCE, GROUP),
            [
                0x45, 0xc0, 0, 32, 0, 0, 0, 0, 255, 112, 0x18, 0xe8, 192, 168, 1, 11, 224, 0, 0, 18, // IPv4
                0x31, 51, 200, 1, 0, 10, 0xa2, 0xc1, 192, 168, 1, 20, // VRRP
            ]
        );
    }

    #[test]
    fn both_checksums_are_accepted() {
        let pseudo_header = advert().encode(SOURCE, GROUP);
        let message_alone = changed(|_| ());
        assert_ne!(pseudo_header, message_alone);
        for bytes in [pseudo_header, message_alone] {
            assert_eq!(parse(&bytes).map(|incoming| incoming.advert), Ok(advert()));
        }
    }

    #[test]
    fn an_authentication_trailer_is_passed_over() {
        let mut bytes = advert().encode(SOURCE, GROUP);
        bytes.extend_from_slice(&[7; AUTHENTICATION_TRAILER]);
        bytes[3] += AUTHENTICATION_TRAILER as u8;
        assert_eq!(parse(&bytes).map(|incoming| incoming.advert), Ok(advert()));
    }

    #[test]
    fn ip_options_padding_and_reserved_bits_are_passed_over() {
        let with_options = changed(|bytes| bytes[IP_HEADER + 4] |= 0xf0);
        let mut bytes = with_options;
        bytes.splice(IP_HEADER..IP_HEADER, [1, 1, 1, 0]);
        bytes[0] = 0x46;
        bytes[3] += 4;
        bytes.extend_from_slice(&[0; 14]);
        assert_eq!(parse(&bytes).map(|incoming| incoming.advert), Ok(advert()));
    }

    #[test]
    fn each_check_of_section_7_1() {
        let cases = [
            (changed(|bytes| bytes[0] = 0x65), Invalid::NotIpv4(6)),
            (changed(|bytes| bytes[0] = 0x44), Invalid::IpHeaderLength(16)),
            (changed(|bytes| bytes[9] = 17), Invalid::Protocol(17)),
            (changed(|bytes| bytes[8] = 254), Invalid::TimeToLive(254)),
            (changed(|bytes| bytes[20] = 0x21), Invalid::Version(2)),
            (changed(|bytes| bytes[20] = 0x32), Invalid::Type(2)),
            (changed(|bytes| bytes[21] = 0), Invalid::VirtualRouterIdZero),
            (changed(|bytes| bytes[23] = 2), Invalid::Truncated { found: 12, expected: 16 }),
            (changed(|bytes| bytes[23] = 0), Invalid::Oversize { excess: 4, addresses: 0 }),
            (changed(|bytes| bytes[25] = 0), Invalid::IntervalZero),
            (changed(|bytes| bytes[3] += 1), Invalid::Truncated { found: 32, expected: 33 }),
            (
                changed(|bytes| {
                    bytes.truncate(28);
                    bytes[3] = 28;
                    bytes[23] = 0;
                }),
                Invalid::NoAddresses,
            ),
        ];
        for (bytes, reason) in cases {
            assert_eq!(parse(&bytes), Err(reason));
        }
    }

    #[test]
    fn a_changed_bit_breaks_the_checksum() {
        let mut bytes = advert().encode(SOURCE, GROUP);
        bytes[31] ^= 1;
        assert!(matches!(parse(&bytes), Err(Invalid::Checksum { .. })));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(
            id in 1u8..,
            priority: u8,
            centiseconds in 1u64..=4095,
            addresses in proptest::collection::vec(any::<u32>().prop_map(Ipv4Addr::from), 1..=255),
            source: u32,
            destination: u32,
        ) {
            let advert = Advert {
                virtual_router_id: NonZeroU8::new(id).unwrap(),
                priority,
                advertisement_interval: Duration::from_millis(centiseconds * 10),
                addresses,
            };
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let bytes = advert.encode(source, destination);
            prop_assert_eq!(parse(&bytes), Ok(Incoming { source, destination, advert }));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_spoilt_packet_never_panics(place in 0usize..32, value: u8, length in 0usize..64) {
            let mut bytes = changed(|bytes| bytes[place] = value);
            bytes.resize(length, 0);
            let _ = parse(&bytes);
        }
    }
}
