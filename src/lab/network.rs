//! A switch: a bridge in a namespace of its own, with cables (veth pairs) to other namespaces that can be pulled or made
//! to lose what is sent over them.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rtnetlink::packet_route::link::InfoBridge;
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkVeth};

use super::error::Result;
use super::namespace::Namespace;
use super::netlink;

/// Prefix length of every address in the lab.
pub const PREFIX_LENGTH: u8 = 24;

/// A namespace's own side of its cable.
pub const INTERFACE: &str = "eth0";

const BRIDGE: &str = "switch";

/// One layer-2 segment.
pub struct Switch {
    namespace: Arc<Namespace>,
    ports: AtomicU32,
}

/// A place for a cable on the switch, and what can happen to it.
pub struct Port {
    switch: Arc<Namespace>,
    name: String,
}

/// A namespace with one cable and one address.
pub struct Host {
    /// Where it is.
    pub namespace: Namespace,
    /// Its cable.
    pub port: Port,
    /// Its own address.
    pub address: Ipv4Addr,
}

impl Switch {
    /// One without cables.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::new("switch")?;
        // Without snooping, multicast goes to every port, as it does where nobody runs a querier.
        let bridge = LinkBridge::new(BRIDGE).append_info_data(InfoBridge::MulticastSnooping(false)).build();
        namespace.run(|| netlink::add_link(bridge, "the bridge"))??;
        Ok(Self { namespace: Arc::new(namespace), ports: AtomicU32::new(0) })
    }

    /// Where the bridge is.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The number of the bridge's own interface, there.
    pub(super) fn bridge(&self) -> Result<u32> {
        self.namespace.run(|| netlink::index(BRIDGE))?
    }

    /// Makes a namespace and lays a cable to it: [`INTERFACE`], up, with `address` and a MAC address made from that.
    pub fn host(&self, name: &str, address: Ipv4Addr) -> Result<Host> {
        let namespace = Namespace::new(name)?;
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        let port = Port { switch: Arc::clone(&self.namespace), name: format!("port{number}") };
        let far_end = format!("far{number}");
        self.namespace.run(|| {
            netlink::add_link(LinkVeth::new(&port.name, &far_end).build(), "a veth pair")?;
            // Moved after it was made, the far end keeps its number: were the two numbers equal by chance, the kernel
            // would take the pair for an interface without a lower one, and tell of a lost carrier only once a second.
            netlink::change_link(&far_end, |link| link.setns_by_fd(namespace.descriptor().as_raw_fd()))?;
            let bridge = netlink::index(BRIDGE)?;
            netlink::change_link(&port.name, |link| link.controller(bridge).up())
        })??;
        namespace.run(|| {
            netlink::change_link(&far_end, |link| link.name(INTERFACE).address(mac(address).to_vec()))?;
            netlink::set_up(INTERFACE)?;
            netlink::add_address(INTERFACE, address, PREFIX_LENGTH)
        })??;
        Ok(Host { namespace, port, address })
    }
}

/// The MAC address (locally administered) of the host that has `address`.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x00, a, b, c, d]
}

impl Port {
    /// Pulls the cable: the other end loses its carrier.
    pub fn pull(&self) -> Result<()> {
        self.change(LinkMessageBuilder::down)
    }

    /// Puts the cable back.
    pub fn plug(&self) -> Result<()> {
        self.change(LinkMessageBuilder::up)
    }

    /// Drops every frame in both directions; the carrier stays.
    pub fn silence(&self) -> Result<()> {
        self.change(LinkMessageBuilder::nocontroller)
    }

    /// Passes frames again.
    pub fn pass(&self) -> Result<()> {
        self.switch.run(|| {
            let bridge = netlink::index(BRIDGE)?;
            netlink::change_link(&self.name, |link| link.controller(bridge))
        })?
    }

    fn change(
        &self,
        change: impl FnOnce(LinkMessageBuilder<rtnetlink::LinkUnspec>) -> LinkMessageBuilder<rtnetlink::LinkUnspec> + Send,
    ) -> Result<()> {
        self.switch.run(|| netlink::change_link(&self.name, change))?
    }
}
