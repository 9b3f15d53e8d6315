//! Times: a number with its unit.

use std::time::Duration;

use super::{FromText, Hint};

impl FromText for Duration {
    const ACCEPTED: &'static str = "a time with its unit (ms, s, m, h), such as \"100ms\" or \"5s\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        match parse_duration(text) {
            Some(Duration::ZERO) => Err(Some("it must be longer than zero".to_owned())),
            Some(duration) => Ok(duration),
            None if text.parse::<u32>().is_ok() => Self::from_number(text.parse().unwrap_or_default()),
            None => Err(meant_duration(text).map(|meant| format!("did you mean \"{meant}\"?"))),
        }
    }

    fn from_number(number: i64) -> Result<Self, Hint> {
        Err((number > 0).then(|| format!("a number alone has no unit: write \"{number}s\" or \"{number}ms\"")))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let nanoseconds: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let fraction = fraction.parse::<u64>().ok()? * nanoseconds / 10u64.pow(fraction.len() as u32);
    let whole = whole.parse::<u64>().ok()?.checked_mul(nanoseconds)?;
    Some(Duration::from_nanos(whole.checked_add(fraction)?))
}

/// What somebody who wrote "5", "5 s", "5sec" or "1d" probably wanted.
fn meant_duration(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit = unit.trim();
    let meant = match unit {
        _ if unit.contains(|c: char| c.is_ascii_digit()) => return None,
        "" => format!("{number}s"),
        _ if unit.starts_with("ms") || unit.starts_with("mil") => format!("{number}ms"),
        _ if unit.starts_with('s') => format!("{number}s"),
        _ if unit.starts_with('m') => format!("{number}m"),
        _ if unit.starts_with('h') => format!("{number}h"),
        _ if unit.starts_with('d') => format!("{}h", number.parse::<u64>().ok()?.checked_mul(24)?),
        _ => return None,
    };
    parse_duration(&meant).is_some_and(|duration| !duration.is_zero()).then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, milliseconds) in
            [("100ms", 100), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("40.95s", 40_950), ("1.5h", 5_400_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "5", "s", "5 s", "-5s", "5S", "5d", ".5s", "5.s", "1e3s", "99999999999999999999h", "99999999999h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for (text, meant) in
            [("5", "5s"), ("5 s", "5s"), ("5sec", "5s"), ("20 Minutes", "20m"), ("10msec", "10ms"), ("7d", "168h")]
        {
            assert_eq!(meant_duration(text).as_deref(), Some(meant));
        }
        for text in ["0", "five", "5w", "1h30m", "", "µ"] {
            assert_eq!(meant_duration(text), None, "{text}");
        }
    }
}
