//! A router that would serve worse than others: it adverts with priority 1.

use super::*;

const UNREADY_ADVERT: Action = Action::SendAdvert { priority: 1 };

fn unready() -> Event {
    Event::Unready { reason: "it reaches no server".into() }
}

#[test]
fn a_backup_that_is_not_ready_takes_the_addresses_from_no_router_that_works() {
    let mut bench = Bench::backup();
    bench.give(unready());
    bench.give(advert(SMALLER, 100, 100));
    bench.at(300, advert(SMALLER, 1, 100));
    assert_eq!(bench.deadline(), Some(325.0), "it obeys a router that is no more ready than itself");
    bench.give(Event::Ready);
    bench.at(600, advert(SMALLER, 100, 100));
    assert_eq!(bench.at(625, Event::Timer), (vec![ADVERT, LEASE], State::Active), "now it preempts");
}

#[test]
fn where_nobody_is_active_it_takes_over_as_if_it_were_ready() {
    for is_gone in [false, true] {
        let mut bench = Bench::backup();
        bench.give(unready());
        bench.give(advert(SMALLER, 100, 100));
        let taken = match is_gone {
            true => bench.give(gone(SMALLER)),
            false => bench.at(325, Event::Timer),
        };
        assert_eq!(taken, (vec![UNREADY_ADVERT, LEASE], State::Active));
    }
    let mut bench = Bench::backup();
    bench.give(unready());
    bench.give(advert(SMALLER, 0, 100));
    assert_eq!(bench.at(25, Event::Timer), (vec![UNREADY_ADVERT, LEASE], State::Active));
}

#[test]
fn of_two_active_routers_the_one_that_is_not_ready_gives_way() {
    let mut bench = Bench::active();
    bench.give(unready());
    assert_eq!((bench.election.priority(), bench.election.unready_because()), (1, Some("it reaches no server")));
    assert_eq!(bench.give(advert(SMALLER, 2, 100)), (vec![Action::RemoveAddresses, UNREADY_ADVERT], State::Backup));

    let mut bench = Bench::active();
    bench.give(unready());
    assert_eq!(
        bench.give(advert(SMALLER, 1, 100)),
        (vec![UNREADY_ADVERT], State::Active),
        "a tie: the address decides"
    );
    bench.give(Event::Ready);
    let due = bench.now + 100;
    assert!(bench.at(due, Event::Timer).0.contains(&ADVERT));
}

#[test]
fn the_owner_waits_until_it_is_ready_and_then_for_nothing() {
    let mut bench = Bench::new(255, false);
    bench.give(unready());
    bench.give(link_up());
    assert_eq!(bench.give(Event::Eligible).1, State::Backup);
    assert_eq!(bench.give(unready()).1, State::Backup);
    assert_eq!(bench.give(Event::Ready), (vec![Action::SendAdvert { priority: 255 }, LEASE], State::Active));
}
