//! The pair as its clients see it when a node fails: real processes in network namespaces, faults that are really done.
//!
//! Limits are five times as wide as promised, since machines are noisy; what must never happen is asserted exactly.

mod rig;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use relevo::lab::client::{EVERY, Prober};
use relevo::lab::fault::{Fault, Struck};
use relevo::lab::neighbour;
use relevo::lab::network::{INTERFACE, mac};
use relevo::lab::node::{Messages, is_active};
use relevo::lab::pair::{FLOATING, NODE_ADDRESSES, NODES, Options, Pair, VIRTUAL_ROUTER_ID, servers_up, target};
use relevo::lab::trial::{READY_TIMEOUT, Report, Trial};
use relevo::lab::wire::{Frame, Said, Wire};
use relevo::status::rivalries;

use rig::lab::{Lab, lab};
use rig::node::BINARY;

const TOLERANCE: u32 = 5;
const INTERVAL: Duration = Duration::from_millis(100);
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);

/// Within this, exactly one node holds the address again.
const SETTLED: Duration = Duration::from_secs(3);

/// After a fault: before and after the new active node has announced itself.
const FORGET_AT: &[Duration] = &[ms(5), ms(500)];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(ms(5));
    }
}

/// An attempt that takes as long had sent its packets to where nobody is, again and again.
const STRANDED: Duration = Duration::from_secs(2);

/// What holds for every fault that the other node can do something about.
fn assert_served(report: &Report, interval: Duration, pair: &Pair) {
    let name = report.fault.name();
    let limit = TOLERANCE * report.fault.limit(interval);
    let story = report.story.clone() + &pair.messages();
    assert!(report.without_owner <= limit, "{name}: nobody held it for {:?}\n{story}", report.without_owner);
    let settled = report.settled.unwrap_or_else(|| panic!("{name}: not exactly one node holds the address\n{story}"));
    assert!(settled <= SETTLED, "{name}: exactly one node held the address only after {settled:?}\n{story}");
    let after = &report.after;
    assert!(after.failed == 0 && after.longest < STRANDED, "{name}: it was over, and then {after:?}\n{story}");
}

/// The same fault three times, to whichever node is active, in a pair where nobody preempts.
fn survives(fault: Fault) {
    survives_at(fault, INTERVAL);
}

fn survives_at(fault: Fault, interval: Duration) {
    let Some(mut lab) = lab(|options| {
        options.interval = interval;
        options.preempt = false;
        options.max_connections = fault.max_connections();
    }) else {
        return;
    };
    let trial = Trial { observe: SETTLED + ms(200), ..Trial::of(fault) };
    let mut reports = [(); 3].map(|()| {
        let report = trial.run_and_undo(&mut lab.pair).unwrap();
        assert_served(&report, interval, &lab.pair);
        report
    });
    reports.sort_by_key(|report| report.outage.duration);
    // One of three may have met something else that the machine had to do.
    let [best, median, worst] = reports;
    let limit = TOLERANCE * fault.limit(interval);
    println!("{}: {:?}, {:?}, {:?}", fault.name(), best.outage, median.outage, worst.outage);
    assert!(
        median.outage.duration <= limit,
        "{:?} > {limit:?}\n{}{}",
        median.outage,
        median.story,
        lab.pair.messages()
    );
}

#[test]
fn all_processes_of_the_active_node_are_killed() {
    survives(Fault::AllKilled);
}

#[test]
fn the_balancer_is_killed() {
    survives(Fault::BalancerKilled);
}

#[test]
fn the_balancer_is_killed_while_it_holds_8000_connections() {
    survives(Fault::BalancerKilledHolding(8000));
}

#[test]
fn the_keeper_is_killed() {
    survives(Fault::KeeperKilled);
}

#[test]
fn the_keeper_is_killed_and_a_child_of_it_lives_on() {
    survives(Fault::KeeperKilledChildLives);
}

#[test]
fn the_guard_is_killed() {
    survives(Fault::GuardKilled);
}

#[test]
fn the_active_node_is_stopped_by_sigterm() {
    survives(Fault::Terminated);
}

#[test]
fn the_active_node_loses_its_carrier() {
    survives(Fault::CarrierLost);
}

#[test]
fn the_active_node_loses_its_carrier_at_10_ms() {
    survives_at(Fault::CarrierLost, ms(10));
}

#[test]
fn the_balancer_alone_is_stopped_by_sigstop() {
    survives(Fault::BalancerStopped);
}

#[test]
fn a_returning_node_of_higher_priority_takes_over_again() {
    let Some(mut lab) = lab(|_| {}) else { return };
    assert_eq!(lab.pair.wait_ready(READY_TIMEOUT).unwrap(), 0);
    let report = Trial::of(Fault::AllKilled).run_and_undo(&mut lab.pair).unwrap();
    assert_eq!((report.victim, lab.pair.active()), (0, Some(0)));
}

#[test]
fn a_client_that_forgets_who_has_the_address_is_not_stranded() {
    let Some(mut lab) = lab(|options| options.preempt = false) else { return };
    for fault in [Fault::AllKilled, Fault::CarrierLost, Fault::Frozen] {
        let trial = Trial { fault, observe: SETTLED + ms(200), forget_at: FORGET_AT };
        let report = trial.run_and_undo(&mut lab.pair).unwrap();
        assert!(
            report.outage.duration <= Duration::from_secs(2),
            "{}: {:?}\n{}",
            fault.name(),
            report.outage,
            report.story
        );
    }
}

#[test]
fn a_client_with_a_stale_entry_for_the_dead_node_is_not_stranded() {
    let Some(lab) = lab(|options| options.preempt = false) else { return };
    let pair = &lab.pair;
    let other = pair.switch.host("other-client", OTHER_CLIENT).unwrap();
    let victim = pair.wait_ready(READY_TIMEOUT).unwrap();
    // It talked to the floating IP once, and has not heard of it since.
    neighbour::believe(&other.namespace, FLOATING, mac(NODE_ADDRESSES[victim])).unwrap();
    let (_, struck) = Trial::of(Fault::AllKilled).run(pair).unwrap();
    let prober = Prober::start(&other.namespace, target(), EVERY).unwrap();
    wait_until("the other client is served", Duration::from_secs(2), || prober.is_well(ms(100)));
    assert!(struck.at().elapsed() < Duration::from_secs(5));
}

#[test]
fn a_node_that_was_frozen_wakes_as_backup_and_says_nothing() {
    let Some(mut lab) = lab(|options| options.preempt = false) else { return };
    let wire = Wire::tap(&lab.pair.switch).unwrap();
    let trial = Trial { observe: Duration::from_secs(10), ..Trial::of(Fault::Frozen) };
    let (report, struck) = trial.run(&lab.pair).unwrap();
    let victim = report.victim;
    assert_served(&report, INTERVAL, &lab.pair);
    assert!(!lab.pair.watch.history().holds(victim), "it keeps its address for ever\n{}", report.story);

    let woken = Instant::now();
    Fault::Frozen.undo(&mut lab.pair, victim, struck).unwrap();
    let active = lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    assert_eq!(active, 1 - victim);
    sleep((woken + SETTLED).saturating_duration_since(Instant::now()));

    let claims = claims_of(&wire.frames(woken), victim);
    assert!(claims.is_empty(), "it claims the address: {claims:?}");
    let history = lab.pair.watch.history();
    assert_eq!(history.longest_with_two_owners(woken, Instant::now()), Duration::ZERO, "{}", history.describe(woken));
    assert_eq!(history.longest_without_owner(woken, Instant::now()), Duration::ZERO, "{}", history.describe(woken));
    let outage = lab.pair.prober.outage(woken);
    assert_eq!(outage.failed, 0, "{outage:?}");
}

#[test]
fn a_silent_partition_heals_within_two_intervals_and_is_announced() {
    let Some(mut lab) = lab(|options| options.preempt = false) else { return };
    let wire = Wire::tap(&lab.pair.switch).unwrap();
    // First whichever is active, then the one of higher priority: it wins, and may not even have heard of a rival.
    for _ in 0..2 {
        let trial = Trial { observe: Duration::from_secs(3), ..Trial::of(Fault::Partitioned) };
        let (report, struck) = trial.run(&lab.pair).unwrap();
        let limit = TOLERANCE * Fault::Partitioned.limit(INTERVAL);
        assert!(report.outage.duration <= limit, "{:?}\n{}", report.outage, report.story);
        assert_eq!(lab.pair.watch.history().owners_at(Instant::now()), 2, "{}", report.story);

        let healed = Instant::now();
        Fault::Partitioned.undo(&mut lab.pair, report.victim, struck).unwrap();
        let history = || lab.pair.watch.history();
        let is_settled = || history().settled_after(healed, Instant::now()).is_some();
        wait_until("one node holds the address", TOLERANCE * 2 * INTERVAL, is_settled);
        let owner = usize::from(history().holds(1));
        let announced = || {
            let frames = wire.frames(healed);
            let announces = |frame: &Frame| frame.said == Said::Announcement { address: FLOATING };
            frames.iter().any(|frame| frame.from == mac(NODE_ADDRESSES[owner]) && announces(frame))
        };
        wait_until("the owner announces itself", Duration::from_secs(1), announced);
        assert_eq!(lab.pair.wait_ready(READY_TIMEOUT).unwrap(), owner);
        assert_eq!(history().owners_at(Instant::now()), 1);
    }
}

#[test]
fn a_peer_link_that_is_cut_without_a_death_moves_nothing() {
    let Some(lab) = lab(|options| options.preempt = false) else { return };
    let pair = &lab.pair;
    let active = pair.wait_ready(READY_TIMEOUT).unwrap();
    let begin = Instant::now();
    for node in [active, 1 - active, active] {
        let mut command = Command::new("ss");
        command.args(["-K", "-t", "-n", "-H", "state", "established", "( sport = :8650 or dport = :8650 )"]);
        command.stdout(Stdio::piped());
        let output = pair.nodes[node].host.namespace.spawn(command).unwrap().wait_with_output().unwrap();
        let killed = String::from_utf8_lossy(&output.stdout).lines().count();
        assert!(killed > 0, "ss -K found no peer link on {}", NODES[node]);
        assert_eq!(pair.wait_ready(READY_TIMEOUT).unwrap(), active, "the address moved");
        sleep(4 * INTERVAL);
    }
    let history = pair.watch.history();
    assert_eq!(history.longest_without_owner(begin, Instant::now()), Duration::ZERO, "{}", history.describe(begin));
    assert_eq!(history.longest_with_two_owners(begin, Instant::now()), Duration::ZERO, "{}", history.describe(begin));
    assert!(history.holds(active));
    let outage = pair.prober.outage(begin);
    assert_eq!(outage.failed, 0, "{outage:?}");
}

#[test]
fn messages_that_nobody_reads_delay_no_advert_and_no_takeover() {
    let Some(lab) = lab(|options| {
        options.messages = Messages::FullPipe;
        options.log_level = "trace".into();
    }) else {
        return;
    };
    let pair = &lab.pair;
    let wire = Wire::tap(&pair.switch).unwrap();
    let active = pair.wait_ready(READY_TIMEOUT).unwrap();
    let begin = Instant::now();
    sleep(20 * INTERVAL);
    let adverts: Vec<Instant> = wire.frames(begin).iter().filter(|f| is_advert_of(f, active)).map(|f| f.at).collect();
    assert!(adverts.len() >= 15, "only {} adverts in 20 intervals", adverts.len());
    let gap = adverts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(gap <= 2 * INTERVAL, "{gap:?} between two adverts");
    let (report, _struck) = Trial { observe: SETTLED + ms(200), ..Trial::of(Fault::AllKilled) }.run(pair).unwrap();
    assert_served(&report, INTERVAL, &lab.pair);
}

#[test]
fn after_both_nodes_were_killed_one_alone_serves_again() {
    let Some(mut lab) = lab(|options| options.preempt = false) else { return };
    lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    for node in &mut lab.pair.nodes {
        node.end().unwrap();
    }
    wait_until("the leases end", SETTLED, || lab.pair.watch.history().owners_at(Instant::now()) == 0);
    lab.pair.nodes[1].start().unwrap();
    let (prober, begin) = (&lab.pair.prober, Instant::now());
    let is_well = || begin.elapsed() > ms(300) && prober.is_well(ms(200));
    wait_until("a node alone serves", Duration::from_secs(10), is_well);
    let status = lab.pair.nodes[1].status().unwrap_or_else(|error| panic!("{error}\n{}", lab.pair.messages()));
    assert!(is_active(&status.node));
    assert!(status.peers.iter().all(|peer| !peer.connected && !peer.status.can_take_over));
}

#[test]
fn nodes_that_start_together_warn_of_no_difference_between_them() {
    let Some(lab) = lab(|_| {}) else { return };
    lab.pair.wait_ready(READY_TIMEOUT).unwrap();
    let messages = lab.pair.messages();
    assert!(!messages.contains("differs") && !messages.contains("the same configuration again"), "{messages}");
    assert!(!messages.contains("ERROR"), "{messages}");
}

/// Its last word was that it is active: no node says from that what it is now.
#[test]
fn a_host_that_died_suddenly_is_not_accused_of_being_active_too() {
    let Some(lab) = lab(|options| options.preempt = false) else { return };
    let (pair, victim) = (&lab.pair, lab.pair.wait_ready(READY_TIMEOUT).unwrap());
    let survivor = &pair.nodes[1 - victim];
    pair.nodes[victim].signal_all(Signal::SIGSTOP).unwrap();
    wait_until("the other takes over", SETTLED, || is_active(&survivor.status().unwrap().node));
    let begin = Instant::now();
    let mut was_linked = false;
    while begin.elapsed() < ms(600) {
        let status = survivor.status().unwrap();
        let socket = survivor.control_socket();
        let text = Command::new(BINARY).arg("status").arg("--socket").arg(socket).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        was_linked |= status.peers[0].connected;
        assert_eq!(rivalries(&status.node.vrrp, &status.peers).count(), 0, "{text}");
        assert!(!text.contains("both active"), "{text}");
        let name = NODES[victim];
        assert!(!text.contains(&format!("takeover: {name} could take over now")), "{text}");
        assert!(!text.contains(&format!("takeover: {name} is active")), "{text}");
        assert!(!status.peers[0].status.can_take_over, "{text}");
    }
    assert!(was_linked, "what it said last is still there");
    pair.nodes[victim].signal_all(Signal::SIGCONT).unwrap();
    wait_until("the peer is heard again", READY_TIMEOUT, || survivor.status().unwrap().peers[0].status.can_take_over);
}

/// Both ends believe in larger packets than the switch carries.
#[test]
fn a_peer_link_stays_up_where_the_way_carries_smaller_packets_than_its_ends() {
    let Some(lab) = lab(|options| {
        options.preempt = false;
        options.servers = 12;
    }) else {
        return;
    };
    let pair = &lab.pair;
    pair.wait_ready(READY_TIMEOUT).unwrap();
    // Segments of one packet each, as a network adapter would send them.
    let jumbo = ["link", "set", "dev", INTERFACE, "mtu", "9000", "gso_max_segs", "1"];
    for node in &pair.nodes {
        let mut command = Command::new("ip");
        command.args(jumbo);
        assert!(node.host.namespace.spawn(command).unwrap().wait().unwrap().success());
    }
    let begin = Instant::now();
    for node in &pair.nodes {
        let mut command = Command::new("ss");
        command.args(["-K", "-t", "-n", "-H", "state", "established", "( sport = :8650 or dport = :8650 )"]);
        command.stdout(Stdio::null());
        node.host.namespace.spawn(command).unwrap().wait().unwrap();
    }
    pair.wait_ready(READY_TIMEOUT).unwrap();
    // A state is told every second, and the kernel gives up after 3 s without an acknowledgement.
    sleep(ms(1500));
    pair.wait_ready(READY_TIMEOUT).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4), "{}", pair.messages());
    let status = pair.nodes[0].status().unwrap();
    assert!(serde_json::to_string(&status.node).unwrap().len() > 3000, "a state takes more than one packet");
}

/// Slow checks that need several successes, so that a node which takes the address back too soon answers 503 for seconds.
fn slow_checks(lab: &mut Options) {
    lab.health = r#"interval = "1s", timeout = "500ms", rise = 3, fall = 2"#.into();
}

fn up_at(pair: &Pair, node: usize) -> usize {
    pair.nodes[node].status().map_or(0, |status| servers_up(&status.node))
}

/// Nothing fails for a client from the moment on at which the fault is undone, until the node that was away is active again.
fn serves_through_a_return(lab: &mut Lab, fault: Fault, victim: usize, struck: Struck, active: usize) {
    let healed = Instant::now();
    fault.undo(&mut lab.pair, victim, struck).unwrap();
    let pair = &lab.pair;
    let is_there = || pair.active() == Some(active) && pair.client_is_well() && up_at(pair, victim) == 3;
    wait_until("the pair is whole", Duration::from_secs(15), is_there);
    sleep(Duration::from_secs(1));
    let outage = pair.prober.outage(healed);
    assert!(outage.duration <= TOLERANCE * ms(20), "{outage:?}\n{}", pair.messages());
}

#[test]
fn a_node_whose_cable_was_out_takes_the_address_back_when_it_can_serve() {
    let Some(mut lab) = lab(slow_checks) else { return };
    assert_eq!(lab.pair.wait_ready(READY_TIMEOUT).unwrap(), 0);
    for fault in [Fault::CarrierLost, Fault::Partitioned] {
        let trial = Trial { observe: Duration::from_secs(5), ..Trial::of(fault) };
        let (report, struck) = trial.run(&lab.pair).unwrap();
        // What checks find without carrier does not count; in a silent partition nobody can know.
        let up = if fault == Fault::CarrierLost { 3 } else { 0 };
        wait_until("its servers are as they must be", Duration::from_secs(5), || up_at(&lab.pair, 0) == up);
        assert_eq!(report.victim, 0);
        serves_through_a_return(&mut lab, fault, 0, struck, 0);
    }
}

#[test]
fn after_a_silent_partition_the_node_that_reaches_fewer_servers_gives_way() {
    let Some(mut lab) = lab(|options| {
        slow_checks(options);
        options.preempt = false;
    }) else {
        return;
    };
    // The one of higher priority would win.
    while lab.pair.wait_ready(READY_TIMEOUT).unwrap() != 0 {
        Trial::of(Fault::AllKilled).run_and_undo(&mut lab.pair).unwrap();
    }
    let trial = Trial { observe: Duration::from_secs(5), ..Trial::of(Fault::Partitioned) };
    let (_, struck) = trial.run(&lab.pair).unwrap();
    wait_until("it reaches none", Duration::from_secs(5), || up_at(&lab.pair, 0) == 0);
    assert_eq!(lab.pair.watch.history().owners_at(Instant::now()), 2);
    serves_through_a_return(&mut lab, Fault::Partitioned, 0, struck, 1);
}

/// With the prefix length of the file or with another, for good or not.
#[test]
fn an_address_that_somebody_gives_a_backup_is_removed_and_said() {
    let Some(lab) = lab(|options| options.preempt = false) else { return };
    let pair = &lab.pair;
    let active = pair.wait_ready(READY_TIMEOUT).unwrap();
    let backup = 1 - active;
    for (count, given) in (1..).zip([format!("{FLOATING}/24"), format!("{FLOATING}/32"), format!("{FLOATING}/16")]) {
        ip_address(pair, backup, &["add", &given, "dev", INTERFACE]);
        wait_until("it is removed", Duration::from_secs(1), || !pair.watch.history().holds(backup));
        let said = || pair.nodes[backup].messages().matches("that another program has added").count() == count;
        wait_until("it is said", Duration::from_secs(1), said);
    }
    assert_eq!(pair.wait_ready(READY_TIMEOUT).unwrap(), active);
}

#[test]
fn an_address_that_somebody_takes_from_the_active_node_is_put_back_and_said() {
    let Some(lab) = lab(|options| options.preempt = false) else { return };
    let pair = &lab.pair;
    let active = pair.wait_ready(READY_TIMEOUT).unwrap();
    ip_address(pair, active, &["del", &format!("{FLOATING}/24"), "dev", INTERFACE]);
    let said =
        || pair.nodes[active].messages().contains("another program has removed a virtual address, which is put back");
    wait_until("it is said", Duration::from_secs(1), said);
    wait_until("it is back", Duration::from_secs(1), || pair.watch.history().holds(active));
    assert_eq!(pair.wait_ready(READY_TIMEOUT).unwrap(), active);
}

fn ip_address(pair: &Pair, node: usize, arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.arg("address").args(arguments);
    assert!(pair.nodes[node].host.namespace.spawn(command).unwrap().wait().unwrap().success(), "{arguments:?}");
}

fn is_advert_of(frame: &Frame, node: usize) -> bool {
    let source = NODE_ADDRESSES[node];
    matches!(frame.said, Said::Advert { source: from, virtual_router_id: VIRTUAL_ROUTER_ID, .. } if from == source)
}

/// Adverts of an active router, and announcements.
fn claims_of(frames: &[Frame], node: usize) -> Vec<Said> {
    let is_claim = |frame: &&Frame| match frame.said {
        Said::Advert { priority, .. } => priority > 0 && is_advert_of(frame, node),
        Said::Announcement { address } => address == FLOATING && frame.from == mac(NODE_ADDRESSES[node]),
    };
    frames.iter().filter(is_claim).map(|frame| frame.said).collect()
}
