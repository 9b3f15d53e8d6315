//! What others on the network may send.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU8;
use std::process::Command;
use std::time::{Duration, Instant};

use relevo::lab::network::{INTERFACE, mac};
use relevo::lab::pair::{FLOATING, NODE_ADDRESSES, VIRTUAL_ROUTER_ID};
use relevo_ha::AddressConflict;
use relevo_ha::packet::{Advert, GROUP};
use socket2::{Domain, Protocol, Socket, Type};

use crate::rig;
use crate::rig::node::relevo;
use crate::served::{STRANGER, served};
use crate::warnings;

/// An advert as it should be, of the highest priority: obeyed, it would take the address away.
fn sound() -> Vec<u8> {
    let advert = Advert {
        virtual_router_id: NonZeroU8::new(VIRTUAL_ROUTER_ID).unwrap(),
        priority: 255,
        advertisement_interval: Duration::from_millis(100),
        addresses: vec![FLOATING],
    };
    advert.encode(STRANGER, GROUP)
}

/// The stranger's, for whole packets.
fn raw_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(nix::libc::IPPROTO_RAW))).unwrap();
    socket.set_multicast_if_v4(&STRANGER).unwrap();
    socket
}

/// With the byte at this place of the IP packet changed; its checksum is not.
fn with_byte(place: usize, value: u8) -> Vec<u8> {
    let mut packet = sound();
    packet[place] = value;
    packet
}

/// Packets that pretend to be adverts of highest priority, cut off at every byte, too long, or wrong in some field: each one
/// is ignored and counted by both nodes, one message in ten seconds tells of it, and nothing moves.
#[test]
fn adverts_that_are_not_sound_change_nothing() {
    let Some(served) = served() else { return };
    const IP: usize = 20;
    let whole = sound();
    let mut packets: Vec<Vec<u8>> = (IP + 2..whole.len()).map(|length| whole[..length].to_vec()).collect();
    packets.extend([1, 3, 27, 29, 1000].map(|excess| [&whole[..], &vec![0xff; excess]].concat()));
    packets.extend([
        with_byte(8, 64),       // TTL: it comes from another network
        with_byte(8, 254),      // the same, from next door
        with_byte(IP, 0x21),    // version 2
        with_byte(IP, 0x32),    // type 2
        with_byte(IP + 3, 0),   // no address
        with_byte(IP + 3, 255), // more addresses than there are
        with_byte(IP + 5, 0),   // interval 0
        with_byte(IP + 6, 0),   // checksum
        with_byte(IP + 11, 99), // an address that the checksum does not cover
    ]);
    let before = [0, 1].map(|number| served.node(number).vrrp[0].clone());
    let socket = served.stranger.run(raw_socket).unwrap();
    let group = SocketAddr::from((GROUP, 0)).into();
    for packet in &packets {
        assert_eq!(socket.send_to(packet, &group).unwrap(), packet.len());
    }

    let rejected = |number: usize| served.node(number).vrrp[0].adverts_rejected - before[number].adverts_rejected;
    served
        .wait_for("both have counted them", || [0, 1].map(rejected).iter().all(|count| *count >= packets.len() as u64));
    for (number, before) in before.iter().enumerate() {
        let after = served.node(number).vrrp[0].clone();
        assert_eq!((after.state, after.transitions), (before.state, before.transitions));
        assert_eq!(rejected(number), packets.len() as u64);
        let messages = served.lab.pair.nodes[number].messages();
        let said = warnings(&messages, "ignored a packet that is no advert");
        assert!((1..=2).contains(&said.len()) && said[0].contains(&STRANGER.to_string()), "{messages}");
    }
    served.assert_undisturbed();
}

/// Another installation that uses the same VRID for other addresses, of the highest priority, that lets go, or that lists ours among
/// others: both nodes count it, say once whose it is, show it, and obey it not.
#[test]
fn another_installation_with_the_same_vrid_moves_nothing() {
    let Some(served) = served() else { return };
    let other = Ipv4Addr::new(10, 77, 0, 99);
    let advert = |priority, addresses: &[Ipv4Addr]| Advert {
        virtual_router_id: NonZeroU8::new(VIRTUAL_ROUTER_ID).unwrap(),
        priority,
        advertisement_interval: Duration::from_millis(10),
        addresses: addresses.to_vec(),
    };
    let before = [0, 1].map(|number| served.node(number).vrrp[0].clone());
    let packets = [advert(255, &[other]), advert(0, &[other]), advert(255, &[FLOATING, other])]
        .map(|advert| advert.encode(STRANGER, GROUP));
    let socket = served.stranger.run(raw_socket).unwrap();
    let group = SocketAddr::from((GROUP, 0)).into();
    // For longer than an active-down interval.
    for packet in packets.iter().cycle().take(60) {
        socket.send_to(packet, &group).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    served.wait_for("both have counted and told them", || {
        [0, 1].iter().all(|number| {
            let router = &served.node(*number).vrrp[0];
            router.adverts_of_others == 60 && router.other_routers.len() == 1
        })
    });
    for (number, before) in before.iter().enumerate() {
        let after = served.node(number).vrrp[0].clone();
        assert_eq!((after.state, after.transitions), (before.state, before.transitions));
        assert_eq!((after.adverts_rejected, after.other_routers[0].source), (before.adverts_rejected, STRANGER));
        let messages = served.lab.pair.nodes[number].messages();
        let said: Vec<_> = messages.lines().filter(|line| line.contains("another installation uses VRID")).collect();
        assert_eq!(said.len(), 1, "{messages}");
        let words = ["ERROR", &STRANGER.to_string(), &other.to_string(), &FLOATING.to_string()];
        assert!(words.iter().all(|word| said[0].contains(word)), "{}", said[0]);
    }
    let socket = served.lab.pair.nodes[0].control_socket();
    let output = relevo(&["status", "--socket", &socket.display().to_string()]);
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains(&format!("{STRANGER} uses VRID {VIRTUAL_ROUTER_ID} for {other}")), "{output}");
    served.assert_undisturbed();
}

/// Whatever a stranger sends to the peer link (noise, frames of any length, another protocol, half a handshake, nothing at all
/// on many connections): the link of the pair stands, few messages tell of it, and nothing moves. Even while all those
/// connections are open a node that comes back is let in.
#[test]
fn garbage_on_the_peer_link_is_shut_out() {
    let Some(mut served) = served() else { return };
    let noise: Vec<u8> = (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let handshake = [&[0, 48][..], &noise[..48]].concat();
    let garbage: [&[u8]; 9] = [
        b"",
        &[0],
        &[0, 0],
        &noise,
        &[&[0xff, 0xff][..], &noise].concat(),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &handshake,
        &handshake[..20],
    ];
    let connect = |node: usize| {
        let address = SocketAddr::from((NODE_ADDRESSES[node], 8650));
        served.stranger.run(|| TcpStream::connect_timeout(&address, rig::PATIENCE)).unwrap().unwrap()
    };
    let mut half_open = Vec::new();
    for node in [0, 1] {
        for _ in 0..3 {
            for bytes in garbage {
                let mut connection = connect(node);
                // It may have been closed already.
                let _ = connection.write_all(bytes);
                if bytes.len() < 100 {
                    half_open.push(connection);
                }
            }
        }
        half_open.extend((0..20).map(|_| connect(node)));
    }
    // Longer than a handshake may take, and longer than a silent link is trusted.
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert!(served.is_linked(), "{}", served.messages());
        std::thread::sleep(Duration::from_millis(50));
    }
    for node in &served.lab.pair.nodes {
        let messages = node.messages();
        let said = warnings(&messages, "");
        assert!(said.iter().any(|line| line.contains(&STRANGER.to_string())), "{messages}");
        // Each of the kinds (a wrong key, no peer at all, too many) once in ten seconds.
        let said: Vec<_> = said.iter().filter(|line| line.contains("peer")).collect();
        assert!(said.len() <= 6, "{} messages:\n{messages}", said.len());
    }

    served.lab.pair.nodes[1].end().unwrap();
    half_open.extend((0..20).map(|_| connect(0)));
    served.lab.pair.nodes[1].start().unwrap();
    served.wait_for("they are linked again", || served.is_linked());
    served.assert_undisturbed();
}

/// A host that has the floating IP as well: the active node hears it ask for others, and both say whose MAC address it is, once;
/// nothing moves.
#[test]
fn another_host_with_the_floating_ip_is_told_by_its_mac_address() {
    let Some(served) = served() else { return };
    let before = [0, 1].map(|number| served.node(number).vrrp[0].clone());
    let mut add = Command::new("ip");
    add.args(["address", "add", &format!("{FLOATING}/24"), "dev", INTERFACE]);
    assert!(served.stranger.spawn(add).unwrap().wait().unwrap().success());
    let socket = served.stranger.run(|| UdpSocket::bind((FLOATING, 0)).unwrap()).unwrap();
    let conflict =
        AddressConflict { address: FLOATING, mac: mac(STRANGER).map(|byte| format!("{byte:02x}")).join(":") };
    // Nobody is there: the kernel asks all for it, in the name of the address.
    let nobody = Ipv4Addr::new(10, 77, 0, 250);
    served.wait_for("both tell of it", || {
        socket.send_to(b"?", (nobody, 9)).unwrap();
        [0, 1].iter().all(|number| served.node(*number).vrrp[0].address_conflicts == [conflict.clone()])
    });
    for (number, before) in before.iter().enumerate() {
        let after = served.node(number).vrrp[0].clone();
        assert_eq!((after.state, after.transitions), (before.state, before.transitions));
        let messages = served.lab.pair.nodes[number].messages();
        let said: Vec<_> = messages.lines().filter(|line| line.contains("answers for a virtual address")).collect();
        assert_eq!(said.len(), 1, "{messages}");
        let words = ["ERROR", &conflict.mac, &FLOATING.to_string()];
        assert!(words.iter().all(|word| said[0].contains(word)), "{}", said[0]);
    }
    let socket = served.lab.pair.nodes[0].control_socket();
    let output = relevo(&["status", "--socket", &socket.display().to_string()]);
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains(&format!("MAC address {}, answers for {FLOATING}", conflict.mac)), "{output}");
}
