//! How the kernel must treat an interface that virtual addresses come and go on. Set by netlink, with the capability that a change
//! of an address takes as well, because /proc/sys often cannot be written to: in a container it is mounted for reading only.

use std::io;
use std::path::Path;

use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, InetDevConf, LinkAttribute};
use rtnetlink::{Handle, LinkUnspec};

use crate::address::{answer, interface_name};

/// For a neighbour's hardware address the kernel asks in the name of the interface's own address, never of a virtual one: a
/// neighbour learns from a request, so a node whose processes are dead, but whose kernel still closes the connections they left,
/// would draw the virtual address back to itself.
const ARP_ANNOUNCE: i32 = 2;
/// With the first address of a subnet the kernel removes all others of it, unless this has it keep them: and the first is the
/// virtual one, wherever the host got its own later. It is so however the first goes, at the end of its lease as well.
const PROMOTE_SECONDARIES: i32 = 1;

/// Sets what is not set.
pub(crate) async fn apply(handle: &Handle, index: u32) -> io::Result<()> {
    if is_applied(index) {
        return Ok(());
    }
    let mut settings = InetDevConf::default();
    settings.arp_announce = ARP_ANNOUNCE;
    settings.promote_secondaries = PROMOTE_SECONDARIES;
    let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
    let link = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet]));
    answer(handle.link().set(link.build()).execute()).await
}

/// Asked for without the kernel's lock, which every change of the network waits for. Others may have changed it since.
fn is_applied(index: u32) -> bool {
    let directory = Path::new("/proc/sys/net/ipv4/conf").join(interface_name(index));
    let is = |name, value: i32| {
        let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        text.trim().parse() == Ok(value)
    };
    is("promote_secondaries", PROMOTE_SECONDARIES) && is("arp_announce", ARP_ANNOUNCE)
}
