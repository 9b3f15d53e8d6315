//! What people want of servers while a node runs (`relevo server`): its words, for the command, the keepers and the balancer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// No line on the control socket is longer, in bytes.
pub const LONGEST_LINE: u64 = 16 << 10;

/// The highest weight there is.
pub const HIGHEST_WEIGHT: u32 = 256;

/// A server's name with that of its backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ServerName {
    pub backend: String,
    pub server: String,
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

/// What a server is to do. The later one is the stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// It serves if it can.
    #[default]
    Ready,
    /// No new sessions, only those that it has.
    Drain,
    /// Nothing at all; nor is it checked.
    Maintenance,
}

impl Admin {
    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

/// The weight a server is to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// That of the configuration.
    #[default]
    Default,
    /// This one.
    Absolute(u32),
    /// So much of the configured one.
    Percent(u32),
}

impl Weight {
    /// The weight of a server with this configured one; `None`: the configured one itself. Only none at all is 0.
    pub fn of(self, configured: u32) -> Option<u32> {
        let weight = match self {
            Self::Default => return None,
            Self::Absolute(weight) => weight,
            Self::Percent(percent) => {
                let weight = u64::from(configured) * u64::from(percent);
                u32::try_from(weight.div_ceil(100)).unwrap_or(HIGHEST_WEIGHT)
            }
        };
        Some(weight.min(HIGHEST_WEIGHT))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Absolute(weight) => write!(f, "{weight}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The error says what is accepted.
impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not what the standard library takes beside digits ("+1").
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
        let weight = match text.strip_suffix('%') {
            _ if text == "default" => Some(Self::Default),
            Some(percent) => number(percent).map(Self::Percent),
            None => number(text).filter(|weight| *weight <= HIGHEST_WEIGHT).map(Self::Absolute),
        };
        weight.ok_or_else(|| {
            format!("{text:.40?} is no weight: expected 0 to {HIGHEST_WEIGHT}, a share of the configured one like \"50%\", or \"default\"")
        })
    }
}

/// One thing that somebody wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the types say it")]
pub enum Wish {
    Admin(Admin),
    Weight(Weight),
}

impl Wish {
    /// What [`fmt::Display`] writes, at the beginning of these words; the error says what is accepted.
    pub fn take_from<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let word = words.next().unwrap_or_default();
        if word == "weight" {
            return Ok(Self::Weight(words.next().unwrap_or_default().parse()?));
        }
        let admins = [Admin::Ready, Admin::Drain, Admin::Maintenance];
        let admin = admins.into_iter().find(|admin| admin.word() == word).map(Self::Admin);
        admin.ok_or_else(|| format!("{word:.40?}: expected ready, drain, maintenance or weight"))
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(admin) => f.write_str(admin.word()),
            Self::Weight(weight) => write!(f, "weight {weight}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_as_people_write_them() {
        let rows = [
            ("0", Weight::Absolute(0)),
            ("256", Weight::Absolute(256)),
            ("50%", Weight::Percent(50)),
            ("0%", Weight::Percent(0)),
            ("default", Weight::Default),
        ];
        for (text, weight) in rows {
            assert_eq!(text.parse(), Ok(weight));
            assert_eq!(weight.to_string(), text);
        }
        for text in ["257", "-1", "+1", "%", "", "50 %", "5.5", "half", "99999999999", "4294967296%"] {
            let error = text.parse::<Weight>().unwrap_err();
            assert!(error.contains("expected 0 to 256"), "{error}");
        }
    }

    #[test]
    fn wishes_in_words() {
        for (text, wish) in [
            ("drain", Wish::Admin(Admin::Drain)),
            ("ready", Wish::Admin(Admin::Ready)),
            ("maintenance", Wish::Admin(Admin::Maintenance)),
            ("weight 50%", Wish::Weight(Weight::Percent(50))),
        ] {
            let line = format!("{text} app/a app/b");
            let mut words = line.split(' ');
            assert_eq!(Wish::take_from(&mut words), Ok(wish));
            assert_eq!(words.collect::<Vec<_>>(), ["app/a", "app/b"]);
            assert_eq!(wish.to_string(), text);
        }
        for text in ["", "stop", "weight", "weight app/a", "Drain"] {
            assert!(Wish::take_from(&mut text.split(' ')).is_err(), "{text}");
        }
    }

    #[test]
    fn only_none_at_all_is_0_and_none_is_higher_than_the_highest() {
        let of = |weight: Weight| weight.of(60);
        assert_eq!(of(Weight::Default), None);
        assert_eq!(of(Weight::Absolute(7)), Some(7));
        assert_eq!(
            [0, 1, 50, 1000, u32::MAX].map(|percent| of(Weight::Percent(percent)).unwrap()),
            [0, 1, 30, 256, 256]
        );
    }
}
