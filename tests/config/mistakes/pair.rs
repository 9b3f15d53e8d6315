//! Virtual routers and peering.

use super::{assert_each, vrrp};
use crate::{SMALLEST, check, stderr};

#[test]
fn each_mistake_in_what_makes_a_pair_is_explained() {
    assert_each(
        "pair",
        &[
            (
                "[vrrp.a]\nvirtual_router_id = 1\naddresses = \"192.0.2.1/24\"",
                "10:7 vrrp.a: `interface` is missing",
                &[],
            ),
            (
                "[vrrp.a]\ninterface = \"lo\"\nvirtual_router_id = 1\naddresses = \"192.0.2.1/24\"",
                "11:13 vrrp.a.interface: expected the name of a network interface",
                &["nobody else is on the loopback"],
            ),
            (
                "[vrrp.a]\ninterface = \"eth1\"\nvirtual_router_id = 1\naddresses = [\"192.0.2.255/24\"]",
                "13:14 vrrp.a.addresses[0]: expected an address with the prefix length",
                &["the address of one host: in a /24 it stands for the network"],
            ),
            (
                "[vrrp.a]\ninterface = \"eth1\"\nvirtual_router_id = 1\naddresses = [\"192.0.2.0/31\", \"192.0.3.255/23\"]",
                "13:30 vrrp.a.addresses[1]: expected an address with the prefix length",
                &["in a /23"],
            ),
            (
                "[peering]\nlisten = \"[::ffff:192.0.2.1]:1\"\npeers = { b = \"192.0.2.2:1\" }",
                "11:10 peering.listen: expected an IP address with its port",
                &["write \"192.0.2.1:1\""],
            ),
            (&vrrp("priority = 256"), "14:12 vrrp.a.priority: expected a whole number from 1 to 255", &[]),
            (
                &vrrp("advertisement_interval = \"41s\""),
                "14:26 vrrp.a.advertisement_interval: expected \"10ms\" to \"40.95s\"",
                &[],
            ),
            (
                &vrrp("advertisement_interval = \"25ms\""),
                "14:26 vrrp.a.advertisement_interval: expected",
                &["in steps of 10ms"],
            ),
            (
                &vrrp("unicast_peers = [\"fe80::1\"]"),
                "14:18 vrrp.a.unicast_peers[0]: expected an IPv4 address",
                &["IPv6"],
            ),
            (
                "[vrrp.a]\ninterface = \"eth1\"\nvirtual_router_id = 1\naddresses = [\"192.0.2.1\"]",
                "13:14 vrrp.a.addresses[0]: expected an address with the prefix length",
                &["write \"192.0.2.1/24\""],
            ),
            (
                &vrrp("[vrrp.b]\ninterface = \"eth1\"\nvirtual_router_id = 51\naddresses = \"192.0.2.2/24\""),
                "16:21 vrrp.b.virtual_router_id: every virtual router on an interface has its own VRID",
                &["is taken on eth1", "first here"],
            ),
            (
                &vrrp("[vrrp.b]\ninterface = \"eth2\"\nvirtual_router_id = 51\naddresses = \"192.0.2.20/32\""),
                "17:13 vrrp.b.addresses: an address belongs to one virtual router",
                &["first here"],
            ),
            ("[peering]\nlisten = \"192.0.2.1:1\"", "10:1 peering: `peers` is missing", &[]),
            (
                "[peering]\nlisten = \"192.0.2.1\"\npeers = { b = \"192.0.2.2:1\" }",
                "11:10 peering.listen: expected",
                &["port is missing"],
            ),
            (
                "[node]\nname = \"lb1\"\n[peering]\nlisten = \"192.0.2.1:1\"\npeers = { lb1 = \"192.0.2.2:1\" }",
                "14:11 peering.peers.lb1: a peer is another node",
                &["this node has this name"],
            ),
            (
                "[peering]\nlisten = \"192.0.2.1:1\"\npeers = { b = \"192.0.2.1:1\" }",
                "12:15 peering.peers.b: a peer is another node",
                &["`peering.listen` is this address"],
            ),
            (
                &vrrp("[peering]\nlisten = \"192.0.2.20:1\"\npeers = { b = \"192.0.2.2:1\" }"),
                "15:10 peering.listen: expected an address that stays with its node",
                &["found a virtual one", "one that no host has"],
            ),
            (
                &vrrp("[peering]\nlisten = \"192.0.2.1:1\"\npeers = { b = \"192.0.2.20:1\" }"),
                "16:15 peering.peers.b: expected an address that stays with its node",
                &[],
            ),
            (
                "[vrrp.a]\ninterface = \"eth1\"\nvirtual_router_id = 51\naddresses = [\"192.0.2.21/24\"]",
                "7:12 backends.app.servers[0]: a server is another host",
                &["has a virtual address", "write the server's own address"],
            ),
        ],
    );
}

/// One frontend behind another, and a port of the active node that is no frontend's.
#[test]
fn a_virtual_address_that_does_not_lead_back_may_be_a_servers() {
    let servers = "[{ name = \"a\", address = \"192.0.2.20:80\" }, { name = \"b\", address = \"192.0.2.20:8080\" }]";
    let outer = format!(
        "[frontends.outer]\nbind = \"*:81\"\ndefault_backend = \"inner\"\n\n[backends.inner]\nservers = {servers}\n"
    );
    let output = check("layers", &format!("{SMALLEST}\n{outer}\n{}\n", vrrp("")));
    assert!(output.status.success(), "{}", stderr(&output));
}
