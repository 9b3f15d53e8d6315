//! Virtual addresses go, however they go, and take no address along that the host has besides.

mod network;

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use network::{INTERFACE, Node, leave_behind, with_pair};
use relevo_ha::{Driver, VirtualAddress, VirtualRouter, address};

/// Two subnets.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SECOND_OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const OTHER_OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OTHER_VIRTUAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);

const SUBNETS: [&[Ipv4Addr]; 4] = [
    &[OWN, VIRTUAL],
    &[OWN, VIRTUAL, SECOND_OWN],
    &[OWN, VIRTUAL, OTHER_OWN, OTHER_VIRTUAL],
    &[OTHER_OWN, VIRTUAL, OTHER_VIRTUAL],
];

fn is_virtual(address: &Ipv4Addr) -> bool {
    [VIRTUAL, OTHER_VIRTUAL].contains(address)
}

fn virtual_address(address: Ipv4Addr) -> VirtualAddress {
    VirtualAddress { address, prefix_length: 24 }
}

/// The owner of the addresses, which is active as soon as it may be.
fn router() -> VirtualRouter {
    VirtualRouter {
        name: "main".to_owned(),
        interface: INTERFACE.to_owned(),
        virtual_router_id: NonZeroU8::MIN,
        priority: NonZeroU8::MAX,
        addresses: [VIRTUAL, OTHER_VIRTUAL].map(virtual_address).to_vec(),
        advertisement_interval: Duration::from_millis(50),
        preempt: true,
        unicast_peers: Vec::new(),
        obey_other_addresses: false,
    }
}

/// Every order in which they can come.
fn orders(addresses: &[Ipv4Addr]) -> Vec<Vec<Ipv4Addr>> {
    if addresses.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |place: usize| {
        let mut rest = addresses.to_vec();
        let first = rest.remove(place);
        orders(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    (0..addresses.len()).flat_map(with_first).collect()
}

/// Compares what is there with what of these is not virtual.
async fn assert_own_alone(node: &Node, order: &[Ipv4Addr], how: &str) {
    let mut own: Vec<_> = order.iter().copied().filter(|address| !is_virtual(address)).collect();
    own.sort_unstable();
    let mut left = node.addresses().await;
    left.sort_unstable();
    assert_eq!(left, own, "{how}, after {order:?}");
}

#[test]
fn at_the_start_in_every_order() {
    with_pair(async |pair| {
        for order in SUBNETS.into_iter().flat_map(orders) {
            pair.one.set_addresses(&order).await;
            let driver = pair.one.run(Driver::start(vec![router()])).await.unwrap();
            assert_own_alone(&pair.one, &order, "given for good").await;
            pair.one.run(driver.stop()).await;
        }
    });
}

#[test]
fn what_is_left_behind_in_every_order() {
    with_pair(async |pair| {
        for order in SUBNETS.into_iter().flat_map(orders) {
            pair.one.set_addresses(&[]).await;
            for &address in &order {
                match is_virtual(&address) {
                    true => leave_behind(&pair.one, virtual_address(address)).await,
                    false => pair.one.add_address(address, 24).await,
                }
            }
            pair.one.run(address::release_all()).await.unwrap();
            assert_own_alone(&pair.one, &order, "left behind").await;
        }
    });
}

/// The virtual addresses are there first, and others come while they are held.
async fn hold_before(node: &Node, others: &[Ipv4Addr]) -> Driver {
    node.set_addresses(&[OWN]).await;
    let driver = node.run(Driver::start(vec![router()])).await.unwrap();
    driver.set_eligible(Ok(()));
    node.until_address(VIRTUAL, true).await;
    node.until_address(OTHER_VIRTUAL, true).await;
    // Somebody reads the settings of the host anew.
    node.forbid_promotion().await;
    for &other in others {
        node.add_address(other, 24).await;
    }
    driver
}

#[test]
fn at_a_handover_though_they_came_later() {
    with_pair(async |pair| {
        for others in [&[OTHER_OWN][..], &[SECOND_OWN, OTHER_OWN]] {
            let driver = hold_before(&pair.one, others).await;
            pair.one.run(driver.stop()).await;
            assert_own_alone(&pair.one, &[&[OWN], others].concat(), "handed over").await;
        }
    });
}

#[test]
fn at_the_end_of_the_lease_though_they_came_later() {
    with_pair(async |pair| {
        let driver = hold_before(&pair.one, &[OTHER_OWN]).await;
        // For one refresh of the lease, whose answer nobody is told of.
        pair.one.until_promotion().await;
        drop(driver);
        pair.one.until_address(OTHER_VIRTUAL, false).await;
        pair.one.until_address(VIRTUAL, false).await;
        assert_own_alone(&pair.one, &[OWN, OTHER_OWN], "the lease has ended").await;
    });
}
