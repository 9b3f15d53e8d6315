//! The stick table of a backend: which server each session is at, in memory that does not grow.
//!
//! One table for all workers, in parts with a lock each, held for the few instructions that look at one session: nothing in
//! a part is ever moved. A full part forgets the session that has not been used for the longest time. Servers go by name: a
//! table outlives the configuration that it began with.

mod news;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::config::model::Stick;
use news::News;
pub use news::{Cursor, Known};

/// Parts of a table that is large enough for them.
const PARTS: usize = 16;

/// Entries of a part that is worth its lock.
const SMALLEST_PART: usize = 64;

/// What a session is known by: an address, or the digest of a value. So every key takes the same room, and a table tells
/// nobody the values: many of them are secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub(in crate::balancer) [u8; 16]);

impl Key {
    /// A client's address, the same however it comes.
    pub fn of_address(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        })
    }

    /// The value of a header or a cookie; an empty one is none. Nobody can find another value with this key.
    pub fn of_value(value: &[u8]) -> Option<Self> {
        let digest = Sha256::digest(value);
        let key = digest.first_chunk().copied().map(Self);
        key.filter(|_| !value.is_empty())
    }
}

/// A server's name, as a table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerId(u32);

/// The sessions of one backend.
pub struct Table {
    origin: Instant,
    /// Milliseconds.
    expire: u64,
    /// So that nobody can choose keys that fall together.
    hasher: RandomState,
    parts: Box<[Part]>,
    /// By [`ServerId`]: every name that servers have had.
    names: Mutex<Vec<String>>,
}

/// On cache lines of its own.
#[repr(align(128))]
struct Part(Mutex<Entries>);

impl Table {
    /// An empty one. Its memory is reserved now, 44 to 48 bytes for each session, most of it taken as
    /// sessions come.
    pub fn new(stick: &Stick, origin: Instant) -> Self {
        let parts = (stick.size / SMALLEST_PART).clamp(1, PARTS);
        // The first ones are larger by one where it does not come out even: all of them together are as large as asked.
        let size = |part: usize| stick.size / parts + usize::from(part < stick.size % parts);
        Self {
            origin,
            expire: milliseconds(stick.expire),
            hasher: RandomState::new(),
            parts: (0..parts).map(|part| Part(Mutex::new(Entries::new(size(part))))).collect(),
            names: Mutex::default(),
        }
    }

    /// By what the table knows a server of this name.
    pub fn server(&self, name: &str) -> ServerId {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|known| known == name);
        let place = known.unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        ServerId(place as u32)
    }

    /// Where this session is, which is used now.
    pub fn find(&self, key: Key, now: Instant) -> Option<ServerId> {
        let (now, hash) = (self.since_origin(now), self.hash(&key));
        self.part(hash)?.use_of(hash, key, now, self.expire)
    }

    /// From now on the session is there.
    pub fn keep(&self, key: Key, server: ServerId, now: Instant) {
        let (now, hash) = (self.since_origin(now), self.hash(&key));
        if let Some(mut part) = self.part(hash) {
            part.keep(hash, key, server, now, |key| self.hash(key));
        }
    }

    /// How many are in it, expired ones too.
    pub fn sessions(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.0.lock().unwrap_or_else(PoisonError::into_inner).entries.len());
        parts.sum()
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    fn part(&self, hash: u64) -> Option<MutexGuard<'_, Entries>> {
        // Other bits than those that lead on within the part.
        let part = self.parts.get((hash >> 32) as usize % self.parts.len())?;
        Some(part.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// More than `expire` from the beginning, so that there is a time before it for sessions of a peer.
    fn since_origin(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.origin)).saturating_add(self.expire)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The place of an entry, counted from 1; 0: of none.
type Place = u32;

/// A map whose entries also stand in a row, by when they were used last.
struct Entries {
    size: usize,
    /// By the lower bits of the hash: the first entry with these. A power of two of them.
    chains: Box<[Place]>,
    entries: Vec<Entry>,
    newest: Place,
    oldest: Place,
    /// What a peer is yet to be told; `None`: there is none.
    news: Option<Box<News>>,
}

struct Entry {
    key: Key,
    server: ServerId,
    /// The next one whose hash has the same lower bits.
    next: Place,
    /// The neighbours in the row.
    newer: Place,
    older: Place,
    /// Milliseconds since the origin.
    used: u64,
}

impl Entries {
    fn new(size: usize) -> Self {
        let chains = vec![0; size.next_power_of_two()].into_boxed_slice();
        Self { size, chains, entries: Vec::with_capacity(size), newest: 0, oldest: 0, news: None }
    }

    fn use_of(&mut self, hash: u64, key: Key, now: u64, expire: u64) -> Option<ServerId> {
        let place = self.place_of(hash, key)?;
        let entry = self.entry(place)?;
        if now.saturating_sub(entry.used) >= expire {
            return None;
        }
        entry.used = entry.used.max(now);
        let server = entry.server;
        self.move_to_front(place);
        if let Some(news) = &mut self.news {
            news.was_used(place, now);
        }
        Some(server)
    }

    fn keep(&mut self, hash: u64, key: Key, server: ServerId, now: u64, hash_of: impl Fn(&Key) -> u64) {
        let place = match self.place_of(hash, key) {
            Some(place) => place,
            None => self.new_place(hash, key, hash_of),
        };
        let Some(entry) = self.entry(place) else { return };
        let is_news = entry.server != server || entry.used == 0;
        (entry.server, entry.used) = (server, entry.used.max(now));
        self.move_to_front(place);
        match &mut self.news {
            Some(news) if is_news => news.has_changed(place, now),
            Some(news) => news.was_used(place, now),
            None => {}
        }
    }

    /// A new entry, or the one that was used before all others.
    fn new_place(&mut self, hash: u64, key: Key, hash_of: impl Fn(&Key) -> u64) -> Place {
        let mut place = self.entries.len() as Place + 1;
        if self.entries.len() < self.size {
            self.entries.push(Entry { key, server: ServerId(0), next: 0, newer: 0, older: 0, used: 0 });
            self.link_in_front(place);
        } else {
            place = self.oldest;
            if let Some(entry) = self.entry(place) {
                let forgotten = std::mem::replace(&mut entry.key, key);
                entry.used = 0;
                self.unchain(hash_of(&forgotten), place);
            }
        }
        let next = self.chain(hash).map_or(0, |first| std::mem::replace(first, place));
        if let Some(entry) = self.entry(place) {
            entry.next = next;
        }
        place
    }

    fn entry(&mut self, place: Place) -> Option<&mut Entry> {
        self.entries.get_mut((place as usize).checked_sub(1)?)
    }

    fn chain(&mut self, hash: u64) -> Option<&mut Place> {
        let chain = hash as usize & (self.chains.len() - 1);
        self.chains.get_mut(chain)
    }

    fn place_of(&mut self, hash: u64, key: Key) -> Option<Place> {
        let mut place = *self.chain(hash)?;
        loop {
            let entry = self.entry(place)?;
            if entry.key == key {
                return Some(place);
            }
            place = entry.next;
        }
    }

    fn unchain(&mut self, hash: u64, place: Place) {
        let Some(next) = self.entry(place).map(|entry| entry.next) else { return };
        let Some(first) = self.chain(hash) else { return };
        if *first == place {
            *first = next;
            return;
        }
        let mut before = *first;
        while let Some(entry) = self.entry(before) {
            if entry.next == place {
                entry.next = next;
                return;
            }
            before = entry.next;
        }
    }

    fn move_to_front(&mut self, place: Place) {
        if self.newest == place {
            return;
        }
        let Some(entry) = self.entry(place) else { return };
        let (newer, older) = (entry.newer, entry.older);
        match self.entry(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entry(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        self.link_in_front(place);
    }

    fn link_in_front(&mut self, place: Place) {
        let older = std::mem::replace(&mut self.newest, place);
        if let Some(entry) = self.entry(place) {
            (entry.newer, entry.older) = (0, older);
        }
        match self.entry(older) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::StickBy;

    fn table(expire: u64, size: usize) -> (Table, Instant) {
        let origin = Instant::now();
        let stick = Stick { by: StickBy::Source, expire: Duration::from_millis(expire), size };
        (Table::new(&stick, origin), origin)
    }

    fn key(number: u32) -> Key {
        Key::of_address(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_session_is_where_it_was_kept_last_until_it_was_not_used_for_so_long() {
        let (table, start) = table(1000, 100);
        let at = |millis| start + Duration::from_millis(millis);
        let (a, b) = (table.server("a"), table.server("b"));
        assert!(a != b && a == table.server("a"));

        assert_eq!(table.find(key(1), at(0)), None);
        table.keep(key(1), a, at(0));
        table.keep(key(2), b, at(0));
        assert_eq!(table.find(key(1), at(900)), Some(a), "which is a use");
        assert_eq!(table.find(key(1), at(1899)), Some(a));
        assert_eq!(table.find(key(2), at(1000)), None);
        table.keep(key(1), b, at(1900));
        assert_eq!(table.find(key(1), at(2899)), Some(b));
        assert_eq!(table.find(key(1), at(3899)), None);
        table.keep(key(1), a, at(3899));
        assert_eq!(table.find(key(1), at(4000)), Some(a));
        assert_eq!(table.find(key(1), at(3900)), Some(a), "another worker's clock may be a moment behind");
    }

    #[test]
    fn a_full_table_forgets_who_was_not_used_for_the_longest_time() {
        let (table, now) = table(1000, 3);
        let a = table.server("a");
        for number in 1..=3 {
            table.keep(key(number), a, now);
        }
        assert!(table.find(key(1), now).is_some());
        table.keep(key(3), a, now);
        table.keep(key(4), a, now);
        let known: Vec<_> = (1..=4).filter(|number| table.find(key(*number), now).is_some()).collect();
        assert_eq!(known, [1, 3, 4]);
    }

    #[test]
    fn a_flood_neither_grows_a_table_nor_empties_it() {
        let (table, now) = table(1000, 10_000);
        let a = table.server("a");
        let capacity = || table.parts.iter().map(|part| part.0.lock().unwrap().entries.capacity()).sum::<usize>();
        assert_eq!((table.parts.len(), capacity()), (PARTS, 10_000));
        (0..100_000).for_each(|number| table.keep(key(number), a, now));
        assert_eq!(capacity(), 10_000);
        assert_eq!(size_of::<Entry>() + size_of::<Place>(), 44);
        let known = (0..100_000).filter(|number| table.find(key(*number), now).is_some()).count();
        assert_eq!(known, 10_000);
        // Parts fill at about the same time: those before them are gone, those behind them are there.
        assert!((0..85_000).all(|number| table.find(key(number), now).is_none()));
        assert!((95_000..100_000).all(|number| table.find(key(number), now).is_some()));
    }

    #[test]
    fn keys_are_what_they_are_made_of() {
        let of = |text: &str| Key::of_address(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(Key::of_value(b"alice"), Key::of_value(b"alice"));
        assert_ne!(Key::of_value(b"alice"), Key::of_value(b"bob"));
        assert_eq!(Key::of_value(b""), None);
        // Both nodes, and the next version, have to know the same sessions.
        assert_eq!(
            Key::of_value(b"abc"),
            Some(Key(*b"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"))
        );
    }

    proptest! {
        /// The same as a list that is searched from its end to its beginning.
        #[test]
        fn it_is_a_map_that_forgets_the_oldest(
            size in 1..6_usize,
            steps in proptest::collection::vec((0..8_u32, 0..3_u32, any::<bool>(), 0..40_u64), 1..200),
        ) {
            let (table, start) = table(100, size);
            let servers = ["a", "b", "c"].map(|name| table.server(name));
            let mut model: VecDeque<(u32, usize, u64)> = VecDeque::new();
            let mut now = 0;
            for (session, server, finds, pause) in steps {
                now += pause;
                let known = model.iter().position(|(known, ..)| *known == session);
                let is_live = |(_, _, used): &(u32, usize, u64)| now - used < 100;
                let at = start + Duration::from_millis(now);
                if finds {
                    let expected = known.filter(|place| is_live(&model[*place]));
                    let found = table.find(key(session), at);
                    prop_assert_eq!(found, expected.map(|place| servers[model[place].1]));
                    if let Some(entry) = expected.and_then(|place| model.remove(place)) {
                        model.push_front((session, entry.1, now));
                    }
                    continue;
                }
                table.keep(key(session), servers[server as usize], at);
                if let Some(place) = known {
                    model.remove(place);
                }
                model.push_front((session, server as usize, now));
                model.truncate(size);
            }
        }
    }
}
