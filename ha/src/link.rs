//! Interfaces as the kernel tells of them: which are there, up and with carrier, which addresses they have, and when one of
//! ours goes.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use futures_util::TryStreamExt as _;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use rtnetlink::{Handle, MulticastGroup};

use crate::address::{answer, is_marked, virtual_address};
use crate::router::VirtualAddress;

/// Room for some thousand notifications.
const RECEIVE_BUFFER: usize = 1 << 20;
/// So many names are offered for one that is not there.
const NEAREST: usize = 3;

/// An interface, as far as a virtual router on it must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InterfaceState {
    /// Adverts can be sent and received.
    Usable(Interface),
    /// They cannot.
    Unusable {
        /// In words.
        reason: String,
    },
}

/// One that is up, has carrier and an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Another one after it was deleted and made again.
    pub(crate) index: u32,
    /// Where adverts come from: its first address that is not virtual.
    pub(crate) own_address: Ipv4Addr,
    /// `None` where the link layer is not Ethernet; there is nothing to announce there.
    pub(crate) hardware_address: Option<[u8; 6]>,
}

/// An address that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) interface_index: u32,
    pub(crate) address: VirtualAddress,
}

/// The netlink socket that events arrive on.
pub(crate) struct Watcher {
    socket: TokioSocket,
    table: Table,
}

impl Watcher {
    /// Subscribes; the table is empty until the first [`resync`](Self::resync).
    pub(crate) fn open() -> io::Result<Watcher> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
        let groups = groups.into_iter().fold(0, |groups, group| groups | 1 << (group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        socket.socket_ref().set_rx_buf_sz(RECEIVE_BUFFER as libc::c_int)?;
        Ok(Watcher { socket, table: Table::default() })
    }

    /// Reads everything anew.
    pub(crate) async fn resync(&mut self, handle: &Handle) -> io::Result<()> {
        let links: Vec<LinkMessage> = answer(handle.link().get().execute().try_collect()).await?;
        let addresses: Vec<AddressMessage> = answer(handle.address().get().execute().try_collect()).await?;
        self.table = Table::default();
        links.iter().for_each(|link| self.table.add_link(link));
        addresses.iter().for_each(|address| self.table.add_address(address));
        Ok(())
    }

    /// Waits for an event. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// ENOBUFS: events were lost, a [`resync`](Self::resync) is due.
    pub(crate) async fn received(&self) -> io::Result<Vec<u8>> {
        self.socket.recv_from_full().await.map(|(datagram, _sender)| datagram)
    }

    /// Takes an event in, and those that wait behind it: what is long past is never told as news.
    pub(crate) fn apply(&mut self, datagram: &[u8]) -> io::Result<Vec<Removed>> {
        let mut removed = self.table.apply(datagram);
        loop {
            match self.socket.socket_ref().recv_from_full() {
                Ok((datagram, _sender)) => removed.extend(self.table.apply(&datagram)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(removed),
                Err(error) => return Err(error),
            }
        }
    }

    /// What is known.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }
}

/// Whether events were lost because they came faster than they were read.
pub(crate) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// Interfaces and their IPv4 addresses, by index.
#[derive(Debug, Default)]
pub(crate) struct Table {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, Vec<Address>>,
}

#[derive(Debug)]
struct Link {
    name: String,
    flags: LinkFlags,
    hardware_address: Option<[u8; 6]>,
}

#[derive(Debug)]
struct Address {
    address: VirtualAddress,
    scope: AddressScope,
    marked: bool,
}

impl Table {
    /// What the interface of that name is good for; none of `virtual_addresses` is its own.
    pub(crate) fn state(&self, name: &str, virtual_addresses: &[VirtualAddress]) -> InterfaceState {
        let unusable = |what: &str| InterfaceState::Unusable { reason: format!("interface {name} {what}") };
        let Some((&index, link)) = self.link(name) else { return unusable(&self.absent(name)) };
        if !link.flags.contains(LinkFlags::Up) {
            return unusable("is down");
        }
        if !link.flags.contains(LinkFlags::LowerUp) {
            return unusable("has no carrier");
        }
        if !link.flags.contains(LinkFlags::Running) {
            return unusable("is not operational");
        }
        match self.own_address(index, virtual_addresses) {
            Some(own_address) => {
                InterfaceState::Usable(Interface { index, own_address, hardware_address: link.hardware_address })
            }
            None => unusable(&self.without_own_address(index)),
        }
    }

    /// What to do where all that the interface has is virtual.
    fn without_own_address(&self, index: u32) -> String {
        match self.known(index).find(|address| !address.marked) {
            Some(Address { address: VirtualAddress { address, .. }, .. }) => {
                format!("has no IPv4 address of its own: {address} is configured as a virtual one; give it another")
            }
            None => "has no IPv4 address of its own".to_owned(),
        }
    }

    /// The index of the interface of that name.
    pub(crate) fn index(&self, name: &str) -> Option<u32> {
        self.link(name).map(|(&index, _link)| index)
    }

    /// How often, and with which prefix lengths, the interface has an address.
    pub(crate) fn entries(&self, index: u32, address: Ipv4Addr) -> impl Iterator<Item = VirtualAddress> {
        self.known(index).map(|known| known.address).filter(move |known| known.address == address)
    }

    /// Of these the ones that the interface has and need not have: all, unless it has no other; then those that we have made.
    pub(crate) fn dispensable(
        &self,
        index: u32,
        addresses: &[VirtualAddress],
        virtual_addresses: &[VirtualAddress],
    ) -> Vec<VirtualAddress> {
        let has_own = self.own_address(index, virtual_addresses).is_some();
        let is_dispensable = |known: &&Address| {
            let is_one = addresses.iter().any(|other| other.address == known.address.address);
            is_one && (has_own || known.marked)
        };
        self.known(index).filter(is_dispensable).map(|known| known.address).collect()
    }

    /// The addresses of the interface.
    fn known(&self, index: u32) -> impl Iterator<Item = &Address> {
        self.addresses.get(&index).into_iter().flatten()
    }

    /// What to do where there is no such interface.
    fn absent(&self, name: &str) -> String {
        let likeness = |link: &&Link| strsim::jaro_winkler(&link.name, name);
        let mut others: Vec<&Link> =
            self.links.values().filter(|link| !link.flags.contains(LinkFlags::Loopback)).collect();
        others.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
        let others: Vec<&str> = others.iter().take(NEAREST).map(|link| link.name.as_str()).collect();
        let others = if others.is_empty() { "none but the loopback".to_owned() } else { others.join(", ") };
        format!("does not exist: correct the name (this host has {others}), or bring it up")
    }

    fn link(&self, name: &str) -> Option<(&u32, &Link)> {
        self.links.iter().find(|(_index, link)| link.name == name)
    }

    fn own_address(&self, index: u32, virtual_addresses: &[VirtualAddress]) -> Option<Ipv4Addr> {
        let is_own = |address: &&Address| {
            !address.marked && !virtual_addresses.iter().any(|other| other.address == address.address.address)
        };
        let own = || self.known(index).filter(is_own);
        own()
            .find(|address| address.scope == AddressScope::Universe)
            .or_else(|| own().find(|address| address.scope != AddressScope::Host))
            .map(|address| address.address.address)
    }

    fn apply(&mut self, datagram: &[u8]) -> Vec<Removed> {
        messages(datagram).filter_map(|message| self.apply_one(message)).collect()
    }

    fn apply_one(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Removed> {
        let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
        match message {
            RouteNetlinkMessage::NewLink(link) => self.add_link(&link),
            RouteNetlinkMessage::DelLink(link) if is_of_the_link_itself(&link) => {
                self.links.remove(&link.header.index);
                self.addresses.remove(&link.header.index);
            }
            RouteNetlinkMessage::NewAddress(address) => self.add_address(&address),
            RouteNetlinkMessage::DelAddress(address) => {
                let (interface_index, address) = virtual_address(&address)?;
                self.addresses.entry(interface_index).or_default().retain(|known| known.address != address);
                return Some(Removed { interface_index, address });
            }
            _ => (),
        }
        None
    }

    fn add_link(&mut self, message: &LinkMessage) {
        if !is_of_the_link_itself(message) {
            return;
        }
        let mut link = Link { name: String::new(), flags: message.header.flags, hardware_address: None };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.hardware_address = bytes.as_slice().try_into().ok(),
                _ => (),
            }
        }
        self.links.insert(message.header.index, link);
    }

    fn add_address(&mut self, message: &AddressMessage) {
        let Some((index, address)) = virtual_address(message) else { return };
        let new = Address { address, scope: message.header.scope, marked: is_marked(message) };
        let known = self.addresses.entry(index).or_default();
        match known.iter_mut().find(|known| known.address == address) {
            // A refreshed lease comes back as an address; its place in the order stays.
            Some(known) => *known = new,
            None => known.push(new),
        }
    }
}

/// Bridges tell of their ports in messages of the same type: a port that leaves its bridge is no interface that goes.
fn is_of_the_link_itself(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// The messages of a datagram; what cannot be understood is passed over.
fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    let mut rest = datagram;
    let raw = std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let message = rest.get(..length).filter(|message| !message.is_empty())?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    });
    raw.filter_map(|message| {
        NetlinkMessage::deserialize(message)
            .inspect_err(|error| tracing::debug!(%error, "a netlink event could not be read"))
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink_packet_route::address::{AddressAttribute, AddressProtocol};

    use super::*;
    use crate::address::ADDRESS_PROTOCOL;

    const VIRTUAL: VirtualAddress = VirtualAddress { address: Ipv4Addr::new(192, 0, 2, 20), prefix_length: 24 };

    fn link(flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = flags;
        message.attributes =
            vec![LinkAttribute::IfName("eth1".to_owned()), LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1])];
        message
    }

    fn address(address: [u8; 4], scope: AddressScope) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 7;
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 24;
        message.header.scope = scope;
        message.attributes = vec![AddressAttribute::Local(IpAddr::from(address))];
        message
    }

    fn own_address(addresses: &[AddressMessage]) -> Option<[u8; 4]> {
        let mut table = Table::default();
        table.add_link(&link(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running));
        addresses.iter().for_each(|address| table.add_address(address));
        match table.state("eth1", &[VIRTUAL]) {
            InterfaceState::Usable(interface) => Some(interface.own_address.octets()),
            InterfaceState::Unusable { .. } => None,
        }
    }

    #[test]
    fn the_first_address_that_is_not_virtual_is_the_nodes_own() {
        let (one, two) =
            (address([192, 0, 2, 1], AddressScope::Universe), address([192, 0, 2, 2], AddressScope::Universe));
        let link_local = address([169, 254, 0, 1], AddressScope::Link);
        let configured = address([192, 0, 2, 20], AddressScope::Universe);
        let mut marked = address([192, 0, 2, 30], AddressScope::Universe);
        marked.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_PROTOCOL)));

        assert_eq!(own_address(&[]), None);
        assert_eq!(own_address(&[configured.clone(), marked.clone()]), None);
        assert_eq!(own_address(&[configured, marked, two.clone(), one.clone()]), Some([192, 0, 2, 2]));
        assert_eq!(own_address(&[link_local.clone(), one.clone()]), Some([192, 0, 2, 1]));
        assert_eq!(own_address(&[link_local]), Some([169, 254, 0, 1]));
        assert_eq!(own_address(&[two.clone(), one, two]), Some([192, 0, 2, 2]), "a refresh changes no order");
    }

    #[test]
    fn an_interface_that_cannot_be_used_says_why() {
        let why = |flags| {
            let mut table = Table::default();
            table.add_link(&link(flags));
            match table.state("eth1", &[]) {
                InterfaceState::Usable(_) => String::new(),
                InterfaceState::Unusable { reason } => reason,
            }
        };
        assert_eq!(why(LinkFlags::empty()), "interface eth1 is down");
        assert_eq!(why(LinkFlags::Up), "interface eth1 has no carrier");
        assert_eq!(why(LinkFlags::Up | LinkFlags::LowerUp), "interface eth1 is not operational");
        assert_eq!(
            why(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
            "interface eth1 has no IPv4 address of its own"
        );
    }

    #[test]
    fn of_an_interface_that_is_not_there_the_nearest_are_named() {
        let mut table = Table::default();
        let absent = |table: &Table| match table.state("eth1", &[]) {
            InterfaceState::Unusable { reason } => reason,
            InterfaceState::Usable(_) => String::new(),
        };
        let names = ["lo", "wlan0", "docker0", "enp1s0", "eth0"];
        for (index, name) in names.into_iter().enumerate() {
            let flags = if name == "lo" { LinkFlags::Loopback } else { LinkFlags::Up };
            if name == "wlan0" {
                let expected = "interface eth1 does not exist: correct the name (this host has none but the loopback), or bring it up";
                assert_eq!(absent(&table), expected);
            }
            let mut message = link(flags);
            message.header.index = index as u32 + 1;
            message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
            table.add_link(&message);
        }
        let reason = absent(&table);
        assert!(reason.contains("(this host has eth0, enp1s0, "), "{reason}");
        assert!(!reason.contains("lo,"), "{reason}");
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_no_interface_that_goes() {
        let mut table = Table::default();
        table.add_link(&link(LinkFlags::Up));
        let mut left = link(LinkFlags::Up);
        left.header.interface_family = AddressFamily::Bridge;
        table.apply_one(RouteNetlinkMessage::DelLink(left).into());
        assert_eq!(table.index("eth1"), Some(7));
        table.apply_one(RouteNetlinkMessage::DelLink(link(LinkFlags::Up)).into());
        assert_eq!(table.index("eth1"), None);
    }

    #[test]
    fn garbage_holds_no_message() {
        for garbage in [&[][..], &[1], &[0; 16], &[0xff; 16], &[4, 0, 0, 0], &[5, 0, 0, 0, 1]] {
            assert_eq!(messages(garbage).count(), 0);
        }
    }
}
