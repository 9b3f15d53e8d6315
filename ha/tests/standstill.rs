//! A processor that does not run the election's thread, though the thread is urgent. Alone in its binary, for it keeps a
//! processor from all others.

mod network;

use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::process::Command;
use std::time::{Duration, Instant};

use network::{INTERFACE, blocking, until, with_pair};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::gettid;
use relevo_ha::{Driver, State, VirtualAddress, VirtualRouter};

const INTERVAL: Duration = Duration::from_millis(50);

/// The kernel moves no thread away from a processor that is in the middle of a long system call. Here it may not: the thread
/// is tied to a processor, and another one that is more urgent keeps that busy.
#[test]
fn a_processor_that_stands_still_stops_no_election() {
    with_pair(async |pair| {
        let [first, .., _last] = processors()[..] else {
            return eprintln!("did not run: it takes two processors");
        };
        if !pair.one.run(async { put_before_others(10) }).await {
            return eprintln!("did not run: it takes the right to real-time priority");
        }
        let router = VirtualRouter {
            name: "main".to_owned(),
            interface: INTERFACE.to_owned(),
            virtual_router_id: NonZeroU8::MIN,
            priority: NonZeroU8::MAX,
            addresses: vec![VirtualAddress { address: Ipv4Addr::new(192, 0, 2, 20), prefix_length: 24 }],
            advertisement_interval: INTERVAL,
            preempt: true,
            unicast_peers: Vec::new(),
            obey_other_addresses: false,
        };
        let driver = pair.one.run(Driver::start(vec![router])).await.unwrap();
        driver.set_eligible(Ok(()));
        let mut status = driver.status();
        let before = until(&mut status, "active", |router| router.state == State::Active).await;

        pair.one.run(async move { tie_to(first) }).await;
        let hog = move || {
            tie_to(first);
            assert!(put_before_others(50));
            let begin = Instant::now();
            while begin.elapsed() < 8 * INTERVAL {}
        };
        blocking(move || {
            std::thread::spawn(hog).join().map_err(|_panic| io::Error::other("it did not get its priority"))
        })
        .await;
        let after = until(&mut status, "sending", |router| router.adverts_sent >= before.adverts_sent + 8).await;
        assert_eq!((after.state, after.transitions), (State::Active, before.transitions), "{}", after.reason);
        pair.one.run(driver.stop()).await;
    });
}

/// Those this thread may run on.
fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(gettid()).unwrap();
    (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor).unwrap()).collect()
}

/// Has this thread run nowhere else.
fn tie_to(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor).unwrap();
    sched_setaffinity(gettid(), &only).unwrap();
}

/// Gives this thread a real-time priority, if that is to be had.
fn put_before_others(priority: u8) -> bool {
    let mut chrt = Command::new("chrt");
    chrt.args(["--fifo", "--reset-on-fork", "--pid", &priority.to_string(), &gettid().to_string()]);
    chrt.output().is_ok_and(|output| output.status.success())
}
