//! The election of two nodes as an observer on the wire sees it: which adverts and announcements are sent, and when.
//!
//! Needs root (namespaces, raw sockets, real-time priority). `RELEVO_LOAD_SECONDS` says for how long the machine is kept
//! busy (default 15).

mod rig;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{available_parallelism, scope, sleep};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::gettid;
use relevo::lab::fault::Fault;
use relevo::lab::network::mac;
use relevo::lab::node::router;
use relevo::lab::pair::{FLOATING, NODE_ADDRESSES, Options, VIRTUAL_ROUTER_ID};
use relevo::lab::trial::READY_TIMEOUT;
use relevo::lab::wire::{Said, Wire};

use rig::lab::{Lab, lab};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How late something may be on a noisy machine.
const TOLERANCE: Duration = ms(50);

/// Between two adverts, while the machine is busy.
const BUSY_INTERVAL: Duration = ms(10);

/// The capabilities of a node in restricted mode: those without which there is no election.
const RESTRICTED: &str = "-all,+net_admin,+net_raw,+net_bind_service";

/// A pair, and who listens on its wire.
struct Observed {
    lab: Lab,
    wire: Wire,
}

fn observed(change: impl FnOnce(&mut Options)) -> Option<Observed> {
    let lab = lab(change)?;
    let wire = Wire::tap(&lab.pair.switch).unwrap();
    Some(Observed { lab, wire })
}

impl Observed {
    /// The node's adverts since a moment: when, and with which priority.
    fn adverts(&self, node: usize, since: Instant) -> Vec<(Instant, u8)> {
        let advert = |(at, said)| match said {
            Said::Advert { source, virtual_router_id: VIRTUAL_ROUTER_ID, priority, .. }
                if source == NODE_ADDRESSES[node] =>
            {
                Some((at, priority))
            }
            _ => None,
        };
        self.wire.frames(since).into_iter().filter_map(|frame| advert((frame.at, frame.said))).collect()
    }

    /// When the node announced the floating IP since a moment.
    fn announcements(&self, node: usize, since: Instant) -> Vec<Instant> {
        let frames = self.wire.frames(since).into_iter();
        let is_its_own = |from| from == mac(NODE_ADDRESSES[node]);
        let announces = |said| said == Said::Announcement { address: FLOATING };
        frames.filter(|frame| is_its_own(frame.from) && announces(frame.said)).map(|frame| frame.at).collect()
    }

    /// Changes of state of both nodes since they started, by their own account.
    fn transitions(&self) -> [u64; 2] {
        self.lab.pair.status().map(|status| router(&status.unwrap().node).unwrap().transitions)
    }
}

/// Shortest and longest time between two adverts.
fn gaps(adverts: &[(Instant, u8)]) -> (Duration, Duration) {
    let gaps = || adverts.windows(2).map(|pair| pair[1].0 - pair[0].0);
    (gaps().min().unwrap_or_default(), gaps().max().unwrap_or_default())
}

/// The active node adverts once an interval, and the backup is silent.
#[test]
fn adverts_are_even_and_come_from_one_node() {
    let Some(observed) = observed(|_| {}) else { return };
    let active = observed.lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    let begin = Instant::now();
    sleep(ms(3000));
    let adverts = observed.adverts(active, begin);
    let (shortest, longest) = gaps(&adverts);
    eprintln!("{} adverts in 3 s, {shortest:?} to {longest:?} apart", adverts.len());
    assert!((27..=31).contains(&adverts.len()), "{} adverts in 3 s", adverts.len());
    assert!(shortest >= ms(100) - TOLERANCE && longest <= ms(100) + TOLERANCE, "{shortest:?} to {longest:?} apart");
    assert!(observed.adverts(1 - active, begin).is_empty(), "the backup adverts");
    assert!(observed.announcements(1 - active, begin).is_empty(), "the backup announces");
}

/// Whoever takes over adverts and announces at once, and again after 100 and 500 ms. The lease of the one before it, 1 s,
/// may last for 0.4 s more: it announces when that has ended, and half a second later. Then while a switch's port may still learn.
#[test]
fn a_takeover_is_announced_until_the_other_lease_has_ended() {
    let Some(observed) = observed(|options| options.preempt = false) else { return };
    let victim = observed.lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    let heir = 1 - victim;
    let struck = Fault::AllKilled.strike(&observed.lab.pair, victim).unwrap();
    sleep(ms(5500));
    let adverts = observed.adverts(heir, struck.at());
    let announcements = observed.announcements(heir, struck.at());
    let first = adverts.first().unwrap().0;
    assert!(announcements.first().is_some_and(|announced| *announced >= first), "it announces before it adverts");
    let after: Vec<Duration> = announcements.iter().map(|at| *at - first).collect();
    eprintln!("adverts {:?} after the fault, then announces after {after:?}", first - struck.at());
    let expected = [ms(0), ms(100), ms(500), ms(1400), ms(1900), ms(5000)];
    assert_eq!(after.len(), expected.len(), "{after:?}");
    for (after, expected) in after.iter().zip(expected) {
        assert!(*after + ms(2) >= expected && *after <= expected + TOLERANCE, "{after:?}, not {expected:?}");
    }
    let (shortest, longest) = gaps(&adverts);
    assert!(shortest >= ms(100) - TOLERANCE && longest <= ms(100) + TOLERANCE, "{shortest:?} to {longest:?} apart");
    assert!(observed.adverts(victim, struck.at() + ms(10)).is_empty(), "the dead adverts");
}

/// A node that is told to stop says so once, with priority 0, and then nothing.
#[test]
fn a_node_that_stops_says_so_once() {
    let Some(observed) = observed(|options| options.preempt = false) else { return };
    let victim = observed.lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    let struck = Fault::Terminated.strike(&observed.lab.pair, victim).unwrap();
    sleep(ms(2000));
    let adverts = observed.adverts(victim, struck.at());
    let zeros = adverts.iter().filter(|(_, priority)| *priority == 0).count();
    assert_eq!((zeros, adverts.last().map(|(_, priority)| *priority)), (1, Some(0)), "{adverts:?}");
    let let_go = adverts.last().unwrap().0;
    assert!(observed.announcements(victim, let_go).is_empty(), "it announces an address that it has given up");
    let heir = observed.adverts(1 - victim, struck.at());
    let after = heir.first().unwrap().0.saturating_duration_since(let_go);
    eprintln!("the other adverts {after:?} after priority 0");
    assert!(after <= TOLERANCE, "the other adverts only {after:?} after priority 0");
}

#[test]
fn busy_processors_change_no_state_in_privileged_mode() {
    let Some(observed) = observed(|options| options.interval = BUSY_INTERVAL) else { return };
    // A virtual machine whose processors all stand still proves nothing. A single one that does is no excuse.
    let is_fair = |seen: &Seen| seen.changes == 0 || seen.standstill < 2 * BUSY_INTERVAL;
    let seen = (0..3).map(|_| keep_busy(&observed)).find(is_fair);
    let seen = seen.expect("this machine stands still time and again: there is nothing to be learnt on it");
    assert_eq!(seen.changes, 0, "{seen}\n{}", observed.lab.pair.messages());
    assert_eq!(seen.strangers, 0, "the backup adverts: {seen}");
    assert!(seen.is_held_throughout, "{seen}\n{}", observed.lab.pair.messages());
}

#[test]
fn busy_processors_leave_one_active_in_restricted_mode() {
    let Some(observed) = observed(|options| {
        options.interval = BUSY_INTERVAL;
        options.binary = restricted(&options.binary, &options.directory);
    }) else {
        return;
    };
    assert!(observed.lab.pair.wait_ready(READY_TIMEOUT).is_ok(), "{}", observed.lab.pair.messages());
    let is_warned = |node: usize| observed.lab.pair.nodes[node].messages().contains("no real-time priority");
    assert!(is_warned(0) && is_warned(1), "{}", observed.lab.pair.messages());
    keep_busy(&observed);
    observed.lab.pair.wait_ready(READY_TIMEOUT).unwrap();
}

/// A program that runs `binary` without the capabilities of privileged mode.
fn restricted(binary: &Path, directory: &Path) -> PathBuf {
    let script = directory.join("relevo");
    let text = format!("#!/bin/sh\nexec setpriv --bounding-set={RESTRICTED} '{}' \"$@\"\n", binary.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

struct Seen {
    load: Duration,
    threads: usize,
    /// Longest time between two adverts, before and during the load.
    idle_gap: Duration,
    busy_gap: Duration,
    adverts: usize,
    /// Of the node that was backup.
    strangers: usize,
    /// Of state, of both nodes.
    changes: u64,
    is_held_throughout: bool,
    /// Longest time that a processor, and that none of them, ran even its most urgent thread.
    longest_standstill: Duration,
    standstill: Duration,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { load, threads, idle_gap, busy_gap, adverts, changes, longest_standstill, standstill, .. } = self;
        write!(
            f,
            "{threads} busy threads for {load:?}, {adverts} adverts at {BUSY_INTERVAL:?}, longest gap {busy_gap:?} (before: \
             {idle_gap:?}), {changes} changes of state; a processor stood still for {longest_standstill:?} at most, all of \
             them for {standstill:?}"
        )
    }
}

/// Twice as many threads as there are processors do nothing but compute.
fn keep_busy(observed: &Observed) -> Seen {
    let active = observed.lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    let seconds = std::env::var("RELEVO_LOAD_SECONDS").map_or(15, |seconds| seconds.parse().unwrap());
    let load = Duration::from_secs(seconds);
    let processors = available_parallelism().unwrap().get();
    let threads = 2 * processors;
    let before = Instant::now();
    sleep(ms(1000));
    let transitions = observed.transitions();
    let begin = Instant::now();
    let standstills: Vec<_> = scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| while begin.elapsed() < load {});
        }
        let watchers: Vec<_> =
            (0..processors).map(|processor| scope.spawn(move || standstills(processor, begin + load))).collect();
        watchers.into_iter().map(|watcher| watcher.join().unwrap()).collect()
    });
    let end = Instant::now();
    let (idle, adverts) = (observed.adverts(active, before), observed.adverts(active, begin));
    let idle: Vec<_> = idle.into_iter().filter(|(at, _)| *at < begin).collect();
    let owners = observed.lab.pair.watch.history();
    let unsettled = owners.longest_without_owner(begin, end) + owners.longest_with_two_owners(begin, end);
    let seen = Seen {
        load,
        threads,
        idle_gap: gaps(&idle).1,
        busy_gap: gaps(&adverts).1,
        adverts: adverts.len(),
        strangers: observed.adverts(1 - active, begin).len(),
        changes: observed.transitions().iter().zip(transitions).map(|(now, then)| now.abs_diff(then)).sum(),
        is_held_throughout: owners.holds(active) && unsettled.is_zero(),
        longest_standstill: standstills.iter().map(|spans| longest(spans)).max().unwrap(),
        standstill: longest(&standstills.into_iter().reduce(|one, other| common(&one, &other)).unwrap()),
    };
    eprintln!("{seen}");
    if seen.changes > 0 {
        eprintln!("{}", observed.lab.pair.messages());
    }
    seen
}

/// From and until.
type Span = (Instant, Instant);

fn longest(spans: &[Span]) -> Duration {
    spans.iter().map(|(from, until)| *until - *from).max().unwrap_or_default()
}

/// The times that are in both.
fn common(one: &[Span], other: &[Span]) -> Vec<Span> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
    pairs.filter(|(from, until)| from < until).collect()
}

/// When a processor did not run this thread that looks at the clock every millisecond, though it is more urgent than the
/// election itself.
fn standstills(processor: usize, until: Instant) -> Vec<Span> {
    let mut here = CpuSet::new();
    here.set(processor).unwrap();
    // A container's processors may have other numbers; then the thread goes where there is one.
    let _ = sched_setaffinity(gettid(), &here);
    let chrt = Command::new("chrt").args(["--fifo", "--pid", "50"]).arg(gettid().to_string()).status();
    assert!(chrt.unwrap().success(), "no real-time priority to be had");
    let mut standstills = Vec::new();
    while Instant::now() < until {
        let due = Instant::now() + ms(1);
        sleep(ms(1));
        let now = Instant::now();
        if now > due + ms(1) {
            standstills.push((due, now));
        }
    }
    standstills
}
