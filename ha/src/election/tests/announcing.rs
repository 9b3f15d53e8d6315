//! When the addresses are announced.

use super::*;

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
    assert_eq!(announced, [100, 500, 3400, 3900, 5_000, 10_000, 20_000, 30_000, 90_000]);
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
