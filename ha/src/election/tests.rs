//! The transition table as data, then each rule beyond it.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use super::*;
use crate::router::VirtualAddress;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 12);
const SMALLER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
const GREATER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 13);
const ADDRESS: VirtualAddress = VirtualAddress { address: Ipv4Addr::new(192, 168, 1, 20), prefix_length: 24 };

/// Priority 192 makes the skew a quarter of the interval: 25 ms.
const PRIORITY: u8 = 192;
const ADVERT: Action = Action::SendAdvert { priority: PRIORITY };
const LET_GO: Action = Action::SendAdvert { priority: 0 };
const LEASE: Action = Action::Lease { seconds: 1 };

/// An election, its clock in milliseconds, and what it wanted last.
struct Bench {
    election: Election,
    now: u64,
}

impl Bench {
    fn new(priority: u8, preempt: bool) -> Self {
        let settings = Settings {
            priority: NonZeroU8::new(priority).unwrap(),
            advertisement_interval: Duration::from_millis(100),
            preempt,
        };
        Self { election: Election::new(settings, Time(0)), now: 0 }
    }

    fn backup() -> Self {
        let mut bench = Self::new(PRIORITY, true);
        bench.give(link_up());
        bench.give(Event::Eligible);
        bench
    }

    fn active() -> Self {
        let mut bench = Self::backup();
        bench.at(325, Event::Timer);
        bench.give(Event::AddressesTaken);
        assert_eq!(bench.election.state(), State::Active);
        bench
    }

    /// What is done about `event`, changes of state as the state alone.
    fn give(&mut self, event: Event) -> (Vec<Action>, State) {
        let mut actions = Vec::new();
        self.election.handle(event, Time(self.now * 1000), &mut actions);
        actions.retain(|action| !matches!(action, Action::Changed(_)));
        (actions, self.election.state())
    }

    fn at(&mut self, now: u64, event: Event) -> (Vec<Action>, State) {
        assert!(now >= self.now);
        self.now = now;
        self.give(event)
    }

    /// Milliseconds from now.
    fn deadline(&self) -> Option<f64> {
        self.election.next_deadline().map(|at| (at.0 as f64 / 1000.0) - self.now as f64)
    }

    /// Follows its deadlines for so long; what it did, and when.
    fn follow(&mut self, milliseconds: u64) -> Vec<(u64, Action)> {
        let end = self.now + milliseconds;
        let mut done = Vec::new();
        while let Some(at) = self.election.next_deadline().filter(|at| at.0 <= end * 1000) {
            let (actions, _) = self.at(at.0.div_ceil(1000), Event::Timer);
            done.extend(actions.iter().map(|action| (self.now, action.clone())));
            if actions.contains(&LEASE) {
                self.give(Event::AddressesTaken);
            }
        }
        self.now = end;
        done
    }
}

fn link_up() -> Event {
    Event::LinkUp { own_address: OWN }
}

fn link_down() -> Event {
    Event::LinkDown { reason: "no carrier".into() }
}

fn ineligible() -> Event {
    Event::Ineligible { reason: "the balancer does not serve".into() }
}

fn refused() -> Event {
    Event::AddressRefused { reason: "no permission".into() }
}

fn advert(source: Ipv4Addr, priority: u8, milliseconds: u64) -> Event {
    Event::Advert(Received { source, priority, advertisement_interval: Duration::from_millis(milliseconds) })
}

fn gone(address: Ipv4Addr) -> Event {
    Event::RouterGone { address, reason: "its process has ended".into() }
}

fn unsent() -> Event {
    Event::AdvertNotSent { reason: "not permitted".into() }
}

/// RFC 9568 §6.4: from a state an event leads to actions, a state and a timer (milliseconds).
#[test]
fn the_transition_table() {
    use Action::RemoveAddresses;
    use State::{Active, Backup, Fault, Init};
    type Row = (fn() -> Bench, Event, &'static [Action], State, Option<f64>);
    let not_preempting = || {
        let mut bench = Bench::new(PRIORITY, false);
        bench.give(link_up());
        bench.give(Event::Eligible);
        bench
    };
    let linked = || {
        let mut bench = Bench::new(PRIORITY, true);
        bench.give(link_up());
        bench
    };
    let owner_linked = || {
        let mut bench = Bench::new(255, false);
        bench.give(link_up());
        bench
    };
    let due = || {
        let mut bench = Bench::backup();
        bench.now = 325;
        bench
    };
    let faulty = || {
        let mut bench = Bench::backup();
        bench.give(link_down());
        bench
    };
    let rows: &[Row] = &[
        // §6.4.1 Initialize
        (|| Bench::new(PRIORITY, true), Event::Eligible, &[], Init, None),
        (|| Bench::new(PRIORITY, true), advert(SMALLER, 1, 100), &[], Init, None),
        (linked, Event::Eligible, &[], Backup, Some(325.0)),
        (linked, ineligible(), &[], Fault, None),
        (owner_linked, Event::Eligible, &[Action::SendAdvert { priority: 255 }, LEASE], Active, Some(100.0)),
        // §6.4.2 Backup
        (due, Event::Timer, &[ADVERT, LEASE], Active, Some(100.0)),
        (Bench::backup, Event::Timer, &[], Backup, Some(325.0)),
        (Bench::backup, Event::Stop, &[], Init, None),
        (Bench::backup, advert(SMALLER, 0, 100), &[], Backup, Some(25.0)),
        (Bench::backup, advert(SMALLER, 193, 100), &[], Backup, Some(325.0)),
        (Bench::backup, advert(SMALLER, 192, 1000), &[], Backup, Some(3250.0)),
        (Bench::backup, advert(GREATER, 191, 1000), &[], Backup, Some(325.0)),
        (not_preempting, advert(SMALLER, 1, 1000), &[], Backup, Some(3250.0)),
        (Bench::backup, advert(OWN, 255, 1000), &[], Backup, Some(325.0)),
        (Bench::backup, gone(SMALLER), &[], Backup, Some(325.0)),
        (Bench::backup, link_down(), &[], Fault, None),
        (Bench::backup, ineligible(), &[], Fault, None),
        (Bench::backup, refused(), &[], Backup, Some(325.0)),
        (Bench::backup, Event::AddressLost(ADDRESS), &[], Backup, Some(325.0)),
        // §6.4.3 Active
        (Bench::active, Event::Timer, &[], Active, Some(100.0)),
        (Bench::active, Event::Stop, &[LET_GO, RemoveAddresses], Init, None),
        (Bench::active, advert(GREATER, 0, 100), &[ADVERT], Active, Some(100.0)),
        (Bench::active, advert(SMALLER, 193, 1000), &[RemoveAddresses, ADVERT], Backup, Some(3250.0)),
        (Bench::active, advert(GREATER, 192, 1000), &[RemoveAddresses, ADVERT], Backup, Some(3250.0)),
        (Bench::active, advert(SMALLER, 192, 1000), &[ADVERT], Active, Some(100.0)),
        (Bench::active, advert(GREATER, 191, 1000), &[ADVERT], Active, Some(100.0)),
        (Bench::active, advert(OWN, 255, 1000), &[], Active, Some(100.0)),
        (Bench::active, gone(SMALLER), &[], Active, Some(100.0)),
        (Bench::active, link_down(), &[RemoveAddresses], Fault, None),
        (Bench::active, ineligible(), &[LET_GO, RemoveAddresses], Fault, None),
        (Bench::active, refused(), &[LET_GO, RemoveAddresses], Fault, Some(5000.0)),
        (Bench::active, Event::AddressLost(ADDRESS), &[LEASE], Active, Some(100.0)),
        (Bench::active, unsent(), &[], Active, Some(100.0)),
        (Bench::active, Event::AddressesRemoved, &[], Active, Some(100.0)),
        // Fault
        (faulty, link_up(), &[], Backup, Some(325.0)),
        (faulty, Event::Eligible, &[], Fault, None),
        (faulty, advert(SMALLER, 1, 100), &[], Fault, None),
        (faulty, Event::AddressesRemoved, &[], Fault, None),
        (faulty, Event::Stop, &[], Init, None),
    ];
    for (number, (before, event, actions, state, deadline)) in rows.iter().enumerate() {
        let mut bench = before();
        let done = bench.give(event.clone());
        assert_eq!(done, (actions.to_vec(), *state), "row {number}: {event:?}");
        assert_eq!(bench.deadline(), *deadline, "row {number}: {event:?}");
    }
}

#[test]
fn every_change_is_reported_with_its_reason() {
    let mut bench = Bench::backup();
    bench.give(advert(SMALLER, 200, 100));
    let mut actions = Vec::new();
    bench.election.handle(gone(SMALLER), Time(0), &mut actions);
    let reason = "192.168.1.11 is gone: its process has ended".to_owned();
    assert_eq!(
        actions,
        [ADVERT, LEASE, Action::Changed(Transition { from: State::Backup, to: State::Active, reason })]
    );
}

#[test]
fn who_is_active() {
    let mut bench = Bench::backup();
    assert_eq!(bench.election.active_router(), None);
    bench.give(advert(GREATER, 100, 100));
    assert_eq!(bench.election.active_router(), None, "that one is not obeyed");
    bench.give(advert(SMALLER, 200, 100));
    assert_eq!(bench.election.active_router(), Some(SMALLER));
    assert_eq!(Bench::active().election.active_router(), Some(OWN));
}

#[test]
fn a_router_known_to_be_gone_is_replaced_at_once_if_it_was_the_active_one() {
    let mut bench = Bench::backup();
    bench.give(advert(SMALLER, 200, 100));
    assert_eq!(bench.give(gone(GREATER)), (vec![], State::Backup));
    assert_eq!(bench.give(gone(SMALLER)), (vec![ADVERT, LEASE], State::Active));
}

#[test]
fn after_priority_0_it_is_still_known_who_let_go() {
    let mut bench = Bench::backup();
    bench.give(advert(SMALLER, 200, 100));
    bench.give(advert(SMALLER, 0, 100));
    assert_eq!(bench.give(gone(SMALLER)).1, State::Active);
}

#[test]
fn an_active_router_adverts_and_refreshes_its_lease() {
    let done = Bench::active().follow(1000);
    let times = |wanted: Action| -> Vec<_> {
        done.iter().filter(|(_, action)| *action == wanted).map(|(at, _)| at - 325).collect()
    };
    assert_eq!(times(ADVERT), [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    assert_eq!(times(LEASE), [250, 500, 750, 1000]);
    assert_eq!(times(Action::Announce), [100, 500]);
}

#[test]
fn the_lease_is_the_shortest_in_whole_seconds_that_outlives_three_intervals() {
    for (interval, seconds) in [(10, 1), (333, 1), (334, 2), (1000, 3), (40_950, 123)] {
        let settings = Settings {
            priority: NonZeroU8::MAX,
            advertisement_interval: Duration::from_millis(interval),
            preempt: true,
        };
        let mut bench = Bench { election: Election::new(settings, Time(0)), now: 0 };
        bench.give(link_up());
        assert!(bench.give(Event::Eligible).0.contains(&Action::Lease { seconds }), "{interval} ms");
    }
}

#[test]
fn a_router_that_preempts_says_whom() {
    let mut bench = Bench::backup();
    bench.give(advert(SMALLER, 100, 100));
    let mut actions = Vec::new();
    bench.election.handle(Event::Timer, Time(325_000), &mut actions);
    let reason = "preempted 192.168.1.11, which adverts with priority 100".to_owned();
    let changed = Action::Changed(Transition { from: State::Backup, to: State::Active, reason });
    assert!(actions.contains(&changed), "{actions:?}");
}

#[test]
fn announced_when_the_kernel_has_the_addresses_not_before() {
    let mut bench = Bench::backup();
    bench.at(325, Event::Timer);
    assert_eq!(bench.give(advert(SMALLER, 1, 100)), (vec![ADVERT], State::Active));
    assert_eq!(bench.give(Event::AddressesTaken), (vec![Action::Announce], State::Active));
    assert_eq!(bench.give(Event::AddressesTaken), (vec![], State::Active), "a refresh is no news");
}

/// The old active router adverts every second, so it leases for three; the kernel may be 0.4 s late; and half a second later.
#[test]
fn announced_again_after_the_old_lease_has_ended_and_every_minute() {
    let mut bench = Bench::backup();
    bench.give(advert(SMALLER, 200, 1000));
    bench.give(gone(SMALLER));
    bench.give(Event::AddressesTaken);
    let done = bench.follow(130_000);
    let announced: Vec<_> = done.iter().filter(|(_, action)| *action == Action::Announce).map(|(at, _)| *at).collect();
    assert_eq!(announced, [100, 500, 3400, 3900, 63_900, 123_900]);
}

#[test]
fn announced_again_after_an_advert_of_lower_priority() {
    for priority in [0, 100] {
        let mut bench = Bench::active();
        bench.follow(10_000);
        assert_eq!(bench.give(advert(SMALLER, priority, 100)).0, [ADVERT, Action::Announce]);
    }
}

#[test]
fn a_flood_of_adverts_of_lower_priority_is_no_flood_of_answers() {
    let mut bench = Bench::active();
    let answers: usize = (0..1000)
        .map(|_| bench.give(advert(SMALLER, 1, 100)).0.iter().filter(|action| **action == ADVERT).count())
        .sum();
    assert_eq!(answers, 8);
}

#[test]
fn an_advert_that_is_late_does_not_delay_those_after_it() {
    let mut bench = Bench::active();
    for beat in 1..=10 {
        let (actions, _) = bench.at(325 + 100 * beat + 30, Event::Timer);
        assert!(actions.contains(&ADVERT), "beat {beat}: {actions:?}");
        bench.give(Event::AddressesTaken);
    }
    let (actions, _) = bench.at(325 + 1000 + 250, Event::Timer);
    assert!(actions.contains(&ADVERT));
    assert_eq!(bench.give(Event::Timer).0, [], "late by more than a beat: no burst");
}

#[test]
fn a_router_that_may_have_been_replaced_lets_go_before_anything_else() {
    let fence = [Action::RemoveAddresses, Action::DrainReceived];
    let events = [
        Event::Timer,
        advert(SMALLER, 0, 100),
        advert(SMALLER, 100, 100),
        advert(SMALLER, 200, 100),
        link_up(),
        Event::Eligible,
        Event::AddressesTaken,
        refused(),
        Event::AddressLost(ADDRESS),
        gone(SMALLER),
    ];
    for event in events {
        let mut bench = Bench::active();
        assert_eq!(bench.at(325 + 300, event.clone()), (fence.to_vec(), State::Backup), "{event:?}");
        assert_eq!((bench.deadline(), bench.election.active_router()), (Some(325.0), None), "{event:?}");
        assert_eq!(bench.give(gone(SMALLER)), (vec![], State::Backup), "what it knew does not count");
    }
    for (event, state) in [(link_down(), State::Fault), (ineligible(), State::Fault), (Event::Stop, State::Init)] {
        assert_eq!(Bench::active().at(325 + 300, event.clone()), (fence.to_vec(), state), "{event:?}");
    }
    assert_eq!(Bench::active().at(325 + 299, Event::Timer).1, State::Active, "nobody can have replaced it yet");
}

#[test]
fn a_lease_is_late_three_intervals_after_the_last_advert() {
    let mut bench = Bench::backup();
    assert_eq!(bench.election.replaceable_at(), None);
    bench.at(325, Event::Timer);
    assert_eq!(bench.election.replaceable_at(), Some(Time(625_000)));
    bench.at(425, Event::Timer);
    assert_eq!(bench.election.replaceable_at(), Some(Time(725_000)));
}

#[test]
fn a_backup_that_was_absent_listens_first_but_only_once() {
    let mut bench = Bench::backup();
    bench.give(advert(SMALLER, 200, 100));
    assert_eq!(bench.at(425, gone(SMALLER)), (vec![Action::DrainReceived], State::Backup));
    assert_eq!(bench.deadline(), Some(325.0));
    assert_eq!(bench.at(2000, Event::Timer), (vec![ADVERT, LEASE], State::Active));
}

#[test]
fn an_address_that_was_lost_is_put_back_and_announced() {
    let mut bench = Bench::active();
    assert_eq!(bench.give(Event::AddressLost(ADDRESS)), (vec![LEASE], State::Active));
    assert_eq!(bench.give(Event::AddressesTaken), (vec![Action::Announce], State::Active));
}

#[test]
fn an_address_that_keeps_being_lost_is_given_up() {
    let mut bench = Bench::active();
    for _ in 0..3 {
        assert_eq!(bench.give(Event::AddressLost(ADDRESS)).1, State::Active);
    }
    let done = bench.give(Event::AddressLost(ADDRESS));
    assert_eq!(done, (vec![LET_GO, Action::RemoveAddresses], State::Fault));

    let mut slowly = Bench::active();
    for _ in 0..10 {
        slowly.follow(4_000);
        assert_eq!(slowly.give(Event::AddressLost(ADDRESS)).1, State::Active);
        slowly.give(Event::AddressesTaken);
    }

    let mut several = Bench::active();
    for last in 1..=20 {
        let address = VirtualAddress { address: Ipv4Addr::new(192, 168, 1, last), ..ADDRESS };
        assert_eq!(several.give(Event::AddressLost(address)).1, State::Active, "all flushed at once");
    }
}

#[test]
fn a_kernel_that_does_not_answer_ends_it_with_the_lease() {
    let mut bench = Bench::backup();
    bench.at(325, Event::Timer);
    for now in (425..1325).step_by(100) {
        assert_eq!(bench.at(now, Event::Timer).1, State::Active);
    }
    assert_eq!(bench.at(1325, Event::Timer), (vec![LET_GO, Action::RemoveAddresses], State::Fault));
}

/// Until then nobody knows whether it still holds the addresses.
#[test]
fn when_the_kernel_answers_again_it_takes_part_at_once() {
    let mut bench = Bench::backup();
    for now in (325..=1325).step_by(100) {
        bench.at(now, Event::Timer);
    }
    assert_eq!((bench.election.state(), bench.deadline()), (State::Fault, None));
    bench.give(link_down());
    bench.give(link_up());
    assert_eq!(bench.election.state(), State::Fault, "it still does not answer");
    bench.now += 700;
    assert_eq!(bench.give(Event::AddressesRemoved), (vec![], State::Backup));
    bench.give(advert(SMALLER, 100, 100));
    assert_eq!(bench.election.active_router(), Some(SMALLER), "obeyed for now");
    assert_eq!(bench.at(2350, Event::Timer), (vec![ADVERT, LEASE], State::Active), "there is nobody else");
}

#[test]
fn a_router_that_cannot_be_heard_gives_way_to_any_that_it_hears() {
    let mut bench = Bench::active();
    assert_eq!(bench.give(unsent()).1, State::Active, "there may be nobody else");
    assert_eq!(bench.give(advert(SMALLER, 1, 1000)), (vec![ADVERT], State::Active));
    assert_eq!(bench.give(unsent()), (vec![Action::RemoveAddresses], State::Backup));
    assert_eq!((bench.election.active_router(), bench.deadline()), (Some(SMALLER), Some(3250.0)));
    bench.at(3500, advert(SMALLER, 1, 1000));
    assert_eq!(bench.deadline(), Some(3250.0), "it does not preempt");
    bench.at(6750, Event::Timer);
    assert_eq!(bench.give(unsent()).1, State::Active, "there is nobody else");
}

#[test]
fn a_router_that_preempts_unheard_gives_way_again() {
    let mut bench = Bench::backup();
    bench.give(advert(SMALLER, 100, 100));
    assert_eq!(bench.at(325, Event::Timer), (vec![ADVERT, LEASE], State::Active));
    assert_eq!(bench.give(unsent()), (vec![Action::RemoveAddresses], State::Backup));
    bench.give(advert(SMALLER, 100, 100));
    assert_eq!(bench.election.active_router(), Some(SMALLER));
}

/// The transmit queue was full for a moment.
#[test]
fn one_advert_that_does_not_leave_is_nothing_when_the_answer_to_the_rival_did() {
    let mut bench = Bench::active();
    assert_eq!(bench.give(advert(SMALLER, 100, 100)), (vec![ADVERT], State::Active));
    let (actions, _) = bench.at(bench.now + 100, Event::Timer);
    assert!(actions.contains(&ADVERT));
    assert_eq!(bench.give(unsent()).1, State::Active);
}

/// It was frozen, though not for long enough to be replaced, between a request and its answer.
#[test]
fn each_answer_counts_for_its_request() {
    let mut bench = Bench::backup();
    bench.at(325, Event::Timer);
    assert_eq!(bench.at(600, Event::Timer), (vec![ADVERT, LEASE], State::Active));
    bench.give(Event::AddressesTaken);
    bench.give(Event::AddressesTaken);
    for now in (700..1600).step_by(100) {
        assert_eq!(bench.at(now, Event::Timer).1, State::Active, "leased until 1600 ms");
    }
    assert_eq!(bench.at(1600, Event::Timer).1, State::Fault);
}

/// It takes part again after five seconds, and takes over if there is nobody else; but it disturbs no other for a while.
#[test]
fn who_could_not_hold_the_addresses_stands_back() {
    let mut bench = Bench::active();
    bench.give(refused());
    bench.give(link_down());
    bench.give(link_up());
    assert_eq!(bench.election.state(), State::Fault, "the pause goes on");
    let retry = bench.now + 5_000;
    assert_eq!(bench.at(retry, Event::Timer), (vec![], State::Backup));
    bench.give(advert(SMALLER, 100, 100));
    assert_eq!(bench.election.active_router(), Some(SMALLER), "obeyed for now");
    let yields_until = retry + 10_000;
    while bench.now < yields_until - 100 {
        let next = bench.now + 100;
        assert_eq!(bench.at(next, advert(SMALLER, 100, 100)).1, State::Backup);
    }
    while bench.election.state() == State::Backup {
        let next = bench.now + 100;
        bench.at(next, advert(SMALLER, 100, 100));
    }
    assert!((yields_until..=yields_until + 425).contains(&bench.now), "{}", bench.now);
    bench.give(refused());
    let retry = bench.now + 5_000;
    bench.at(retry, Event::Timer);
    assert_eq!(bench.at(retry + 325, Event::Timer).1, State::Active, "there is nobody else");
}

#[test]
fn link_and_eligibility_each_keep_it_out() {
    let mut bench = Bench::active();
    bench.give(link_down());
    bench.give(ineligible());
    assert_eq!(bench.election.obstacle(), Some("no carrier"));
    assert_eq!(bench.give(link_up()), (vec![], State::Fault));
    assert_eq!(bench.election.obstacle(), Some("the balancer does not serve"));
    assert_eq!(bench.give(Event::Eligible), (vec![], State::Backup));
}

#[test]
fn a_new_own_address_is_used_from_then_on() {
    let mut bench = Bench::active();
    let own_address = Ipv4Addr::new(192, 168, 1, 99);
    assert_eq!(bench.give(Event::LinkUp { own_address }), (vec![], State::Active));
    assert_eq!(bench.election.active_router(), Some(own_address));
    assert_eq!(bench.give(advert(GREATER, PRIORITY, 100)).1, State::Active, "ours is the greater now");
    assert_eq!(bench.give(advert(own_address, 255, 100)).1, State::Active, "our own, sent back");
}

#[test]
fn stopped_is_for_good() {
    let mut bench = Bench::active();
    bench.give(Event::Stop);
    for event in [link_up(), Event::Eligible, Event::Timer, advert(SMALLER, 0, 100)] {
        assert_eq!(bench.give(event), (vec![], State::Init));
    }
    assert_eq!(bench.deadline(), None);
}
