//! A router whose adverts do not leave.

use super::*;

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
