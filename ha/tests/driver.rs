//! Two drivers on a wire, in network namespaces: what a neighbour, the kernel and a peer see of them.

mod network;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use network::{INTERFACE, Node, Pair, blocking, lease, leave_behind, until, with_pair};
use relevo_ha::address::Releaser;
use relevo_ha::packet::{Advert, GROUP};
use relevo_ha::{Driver, OtherRouter, RouterStatus, State, VirtualAddress, VirtualRouter};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const LONG: Duration = Duration::from_secs(20);

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

/// The first becomes active, then the second a backup that knows it.
async fn start_both(pair: &Pair, change: impl Fn(VirtualRouter) -> VirtualRouter) -> (Running, Running) {
    let mut one = Running::start(&pair.one, change(router(254))).await;
    one.until(State::Active).await;
    pair.one.until_address(VIRTUAL, true).await;
    let mut two = Running::start(&pair.two, change(router(253))).await;
    until(&mut two.status, "a backup of the first", |router| router.active_router == Some(ONE)).await;
    (one, two)
}

#[test]
fn the_active_router_holds_the_address_on_a_lease_and_announces_it() {
    with_pair(async |pair| {
        let wire = pair.two.run(async { capture_arp() }).await;
        let mut one = Running::start(&pair.one, router(254)).await;
        let active = one.until(State::Active).await;
        pair.one.until_address(VIRTUAL, true).await;

        let (marked, valid_seconds) = lease(&pair.one.address(VIRTUAL).await.unwrap());
        assert!(marked, "not marked as ours");
        assert_eq!(valid_seconds, 1);
        assert_eq!((active.own_address, active.active_router), (Some(ONE), Some(ONE)));
        assert_eq!((active.effective_priority, active.addresses), (254, vec!["192.0.2.20/24".to_owned()]));
        assert!(active.since.ends_with('Z'), "{} is not UTC", active.since);

        let (sender, target) = blocking(move || first_announcement(&wire)).await;
        assert_eq!((sender, target), (VIRTUAL, VIRTUAL));
    });
}

#[test]
fn a_backup_follows_the_active_router_and_takes_over_at_once_when_it_stops() {
    with_pair(async |pair| {
        let slow = |router| VirtualRouter { advertisement_interval: Duration::from_secs(1), ..router };
        let (one, mut two) = start_both(pair, slow).await;
        assert_eq!(two.status.borrow()[0].state, State::Backup);
        assert!(pair.two.address(VIRTUAL).await.is_none());

        let stopped = Instant::now();
        one.stop(&pair.one).await;
        assert!(pair.one.address(VIRTUAL).await.is_none(), "the address is still there when stop returned");
        two.until(State::Active).await;
        // Without the handover it takes three intervals.
        assert!(stopped.elapsed() < Duration::from_secs(1), "took over after {:?}", stopped.elapsed());
        pair.two.until_address(VIRTUAL, true).await;
    });
}

/// Two routers of one VRID whose addresses differ are two installations, and neither gives way; unless they know each other for
/// nodes of one, whose change of the addresses is on its way, or are told to obey.
#[test]
fn adverts_of_other_addresses_are_obeyed_of_nodes_alone() {
    with_pair(async |pair| {
        let other = VirtualAddress { address: Ipv4Addr::new(192, 0, 2, 50), prefix_length: 24 };
        let other =
            |priority, obeys| VirtualRouter { addresses: vec![other], obey_other_addresses: obeys, ..router(priority) };
        let mut one = Running::start(&pair.one, other(254, false)).await;
        one.until(State::Active).await;
        let mut two = Running::start(&pair.two, router(253)).await;
        two.until(State::Active).await;
        let heard = until(&mut two.status, "the other is told", |router| !router.other_routers.is_empty()).await;
        assert_eq!((heard.state, heard.adverts_received, heard.adverts_rejected), (State::Active, 0, 0));
        let told = OtherRouter { source: ONE, priority: 254, addresses: vec![Ipv4Addr::new(192, 0, 2, 50)] };
        assert_eq!(heard.other_routers, [told]);
        assert_eq!(one.status.borrow()[0].state, State::Active);

        two.driver.set_nodes(&[ONE]);
        let backup = two.until(State::Backup).await;
        assert_eq!(backup.active_router, Some(ONE));
        two.stop(&pair.two).await;

        let mut two = Running::start(&pair.two, VirtualRouter { obey_other_addresses: true, ..router(253) }).await;
        until(&mut two.status, "a backup of the first", |router| router.active_router == Some(ONE)).await;
        assert_eq!(two.status.borrow()[0].transitions, 1);
        two.stop(&pair.two).await;
        one.stop(&pair.one).await;
    });
}

#[test]
fn a_router_that_wakes_after_it_was_replaced_lets_go() {
    with_pair(async |pair| {
        let (mut one, mut two) = start_both(pair, |router| VirtualRouter { preempt: false, ..router }).await;
        let hung = pair.one.run(async { std::thread::sleep(Duration::from_millis(600)) });
        let replaced = two.until(State::Active);
        let (_hung, replaced) = tokio::join!(hung, replaced);
        assert!(replaced.reason.contains("192.0.2.1"), "{}", replaced.reason);

        let awake = one.until(State::Backup).await;
        assert!(awake.reason.contains("woke up"), "{}", awake.reason);
        pair.one.until_address(VIRTUAL, false).await;
        until(&mut one.status, "a backup of the second", |router| router.active_router == Some(TWO)).await;
        assert_eq!(
            (awake.adverts_sent, two.status.borrow()[0].state),
            (one.status.borrow()[0].adverts_sent, State::Active)
        );
    });
}

#[test]
fn a_router_known_to_be_gone_is_not_waited_for() {
    with_pair(async |pair| {
        let slow = |router| VirtualRouter { advertisement_interval: Duration::from_secs(5), ..router };
        let mut two = Running::start(&pair.two, slow(router(253))).await;
        two.until(State::Backup).await;
        let injector = pair.one.run(async { raw_socket() }).await;
        let theirs = VirtualRouter { priority: NonZeroU8::new(254).unwrap(), ..slow(router(254)) };
        send(&injector, &advert(&theirs).encode(ONE, GROUP));
        until(&mut two.status, "a backup", |router| router.active_router == Some(ONE)).await;

        let told = Instant::now();
        two.driver.router_gone(NonZeroU8::new(51).unwrap(), ONE, "its process died");
        let active = two.until(State::Active).await;
        assert!(told.elapsed() < Duration::from_secs(1), "took over after {:?}", told.elapsed());
        assert!(active.reason.contains("its process died"), "{}", active.reason);
    });
}

#[test]
fn an_address_that_somebody_deletes_is_put_back() {
    with_pair(async |pair| {
        // The lease lasts a minute, so no refresh comes in time to hide it.
        let slow = VirtualRouter { advertisement_interval: LONG, priority: NonZeroU8::MAX, ..router(255) };
        let mut one = Running::start(&pair.one, slow).await;
        one.until(State::Active).await;
        pair.one.until_address(VIRTUAL, true).await;
        pair.one.delete_address(VIRTUAL).await;
        pair.one.until_address(VIRTUAL, true).await;
        assert_eq!(one.status.borrow()[0].state, State::Active);
    });
}

#[test]
fn an_address_that_goes_with_that_of_another_router_is_put_back() {
    with_pair(async |pair| {
        // Of a subnet that the node has no address of its own in, one is the kernel's primary and the other hangs on it.
        let [first, second] = [1, 2].map(|last| Ipv4Addr::new(198, 51, 100, last));
        let slow = |id, address| VirtualRouter {
            virtual_router_id: NonZeroU8::new(id).unwrap(),
            addresses: vec![VirtualAddress { address, prefix_length: 24 }],
            advertisement_interval: LONG,
            ..router(255)
        };
        let routers = vec![slow(51, first), slow(52, second)];
        let driver = pair.one.run(Driver::start(routers)).await.unwrap();
        driver.set_eligible(Ok(()));
        pair.one.until_address(first, true).await;
        pair.one.until_address(second, true).await;

        pair.one.forbid_promotion().await;
        pair.one.delete_address(first).await;
        pair.one.until_address(first, true).await;
        pair.one.until_address(second, true).await;
        pair.one.run(driver.stop()).await;
    });
}

#[test]
fn a_router_without_carrier_is_in_fault_and_gives_the_address_up() {
    with_pair(async |pair| {
        let mut one = Running::start(&pair.one, router(254)).await;
        one.until(State::Active).await;
        pair.one.until_address(VIRTUAL, true).await;

        pair.two.set_up(false).await;
        let fault = one.until(State::Fault).await;
        assert!(fault.reason.contains("eth1 has no carrier"), "{}", fault.reason);
        assert_eq!((fault.effective_priority, fault.own_address), (0, None));
        pair.one.until_address(VIRTUAL, false).await;

        pair.two.set_up(true).await;
        one.until(State::Active).await;
        pair.one.until_address(VIRTUAL, true).await;
    });
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_followed() {
    with_pair(async |pair| {
        let (mut one, mut two) = start_both(pair, |router| router).await;
        pair.one.delete_interface().await;
        let gone = |router: &RouterStatus| router.reason.starts_with("interface eth1 does not exist");
        let fault = until(&mut one.status, "without its interface", gone).await;
        assert_eq!(fault.state, State::Fault);
        two.until(State::Fault).await;

        pair.join().await;
        one.until(State::Active).await;
        pair.one.until_address(VIRTUAL, true).await;
        until(&mut two.status, "a backup again", |router| {
            router.state == State::Backup && router.active_router == Some(ONE)
        })
        .await;
    });
}

#[test]
fn a_virtual_address_that_is_there_already_is_removed_at_the_start() {
    with_pair(async |pair| {
        pair.one.add_address(VIRTUAL, 24).await;
        // As others configure it.
        pair.one.add_address(VIRTUAL, 32).await;
        let driver = pair.one.run(Driver::start(vec![router(254)])).await.unwrap();
        assert!(pair.one.address(VIRTUAL).await.is_none());
        assert!(pair.one.address(ONE).await.is_some());
        pair.one.run(driver.stop()).await;
    });
}

#[test]
fn a_node_that_may_not_be_active_leaves_the_address_to_the_other() {
    with_pair(async |pair| {
        let (mut one, mut two) = start_both(pair, |router| router).await;
        one.driver.set_eligible(Err("the balancer died".to_owned()));
        let fault = until(&mut one.status, "not active", |router| router.state != State::Active).await;
        assert!(fault.reason.contains("the balancer died"), "{}", fault.reason);
        two.until(State::Active).await;
        pair.one.until_address(VIRTUAL, false).await;
    });
}

#[test]
fn a_router_whose_adverts_do_not_leave_gives_way_but_carries_on_where_it_is_alone() {
    with_pair(async |pair| {
        let (mut one, mut two) = start_both(pair, |router| router).await;
        if !pair.one.forbid_adverts().await {
            return eprintln!("did not run: it takes nftables");
        }
        two.until(State::Active).await;
        let unheard = one.until(State::Backup).await;
        assert!(unheard.reason.contains("do not leave"), "{}", unheard.reason);
        assert_eq!((unheard.active_router, unheard.adverts_unsent > 0), (Some(TWO), true));
        pair.one.until_address(VIRTUAL, false).await;
        pair.two.until_address(VIRTUAL, true).await;

        two.stop(&pair.two).await;
        one.until(State::Active).await;
        pair.one.until_address(VIRTUAL, true).await;
        let before = one.status.borrow()[0].clone();
        let later = until(&mut one.status, "unheard", |now| now.adverts_unsent >= before.adverts_unsent + 10).await;
        assert_eq!((later.state, later.transitions), (State::Active, before.transitions));
    });
}

#[test]
fn what_is_left_behind_is_released_and_nothing_else() {
    with_pair(async |pair| {
        let (left, other) = (VirtualAddress { address: VIRTUAL, prefix_length: 24 }, Ipv4Addr::new(192, 0, 2, 30));
        pair.one.add_address(other, 24).await;
        leave_behind(&pair.one, left).await;
        let released = pair.one.run(async { Releaser::new().unwrap().release_all().await }).await.unwrap();
        assert_eq!(released, [(INTERFACE.to_owned(), left)]);
        assert!(pair.one.address(VIRTUAL).await.is_none());
        assert!(pair.one.address(other).await.is_some());
        assert_eq!(pair.one.run(relevo_ha::address::release_all()).await.unwrap(), []);
    });
}

#[test]
fn packets_that_are_no_valid_adverts_are_counted_and_change_nothing() {
    with_pair(async |pair| {
        let mut one = Running::start(&pair.one, router(100)).await;
        let before = one.until(State::Active).await;
        let injector = pair.two.run(async { raw_socket() }).await;
        let stronger = advert(&router(254)).encode(TWO, GROUP);

        let cut_off = &stronger[..26];
        let mut forwarded = stronger.clone();
        forwarded[8] = 254;
        let mut oversized = stronger.clone();
        oversized.resize(1400, 0);
        for packet in [cut_off, &forwarded, &oversized] {
            send(&injector, packet);
        }
        let another_router = VirtualRouter { virtual_router_id: NonZeroU8::new(52).unwrap(), ..router(254) };
        send(&injector, &advert(&another_router).encode(TWO, GROUP));

        let after = until(&mut one.status, "three rejected", |router| router.adverts_rejected >= 3).await;
        assert_eq!((after.adverts_rejected, after.adverts_received), (3, 0));
        assert_eq!((after.state, after.transitions), (State::Active, before.transitions));

        send(&injector, &stronger);
        one.until(State::Backup).await;
    });
}

#[test]
fn unicast_adverts_are_taken_from_the_configured_peers_alone() {
    with_pair(async |pair| {
        let (mut one, two) = start_both(pair, |router| VirtualRouter { unicast_peers: vec![ONE, TWO], ..router }).await;
        drop(two.driver);
        let injector = pair.two.run(async { raw_socket() }).await;
        let stranger = advert(&router(255)).encode(Ipv4Addr::new(192, 0, 2, 99), ONE);
        injector.send_to(&stranger, &SocketAddrV4::new(ONE, 0).into()).unwrap();
        let after = until(&mut one.status, "one rejected", |router| router.adverts_rejected > 0).await;
        assert_eq!(after.state, State::Active);
    });
}

#[test]
fn adverts_keep_their_interval() {
    with_pair(async |pair| {
        let fast = VirtualRouter { advertisement_interval: Duration::from_millis(10), ..router(254) };
        let mut one = Running::start(&pair.one, fast).await;
        let first = one.until(State::Active).await.adverts_sent;
        let start = Instant::now();
        let later = until(&mut one.status, "200 adverts", |router| router.adverts_sent >= first + 200).await;
        let due = u64::try_from(start.elapsed().as_millis() / 10).unwrap();
        let sent = later.adverts_sent - first;
        // A busy machine sends late, never early.
        assert!((due / 2..=due + 2).contains(&sent), "{sent} adverts where {due} were due");
    });
}

fn advert(router: &VirtualRouter) -> Advert {
    Advert {
        virtual_router_id: router.virtual_router_id,
        priority: router.priority.get(),
        advertisement_interval: router.advertisement_interval,
        addresses: router.addresses.iter().map(|address| address.address).collect(),
    }
}

/// A socket that sends whatever packet it is given, on this interface.
fn raw_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    socket.bind_device(Some(INTERFACE.as_bytes())).unwrap();
    socket
}

fn send(socket: &Socket, packet: &[u8]) {
    socket.send_to(packet, &SocketAddrV4::new(GROUP, 0).into()).unwrap();
}

/// A socket that sees all ARP in its namespace.
fn capture_arp() -> Socket {
    const ETH_P_ARP: u16 = 0x0806;
    let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

/// The protocol addresses of the first ARP request that asks all for the sender's own address.
fn first_announcement(mut wire: &Socket) -> std::io::Result<(Ipv4Addr, Ipv4Addr)> {
    let mut frame = [0; 64];
    loop {
        let length = wire.read(&mut frame)?;
        let address = |at: usize| Ipv4Addr::from(*frame[at..].first_chunk::<4>().unwrap());
        let (operation, sender, target) = (&frame[20..22], address(28), address(38));
        if length >= 42 && frame[..6] == [0xff; 6] && operation == [0, 1] && sender == target {
            return Ok((sender, target));
        }
    }
}
