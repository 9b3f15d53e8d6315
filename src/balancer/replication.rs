//! Sessions of stick tables on their way to the peers' balancers, so that they stay at their servers when another node takes over.
//!
//! A batch is Base64 of sections: a backend's name, names of servers, then for each session its key (16 bytes), its server (a
//! number among the names) and for how many milliseconds it has not been used. Numbers are big-endian; names have two bytes of
//! length before them. A batch may be lost: sessions that are used are told again and again.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use crate::balancer::persistence::StickTable;
use crate::balancer::persistence::table::{Cursor, Key, Known};
use crate::balancer::state::Shared;
use crate::config::model::Backend;
use crate::process::messages::{BATCH_PAUSE, LONGEST_BATCH};

/// Between two looks for news.
pub(super) const PAUSE: Duration = BATCH_PAUSE;

/// Sessions of one batch.
const MOST: usize = 800;

/// Bytes of one batch before they become Base64.
const LONGEST: usize = LONGEST_BATCH / 4 * 3;

/// The first byte of a batch.
const VERSION: u8 = 1;

/// How far the peers have been told.
#[derive(Default)]
pub(super) struct Replication {
    turn: usize,
    /// Backend and place where the telling of all sessions goes on.
    all: Option<(usize, Cursor)>,
}

impl Replication {
    /// Somebody is there who may know nothing.
    pub(super) fn begin_again(&mut self) {
        self.all = Some((0, Cursor::default()));
    }

    /// What is to be told now: news, and a piece of all sessions where somebody needs that.
    pub(super) fn batches(&mut self, shared: &Shared, now: Instant) -> impl Iterator<Item = String> + use<> {
        [self.news(shared, now), self.piece_of_all(shared, now)].into_iter().flatten()
    }

    fn news(&mut self, shared: &Shared, now: Instant) -> Option<String> {
        self.turn = self.turn.wrapping_add(1);
        let mut batch = Batch::new();
        let tables: Vec<_> = tables(shared).collect();
        for index in 0..tables.len() {
            let (backend, table) = tables.get((index + self.turn) % tables.len())?;
            let news = table.table().take_news(self.turn, MOST - batch.sessions, now);
            batch.add(backend, table, &news);
        }
        batch.finish()
    }

    fn piece_of_all(&mut self, shared: &Shared, now: Instant) -> Option<String> {
        let (index, mut cursor) = self.all?;
        let Some((backend, table)) = tables(shared).nth(index) else {
            self.all = None;
            return None;
        };
        let known = table.table().take_all(&mut cursor, MOST, now);
        self.all = Some(if known.len() < MOST { (index + 1, Cursor::default()) } else { (index, cursor) });
        let mut batch = Batch::new();
        batch.add(backend, table, &known);
        batch.finish()
    }
}

/// Takes in what a peer's balancer has told. Whatever is not understood is left out.
pub(super) fn learn(shared: &Shared, batch: &str, now: Instant) {
    let Ok(bytes) = BASE64.decode(batch) else { return };
    let Some((&VERSION, bytes)) = bytes.split_first() else { return };
    let mut rest = Rest(bytes);
    while let Some(()) = learn_section(shared, &mut rest, now) {}
}

/// `None`: there is no further section, or not all of it.
fn learn_section(shared: &Shared, rest: &mut Rest<'_>, now: Instant) -> Option<()> {
    let name = rest.name()?;
    let found = tables(shared).find(|(backend, _)| backend.name.as_bytes() == name);
    let names: Vec<&[u8]> = (0..rest.number()?).map(|_| rest.name()).collect::<Option<_>>()?;
    let id = |name: &&[u8]| {
        let (backend, table) = found?;
        table.id_of(backend.servers.iter().position(|server| server.name.as_bytes() == *name)?)
    };
    let servers: Vec<_> = names.iter().map(id).collect();
    for _ in 0..rest.number()? {
        let (key, server, age) = (Key(rest.take()?), rest.number()?, u32::from_be_bytes(rest.take()?));
        if let (Some((_, table)), Some(Some(server))) = (found, servers.get(usize::from(server))) {
            let unused_for = Duration::from_millis(age.into());
            table.table().learn(Known { key, server: *server, unused_for }, now);
        }
    }
    Some(())
}

fn tables(shared: &Shared) -> impl Iterator<Item = (&Backend, &StickTable)> {
    let backends = shared.config.backends.iter().zip(&shared.backends);
    backends.filter_map(|(backend, state)| Some((backend, state.stick.as_ref()?)))
}

/// A batch that is being written.
struct Batch {
    bytes: Vec<u8>,
    sessions: usize,
}

impl Batch {
    fn new() -> Self {
        Batch { bytes: vec![VERSION], sessions: 0 }
    }

    /// A section, without the sessions that there is no room for and those of servers that are no more.
    fn add(&mut self, backend: &Backend, table: &StickTable, known: &[Known]) {
        let mut names: Vec<&str> = Vec::new();
        let mut sessions = Vec::new();
        let mut room = LONGEST.saturating_sub(self.bytes.len() + backend.name.len() + 6);
        for known in known {
            let server = table.index_of(known.server).and_then(|index| backend.servers.get(index));
            let Some(name) = server.map(|server| server.name.as_str()) else { continue };
            let number = names.iter().position(|known| *known == name);
            let needed = 22 + number.map_or(2 + name.len(), |_| 0);
            if needed > room {
                break;
            }
            room -= needed;
            let number = number.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            let age = u32::try_from(known.unused_for.as_millis()).unwrap_or(u32::MAX);
            sessions.push((known.key, number as u16, age));
        }
        if sessions.is_empty() {
            return;
        }
        self.sessions += sessions.len();
        self.name(&backend.name);
        self.bytes.extend((names.len() as u16).to_be_bytes());
        names.iter().for_each(|name| self.name(name));
        self.bytes.extend((sessions.len() as u16).to_be_bytes());
        for (key, server, age) in sessions {
            self.bytes.extend(key.0);
            self.bytes.extend(server.to_be_bytes());
            self.bytes.extend(age.to_be_bytes());
        }
    }

    /// It has room for it, and so is no longer than the number says.
    fn name(&mut self, name: &str) {
        self.bytes.extend((name.len() as u16).to_be_bytes());
        self.bytes.extend(name.as_bytes());
    }

    fn finish(self) -> Option<String> {
        (self.sessions > 0).then(|| BASE64.encode(self.bytes))
    }
}

/// What of a batch has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take()?))
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        let (name, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::balancer::state::tests::{one_backend, server};
    use crate::config::model::{Balance, Stick, StickBy};

    /// The backends, each with these servers.
    fn shared(backends: &[&str], servers: &[&str]) -> std::sync::Arc<Shared> {
        let servers = servers.iter().map(|name| server(name, 1)).collect();
        let mut config = one_backend(Balance::RoundRobin, servers);
        let stick = Stick { by: StickBy::Source, expire: Duration::from_secs(100), size: 10_000 };
        let backend = Backend { stick: Some(stick), ..config.backends.remove(0) };
        config.backends = backends.iter().map(|name| Backend { name: (*name).into(), ..backend.clone() }).collect();
        Shared::new(config)
    }

    fn table(shared: &Shared, backend: usize) -> &StickTable {
        shared.backends[backend].stick.as_ref().unwrap()
    }

    fn key(number: u32) -> Key {
        Key::of_address(IpAddr::from(number.to_be_bytes()))
    }

    fn keep(shared: &Shared, backend: usize, number: u32, server: usize, now: Instant) {
        let table = table(shared, backend);
        table.table().keep(key(number), table.id_of(server).unwrap(), now);
    }

    fn find(shared: &Shared, backend: usize, number: u32, now: Instant) -> Option<usize> {
        let table = table(shared, backend);
        table.index_of(table.table().find(key(number), now)?)
    }

    #[test]
    fn sessions_go_by_the_names_of_servers_and_backends() {
        let one = shared(&["app", "only-here", "static"], &["a", "gone", "b"]);
        let other = shared(&["static", "app"], &["b", "c", "a"]);
        let now = Instant::now();
        let mut replication = Replication::default();
        assert_eq!(replication.batches(&one, now).count(), 0);
        for backend in 0..3 {
            for server in 0..3_u32 {
                keep(&one, backend, server, server as usize, now);
            }
        }
        let batches: Vec<_> = replication.batches(&one, now).collect();
        assert_eq!(batches.len(), 1);
        learn(&other, &batches[0], now);
        for backend in 0..2 {
            let found: Vec<_> = (0..3).map(|number| find(&other, backend, number, now)).collect();
            assert_eq!(found, [Some(2), None, Some(0)]);
        }
        assert_eq!(replication.batches(&one, now).count(), 0, "it was told");
    }

    #[test]
    fn whoever_comes_later_is_told_everything_in_small_pieces() {
        let (one, other) = (shared(&["app", "static"], &["a", "b"]), shared(&["app", "static"], &["a", "b"]));
        let now = Instant::now();
        for number in 0..5000 {
            keep(&one, 0, number, number as usize % 2, now);
            keep(&one, 1, number, 1, now);
        }
        let mut replication = Replication::default();
        assert_eq!(replication.batches(&one, now).count(), 0, "what was before anybody listened");
        replication.begin_again();
        let mut rounds = 0;
        while replication.all.is_some() {
            for batch in replication.batches(&one, now) {
                assert!(batch.len() <= LONGEST_BATCH, "{}", batch.len());
                learn(&other, &batch, now);
            }
            rounds += 1;
        }
        assert!((2 * 5000 / MOST..30).contains(&rounds), "{rounds}");
        assert!((0..5000).all(|number| find(&other, 0, number, now) == Some(number as usize % 2)));
        assert!((0..5000).all(|number| find(&other, 1, number, now) == Some(1)));
    }

    #[test]
    fn names_of_any_length_leave_a_batch_its_size() {
        let long = ["x", "y"].map(|letter| letter.repeat(40_000));
        let names: Vec<&str> = long.iter().map(String::as_str).chain(["a"]).collect();
        let one = shared(&["app"], &names);
        let now = Instant::now();
        let mut replication = Replication::default();
        replication.batches(&one, now).for_each(drop);
        keep(&one, 0, 1, 0, now);
        let batches: Vec<_> = replication.batches(&one, now).collect();
        assert!(batches.is_empty(), "there is no room for it");
        keep(&one, 0, 2, 2, now);
        assert_eq!(replication.batches(&one, now).count(), 1);
    }

    proptest! {
        #[test]
        fn what_is_no_batch_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let shared = shared(&["app"], &["a"]);
            let now = Instant::now();
            learn(&shared, &String::from_utf8_lossy(&bytes), now);
            learn(&shared, &BASE64.encode(&bytes), now);
            learn(&shared, &BASE64.encode([&[VERSION, 0, 3, b'a', b'p', b'p', 0, 1, 0, 1, b'a'], &bytes[..]].concat()), now);
        }
    }
}
