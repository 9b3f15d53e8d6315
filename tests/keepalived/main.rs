//! With Debian's keepalived as the other node, judged by an observer on the wire and by the kernel's events about addresses.
//!
//! Needs root (namespaces, raw sockets) and Debian's keepalived. Limits leave room for a noisy machine; what must never
//! happen is asserted exactly.

mod segment;

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use segment::Router::{self, Keepalived, Relevo};
use segment::{Segment, Setup, play};

/// The time stamp is put on an advert after its sender has looked at the clock.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(2);

/// Of quiet, with both routers up.
const QUIET: Duration = Duration::from_secs(3);

#[test]
fn relevo_takes_over_from_a_keepalived_that_is_killed_and_yields_when_it_is_back() {
    play(Setup::with_higher(Keepalived), the_higher_is_killed_and_comes_back);
}

#[test]
fn keepalived_takes_over_from_a_relevo_that_is_killed_and_yields_when_it_is_back() {
    play(Setup::with_higher(Relevo), the_higher_is_killed_and_comes_back);
}

#[test]
fn relevo_takes_over_from_a_killed_keepalived_by_unicast() {
    play(Setup { unicast: true, ..Setup::with_higher(Keepalived) }, the_higher_is_killed_and_comes_back);
}

#[test]
fn keepalived_takes_over_from_a_killed_relevo_by_unicast() {
    play(Setup { unicast: true, ..Setup::with_higher(Relevo) }, the_higher_is_killed_and_comes_back);
}

#[test]
fn relevo_takes_over_at_once_from_a_keepalived_that_stops() {
    play(Setup::with_higher(Keepalived), the_higher_lets_go);
}

#[test]
fn keepalived_takes_over_at_once_from_a_relevo_that_stops() {
    play(Setup::with_higher(Relevo), the_higher_lets_go);
}

#[test]
fn priority_0_is_obeyed_by_unicast_too() {
    for router in [Relevo, Keepalived] {
        play(Setup { unicast: true, ..Setup::with_higher(router) }, the_higher_lets_go);
    }
}

#[test]
fn a_relevo_that_does_not_preempt_leaves_a_lower_keepalived_active() {
    play(Setup { preempt: false, ..Setup::with_higher(Relevo) }, the_higher_comes_second_and_does_not_preempt);
}

#[test]
fn a_keepalived_that_does_not_preempt_leaves_a_lower_relevo_active() {
    play(Setup { preempt: false, ..Setup::with_higher(Keepalived) }, the_higher_comes_second_and_does_not_preempt);
}

#[test]
fn of_equal_priorities_the_greater_address_wins_relevos() {
    play(with_equal_priorities(Relevo), |segment| a_partition_heals_in_favour_of(segment, Relevo));
}

#[test]
fn of_equal_priorities_the_greater_address_wins_keepaliveds() {
    play(with_equal_priorities(Keepalived), |segment| a_partition_heals_in_favour_of(segment, Keepalived));
}

fn the_higher_is_killed_and_comes_back(segment: &mut Segment) {
    let setup = segment.setup;
    let (higher, lower) = (setup.higher(), setup.higher().other());
    let begin = Instant::now();
    segment.start_as_active(higher);
    segment.start_as_backup(lower);
    assert_quiet(segment, higher);

    let killed = Instant::now();
    segment.kill(higher);
    segment.wait_active(lower, killed);
    let last = segment.adverts(higher, begin).last().unwrap().0;
    let (first, priority) = segment.adverts(lower, killed)[0];
    let after = first - last;
    let active_down = setup.active_down(lower);
    assert_eq!(priority, setup.priority(lower));
    assert!(after + CLOCK_TOLERANCE >= active_down, "{lower:?} took over {after:?} after the last advert, too soon");
    assert!(after <= active_down + 2 * setup.interval, "{lower:?} took over {after:?} after the last advert, too late");
    eprintln!(
        "{lower:?} took over {after:?} after the last advert of {higher:?}; active-down interval {active_down:?}"
    );

    let returned = Instant::now();
    segment.start(higher);
    segment.wait_active(higher, returned);
    segment.wait(&format!("{lower:?} gives the address up"), || !segment.holds(lower));
    assert_quiet(segment, higher);
    let overlap = segment.longest_with_two_adverters(begin);
    assert!(overlap <= 2 * setup.interval, "both adverted for {overlap:?}");
    eprintln!("two adverters for {overlap:?} at most");
}

fn the_higher_lets_go(segment: &mut Segment) {
    let setup = segment.setup;
    let (higher, lower) = (setup.higher(), setup.higher().other());
    segment.start_as_active(higher);
    segment.start_as_backup(lower);
    // The backup has learnt who is active.
    sleep(3 * setup.interval);

    let asked = Instant::now();
    segment.terminate(higher);
    segment.wait_active(lower, asked);
    segment.wait(&format!("{higher:?} gives the address up"), || !segment.holds(higher));
    let (last, priority) = *segment.adverts(higher, asked).last().unwrap();
    assert_eq!(priority, 0, "{higher:?} did not say that it lets go");
    let after = segment.adverts(lower, asked)[0].0 - last;
    let skew = setup.skew(lower);
    eprintln!("{lower:?} took over {after:?} after {higher:?} let go; skew time {skew:?}");
    assert!(after + CLOCK_TOLERANCE >= skew, "{lower:?} took over {after:?} after priority 0, too soon");
    assert!(after <= skew + setup.interval, "{lower:?} took over {after:?} after priority 0, too late");
    assert!(skew + setup.interval < setup.active_down(lower));
}

fn the_higher_comes_second_and_does_not_preempt(segment: &mut Segment) {
    let setup = segment.setup;
    let (higher, lower) = (setup.higher(), setup.higher().other());
    segment.start_as_active(lower);
    segment.start_as_backup(higher);
    assert_quiet(segment, lower);
    let killed = Instant::now();
    segment.kill(lower);
    segment.wait_active(higher, killed);
}

fn with_equal_priorities(greater: Router) -> Setup {
    let [low, high] = [Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 0, 12)];
    let addresses = if greater == Relevo { [high, low] } else { [low, high] };
    Setup { priorities: [120, 120], addresses, ..Setup::with_higher(Relevo) }
}

fn a_partition_heals_in_favour_of(segment: &mut Segment, greater: Router) {
    let setup = segment.setup;
    let lesser = greater.other();
    segment.start_as_active(lesser);
    segment.start_as_backup(greater);
    assert_quiet(segment, lesser);

    let cut = Instant::now();
    segment.cut_off(greater);
    segment.wait_active(greater, cut);
    assert!(segment.holds(lesser), "in a silent partition both hold the address");
    let healed = segment.heal(greater);
    segment.wait(&format!("{lesser:?} gives the address up"), || !segment.holds(lesser));
    assert_quiet(segment, greater);
    let last = segment.adverts(lesser, cut).last().unwrap().0;
    let overlap = last.saturating_duration_since(healed);
    eprintln!("{lesser:?} adverted for {overlap:?} after the partition had healed");
    assert!(overlap <= 2 * setup.interval, "{lesser:?} adverted for {overlap:?} after the partition had healed");
    assert!(!segment.announcements(greater, healed).is_empty(), "{greater:?} did not announce the address again");
}

/// For a few seconds one router adverts, evenly, the other not at all, and the address stays.
fn assert_quiet(segment: &Segment, active: Router) {
    let begin = Instant::now();
    sleep(QUIET);
    let setup = segment.setup;
    let strangers = segment.adverts(active.other(), begin);
    assert!(
        strangers.is_empty(),
        "{:?} adverts beside {active:?}: {strangers:?}\n{}",
        active.other(),
        segment.messages()
    );
    let adverts = segment.adverts(active, begin);
    let expected = QUIET.div_duration_f64(setup.interval);
    assert!(adverts.len() as f64 >= 0.8 * expected, "{} adverts of {active:?}", adverts.len());
    assert!(adverts.len() as f64 <= 1.2 * expected, "{} adverts of {active:?}", adverts.len());
    let gap = adverts.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default();
    assert!(gap <= 2 * setup.interval, "{gap:?} between two adverts of {active:?}");
    assert!(segment.holds(active), "{active:?} has lost the address");
}
