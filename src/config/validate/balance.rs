//! `backends.NAME.balance`: the algorithm, and the keys that go with it alone.

use std::ops::Range;

use toml::Spanned;

use super::{Checker, plain};
use crate::config::file::{BalanceEntry, BalanceTable};
use crate::config::model::{Balance, HashKey, HashMethod};
use crate::config::value::{Algorithm, FromText};

impl Checker<'_> {
    pub(super) fn balance(&mut self, written: Spanned<BalanceEntry>) -> Option<Balance> {
        let place = written.span();
        let BalanceEntry(BalanceTable { algorithm, hash, draws, whole, length, depth, name }) = written.into_inner();
        let algorithm = self.required(algorithm, &place, "algorithm", Algorithm::ACCEPTED)?.0;

        use Algorithm::{Header, Parameter, Random, Source, Uri};
        let mut only = |span: Option<Range<usize>>, algorithms: &[Algorithm], words: &str| {
            if let Some(span) = span.filter(|_| !algorithms.contains(&algorithm)) {
                self.problem(span, format!("this is a key of {words} alone"), "the algorithm is another");
            }
        };
        let hashing = "\"source\", \"uri\", \"header\" and \"parameter\"";
        only(hash.as_ref().map(Spanned::span), &[Source, Uri, Header, Parameter], hashing);
        only(draws.as_ref().map(Spanned::span), &[Random], "\"random\"");
        only(whole.as_ref().map(Spanned::span), &[Uri], "\"uri\"");
        only(length.as_ref().map(Spanned::span), &[Uri], "\"uri\"");
        only(depth.as_ref().map(Spanned::span), &[Uri], "\"uri\"");
        only(name.as_ref().map(Spanned::span), &[Header, Parameter], "\"header\" and \"parameter\"");

        let key = match algorithm {
            Algorithm::RoundRobin => return Some(Balance::RoundRobin),
            Algorithm::StaticRoundRobin => return Some(Balance::StaticRoundRobin),
            Algorithm::LeastConnections => return Some(Balance::LeastConnections),
            Algorithm::First => return Some(Balance::First),
            Random => return Some(Balance::Random { draws: draws.map_or(2, |draws| draws.into_inner().0) }),
            Source => HashKey::Source,
            Uri => HashKey::Uri {
                whole: whole.is_some_and(Spanned::into_inner),
                length: length.map(|length| length.into_inner().0),
                depth: depth.map(|depth| depth.into_inner().0),
            },
            Header => {
                let accepted = "a header's, as in `{ algorithm = \"header\", name = \"X-User\" }`";
                let name = self.required(name, &place, "name", accepted)?;
                HashKey::Header(name.into_inner().0.0.to_ascii_lowercase())
            }
            Parameter => {
                let accepted = "a parameter's, as in `{ algorithm = \"parameter\", name = \"user\" }`";
                HashKey::Parameter(self.required(name, &place, "name", accepted)?.into_inner().0.0)
            }
        };
        Some(Balance::Hash { key, method: plain(hash.map(Spanned::into_inner)).unwrap_or(HashMethod::MapBased) })
    }
}
