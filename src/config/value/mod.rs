//! The values of the file that are more than a string or a number: each is read whole, or refused with what is accepted.

mod address;
mod duration;
mod request;
mod rule;
mod text;
mod word;

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use toml::Spanned;

pub(super) use address::BindAddress;
pub(super) use request::HostPattern;
pub(super) use rule::{RedirectPrefix, RedirectStatus, Replacement, Scheme, leads_somewhere};
pub(super) use text::{
    Account, CookieDomain, CookieValue, FieldValue, HeaderText, HostHeader, HostSuffix, Interface, Name, ParameterName,
    PathDirectory, PathSuffix, Realm, RouteHost, SearchedText, SentText, StatusRange, Token, UrlPath, is_name,
};
pub(super) use word::{Algorithm, CookieWord, OnRefused, RetryOn, StickWord};

/// Why a value is refused, where more can be said than what is accepted.
pub(super) type Hint = Option<String>;

/// A value that is written as a string.
pub(super) trait FromText: Sized {
    /// Ends the sentence "expected …".
    const ACCEPTED: &'static str;

    fn from_text(text: &str) -> Result<Self, Hint>;

    /// A number where a string is expected.
    fn from_number(_number: i64) -> Result<Self, Hint> {
        Err(None)
    }
}

/// Reads a [`FromText`].
#[derive(Debug, Clone)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::ACCEPTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
        T::from_text(text).map(Text).map_err(|hint| with_hint(E::invalid_value(Unexpected::Str(text), &self), hint))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Text<T>, E> {
        T::from_number(number)
            .map(Text)
            .map_err(|hint| with_hint(E::invalid_type(Unexpected::Signed(number), &self), hint))
    }
}

/// A hint travels on a line of its own behind serde's message, which never has more than one.
fn with_hint<E: Error>(error: E, hint: Hint) -> E {
    match hint {
        Some(hint) => E::custom(format!("{}\n{hint}", error.to_string().trim_end())),
        None => error,
    }
}

/// A whole number within limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor::<MIN, MAX>)
    }
}

struct NumberVisitor<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> NumberVisitor<MIN, MAX> {
    fn within(number: i64) -> Option<Number<MIN, MAX>> {
        u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).map(Number)
    }
}

impl<const MIN: u32, const MAX: u32> Visitor<'_> for NumberVisitor<MIN, MAX> {
    type Value = Number<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Self::within(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let number = text.trim().parse().ok().and_then(Self::within);
        let hint = number.map(|number| format!("write it without quotes: `{}`", number.0));
        Err(with_hint(E::invalid_type(Unexpected::Str(text), &self), hint))
    }
}

/// A value, or a list of at least one.
#[derive(Debug, Clone)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<Spanned<T>>),
}

impl<T> OneOrMany<T> {
    /// Each with its place.
    pub(super) fn elements(this: Spanned<Self>) -> Vec<Spanned<T>> {
        let span = this.span();
        match this.into_inner() {
            OneOrMany::One(value) => vec![Spanned::new(span, value)],
            OneOrMany::Many(values) => values,
        }
    }

    /// Without their places.
    pub(super) fn values(self) -> Vec<T> {
        match self {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values.into_iter().map(Spanned::into_inner).collect(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(OneOrMany::Many(values))
    }
}
