//! Hosts that are no nodes and have a virtual address: they are told, a start waits for them, and nodes are no such hosts.

mod network;

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use network::{INTERFACE, Node, until, with_pair};
use relevo_ha::{Driver, RouterStatus, State, VirtualAddress, VirtualRouter};
use tokio::sync::watch;

const TWO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);

fn router(priority: u8) -> VirtualRouter {
    VirtualRouter {
        name: "main".to_owned(),
        interface: INTERFACE.to_owned(),
        virtual_router_id: NonZeroU8::new(51).unwrap(),
        priority: NonZeroU8::new(priority).unwrap(),
        addresses: vec![VirtualAddress { address: VIRTUAL, prefix_length: 24 }],
        advertisement_interval: Duration::from_millis(50),
        preempt: true,
        unicast_peers: Vec::new(),
        obey_other_addresses: false,
    }
}

struct Running {
    driver: Driver,
    status: watch::Receiver<Vec<RouterStatus>>,
}

impl Running {
    async fn start(node: &Node, router: VirtualRouter) -> Running {
        let driver = node.run(Driver::start(vec![router])).await.unwrap();
        driver.set_eligible(Ok(()));
        Running { status: driver.status(), driver }
    }

    async fn until(&mut self, state: State) -> RouterStatus {
        until(&mut self.status, &format!("{state}"), |router| router.state == state).await
    }

    async fn stop(self, node: &Node) {
        node.run(self.driver.stop()).await;
    }
}

/// Another host has the address: whoever starts and hears no active router stays away from it, tells whose it is, and begins when it
/// is free.
#[test]
fn a_router_that_starts_takes_no_address_from_another_host() {
    with_pair(async |pair| {
        pair.two.add_address(VIRTUAL, 24).await;
        let mut one = Running::start(&pair.one, router(254)).await;
        let fault = until(&mut one.status, "in fault for it", |router| !router.address_conflicts.is_empty()).await;
        let mac = fault.address_conflicts[0].mac.clone();
        assert_eq!((fault.state, fault.address_conflicts[0].address), (State::Fault, VIRTUAL));
        assert_eq!(fault.reason, format!("another host, of MAC address {mac}, answers for {VIRTUAL}"));
        assert_eq!(mac, pair.two.hardware_address().await);
        assert!(pair.one.address(VIRTUAL).await.is_none());

        pair.two.delete_address(VIRTUAL).await;
        one.until(State::Active).await;
        pair.one.until_address(VIRTUAL, true).await;
    });
}

/// It hears of a router that is active, and so the address is no affair of its own.
#[test]
fn a_router_that_waits_for_an_address_follows_an_active_one() {
    with_pair(async |pair| {
        pair.two.add_address(VIRTUAL, 24).await;
        let mut one = Running::start(&pair.one, router(200)).await;
        until(&mut one.status, "in fault for it", |router| !router.address_conflicts.is_empty()).await;
        let _two = Running::start(&pair.two, router(255)).await;
        until(&mut one.status, "its backup", |router| {
            (router.state, router.active_router) == (State::Backup, Some(TWO))
        })
        .await;
        until(&mut one.status, "without a conflict: it is a node's", |router| router.address_conflicts.is_empty())
            .await;
    });
}

/// A node that died has left the address behind, or takes it, or gives it back: its MAC address is known, and nothing is told.
#[test]
fn an_address_that_a_node_has_is_no_conflict() {
    with_pair(async |pair| {
        pair.two.add_address(VIRTUAL, 24).await;
        let driver = pair.one.run(Driver::start(vec![router(200)])).await.unwrap();
        driver.set_nodes(&[TWO]);
        driver.set_eligible(Ok(()));
        let mut one = Running { status: driver.status(), driver };
        one.until(State::Active).await;
        pair.two.delete_address(VIRTUAL).await;

        let mut two = Running::start(&pair.two, router(254)).await;
        two.until(State::Active).await;
        one.until(State::Backup).await;
        let heard = one.status.borrow()[0].adverts_received;
        until(&mut one.status, "three seconds on", |router| router.adverts_received >= heard + 60).await;
        two.stop(&pair.two).await;
        let sent = one.until(State::Active).await.adverts_sent;
        let active = until(&mut one.status, "three seconds on", |router| router.adverts_sent >= sent + 60).await;
        assert_eq!((active.state, active.address_conflicts), (State::Active, Vec::new()));
    });
}
