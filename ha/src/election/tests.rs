//! The transition table as data, then each rule beyond it.

mod announcing;
mod lease;
mod ready;
mod unheard;

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
    pub(crate) fn new(priority: u8, preempt: bool) -> Self {
        let settings = Settings {
            priority: NonZeroU8::new(priority).unwrap(),
            advertisement_interval: Duration::from_millis(100),
            preempt,
        };
        Self { election: Election::new(settings, Time(0)), now: 0 }
    }

    pub(crate) fn backup() -> Self {
        let mut bench = Self::new(PRIORITY, true);
        bench.give(link_up());
        bench.give(Event::Eligible);
        bench
    }

    pub(crate) fn active() -> Self {
        let mut bench = Self::backup();
        bench.at(325, Event::Timer);
        bench.give(Event::AddressesTaken);
        assert_eq!(bench.election.state(), State::Active);
        bench
    }

    /// What is done about `event`, changes of state as the state alone.
    pub(crate) fn give(&mut self, event: Event) -> (Vec<Action>, State) {
        let mut actions = Vec::new();
        self.election.handle(event, Time(self.now * 1000), &mut actions);
        actions.retain(|action| !matches!(action, Action::Changed(_)));
        (actions, self.election.state())
    }

    pub(crate) fn at(&mut self, now: u64, event: Event) -> (Vec<Action>, State) {
        assert!(now >= self.now);
        self.now = now;
        self.give(event)
    }

    /// Milliseconds from now.
    pub(crate) fn deadline(&self) -> Option<f64> {
        self.election.next_deadline().map(|at| (at.0 as f64 / 1000.0) - self.now as f64)
    }

    /// Follows its deadlines for so long; what it did, and when.
    pub(crate) fn follow(&mut self, milliseconds: u64) -> Vec<(u64, Action)> {
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
