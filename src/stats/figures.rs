//! Figures as people read them.

use std::time::Duration;

/// `999,999`, `1.23 M`: at most seven characters, as long as there are fewer than 10^18.
pub fn short(number: u64) -> String {
    if number < 1_000_000 {
        return grouped(number);
    }
    let mut value = number as f64 / 1e6;
    let mut unit = "M";
    for larger in ["G", "T", "P"] {
        if value >= 999.5 {
            (value, unit) = (value / 1e3, larger);
        }
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

/// `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.4 GiB`
pub fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 99.95);
    format!("{value:.decimals$} {}", units[unit])
}

/// The two largest units: `1 d 2 h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, length)| seconds >= *length) else { return "0 s".to_owned() };
    let (unit, length) = units[first];
    let rest = units.get(first + 1).map(|(unit, smaller)| (seconds % length / smaller, *unit));
    match rest {
        Some((rest, smaller)) if rest > 0 => format!("{} {unit} {rest} {smaller}", seconds / length),
        _ => format!("{} {unit}", seconds / length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let numbers = [999_999, 1_000_000, 1_234_567, 12_345_678, 999_600_000, 9_996_000_000, u64::MAX];
        assert_eq!(numbers.map(short), ["999,999", "1.00 M", "1.23 M", "12.3 M", "1.00 G", "10.0 G", "18447 P"]);
        let sizes = [0, 1023, 1024, 120 << 20, 1_600_000_000, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "120 MiB", "1.5 GiB", "16384 PiB"]);
        let spans = [0, 59, 60, 3_700, 86_400, 93_784].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["0 s", "59 s", "1 min", "1 h 1 min", "1 d", "1 d 2 h"]);
    }
}
