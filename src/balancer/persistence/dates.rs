//! The dates in the value of a cookie that is inserted, `SERVER|LAST|FIRST`: when it was set last, and first. As HAProxy
//! writes them: units of four seconds since 1970, in five characters of base64.

use std::time::Duration;

use crate::config::model::InsertedCookie;

/// Before each of the dates.
pub(super) const DELIMITER: u8 = b'|';

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Seconds in a unit.
const UNIT: u64 = 4;

/// How far ahead a date may be: some clock was wrong, and may have been put right since.
const TOLERANCE: u64 = 24 * 3600;

/// What a cookie that came says of its age, in seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dates {
    last: Option<u64>,
    first: Option<u64>,
}

/// What is wrong with a cookie's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    /// Not used for longer than `max_idle`.
    Idle,
    /// First set longer ago than `max_life`.
    Old,
}

impl Dates {
    /// From what stands behind the server. A date that is none counts as absent.
    pub fn parse(text: &[u8]) -> Self {
        let mut dates = text.split(|byte| *byte == DELIMITER).skip(1).map(decode);
        Self { last: dates.next().flatten(), first: dates.next().flatten() }
    }

    /// # Errors
    /// When one of them is too long ago, or too far ahead to be believed.
    pub fn check(self, cookie: &InsertedCookie, now: u64) -> Result<(), Outdated> {
        let is_out = |date: Option<u64>, limit: Option<Duration>| {
            let (Some(date), Some(limit)) = (date, limit) else { return false };
            now.saturating_sub(date) > limit.as_secs() || date.saturating_sub(now) > TOLERANCE
        };
        if is_out(self.first, cookie.max_life) {
            return Err(Outdated::Old);
        }
        if is_out(self.last, cookie.max_idle) { Err(Outdated::Idle) } else { Ok(()) }
    }

    /// Is a valid cookie to be set again, for the sake of its dates alone?
    pub fn are_stale(self, cookie: &InsertedCookie, now: u64) -> bool {
        let is_last_stale =
            (cookie.max_idle.is_some() || self.last.is_some()) && self.last.is_none_or(|last| last < now);
        is_last_stale || cookie.max_life.is_some() != self.first.is_some()
    }

    /// What is to stand behind the server now. The first date stays what it was.
    pub fn renewed(self, cookie: &InsertedCookie, now: u64) -> String {
        let mut text = String::new();
        if cookie.max_idle.is_some() || cookie.max_life.is_some() {
            encode(&mut text, now);
        }
        if cookie.max_life.is_some() {
            encode(&mut text, self.first.unwrap_or(now));
        }
        text
    }
}

fn decode(text: &[u8]) -> Option<u64> {
    let digit = |byte| ALPHABET.iter().position(|letter| letter == byte);
    let units = text.get(..5)?.iter().try_fold(0, |units: u64, byte| Some(units << 6 | digit(byte)? as u64))?;
    (units > 0).then_some(units * UNIT)
}

/// Rounded up: within its unit a cookie is not stale.
fn encode(text: &mut String, date: u64) {
    let units = date.div_ceil(UNIT);
    text.push(DELIMITER.into());
    text.extend([24, 18, 12, 6, 0].map(|shift| char::from(ALPHABET[(units >> shift & 0x3f) as usize])));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balancer::persistence::cookie::tests::inserted;

    const NOW: u64 = 1_795_190_400;

    fn limits(max_idle: Option<u64>, max_life: Option<u64>) -> InsertedCookie {
        let seconds = |limit: Option<u64>| limit.map(Duration::from_secs);
        InsertedCookie { max_idle: seconds(max_idle), max_life: seconds(max_life), ..inserted() }
    }

    #[test]
    fn dates_are_written_as_haproxy_writes_them() {
        // 1,795,190,400 / 4 = 448,797,600 = 26·64⁴ + 48·64³ + 64² + 46·64 + 32.
        let written = |max_idle, max_life| Dates::default().renewed(&limits(max_idle, max_life), NOW);
        assert_eq!(written(None, None), "");
        assert_eq!(written(Some(60), None), "|awBug");
        assert_eq!(written(None, Some(60)), "|awBug|awBug");
        assert_eq!(Dates::default().renewed(&limits(Some(60), None), NOW - 3), "|awBug");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "|", "||", "|awBu", "|awBu=", "|AAAAA", "|\u{e9}\u{e9}\u{e9}|a", "|aw/ g|     "] {
            assert_eq!(Dates::parse(text.as_bytes()), Dates::default(), "{text}");
        }
        assert_eq!(Dates::parse(b"|awBug||"), Dates { last: Some(NOW), first: None });
        assert_eq!(Dates::parse(b"||awBug"), Dates { last: None, first: Some(NOW) });
        assert_eq!(Dates::parse(b"|awBug|awBug|more"), Dates { last: Some(NOW), first: Some(NOW) });
    }

    #[test]
    fn a_cookie_is_out_of_date_after_its_time_and_when_it_comes_from_the_future() {
        let dates = |last, first| Dates { last, first };
        let both = limits(Some(60), Some(600));
        let rows = [
            (dates(Some(NOW - 60), Some(NOW - 600)), &both, Ok(())),
            (dates(Some(NOW - 61), Some(NOW - 600)), &both, Err(Outdated::Idle)),
            (dates(Some(NOW - 60), Some(NOW - 601)), &both, Err(Outdated::Old)),
            (dates(Some(NOW - 61), Some(NOW - 601)), &both, Err(Outdated::Old)),
            (dates(Some(NOW + TOLERANCE), Some(NOW + TOLERANCE)), &both, Ok(())),
            (dates(Some(NOW + TOLERANCE + 1), None), &both, Err(Outdated::Idle)),
            (dates(None, Some(NOW + TOLERANCE + 1)), &both, Err(Outdated::Old)),
            (dates(None, None), &both, Ok(())),
            (dates(Some(1), Some(1)), &limits(None, None), Ok(())),
            (dates(Some(1), Some(1)), &limits(Some(60), None), Err(Outdated::Idle)),
        ];
        for (dates, cookie, expected) in rows {
            assert_eq!(dates.check(cookie, NOW), expected, "{dates:?}");
        }
    }

    #[test]
    fn a_valid_cookie_is_set_again_when_its_dates_are_not_what_they_should_be() {
        let dates = |last, first| Dates { last, first };
        let (none, idle, life) = (limits(None, None), limits(Some(60), None), limits(None, Some(60)));
        let rows = [
            (dates(None, None), &none, false),
            (dates(Some(NOW - 4), None), &none, true),
            (dates(None, None), &idle, true),
            (dates(Some(NOW - 1), None), &idle, true),
            (dates(Some(NOW), None), &idle, false),
            (dates(Some(NOW + 3), None), &idle, false),
            (dates(Some(NOW), Some(NOW)), &idle, true),
            (dates(None, None), &life, true),
            (dates(Some(NOW), Some(NOW - 50)), &life, false),
            (dates(Some(NOW - 4), Some(NOW - 50)), &life, true),
        ];
        for (dates, cookie, expected) in rows {
            assert_eq!(dates.are_stale(cookie, NOW), expected, "{dates:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_the_first_date_stays(now in 1..(1_u64 << 32) - 3, later in 0..100_000_u64) {
            let both = limits(Some(60), Some(600));
            let dates = Dates::parse(Dates::default().renewed(&both, now).as_bytes());
            prop_assert_eq!(dates.first, dates.last);
            prop_assert!((now..now + 4).contains(&dates.first.unwrap()));
            let again = Dates::parse(dates.renewed(&both, now + later).as_bytes());
            prop_assert_eq!(again.first, dates.first);
        }
    }
}
