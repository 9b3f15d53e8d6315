//! What an active router does for its addresses: in time, or not at all.

use super::*;

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
fn a_kernel_that_does_not_answer_ends_it_with_the_lease() {
    let mut bench = Bench::backup();
    bench.at(325, Event::Timer);
    for now in (425..1325).step_by(100) {
        assert_eq!(bench.at(now, Event::Timer).1, State::Active);
    }
    assert_eq!(bench.at(1325, Event::Timer), (vec![LET_GO, Action::RemoveAddresses], State::Fault));
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
