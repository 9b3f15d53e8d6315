//! What a stick table tells the peers' tables, and what it learns from them.
//!
//! A session is news when it is new or elsewhere, and again when it has been used for a while: the peers forget it otherwise.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Entries, Entry, Key, Place, ServerId, Table, milliseconds};

/// A session that is used is told so often until it would expire.
const TELLINGS: u64 = 8;

/// Of one part: more news at once are not remembered. A session that was left out is news again with its next use.
const MOST_WAITING: usize = 4096;

/// A session as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it is known by.
    pub key: Key,
    /// Where it is.
    pub server: ServerId,
    /// Since it was used.
    pub unused_for: Duration,
}

/// How far a table has been told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    part: usize,
    entry: usize,
}

/// Of one part of a table.
pub(super) struct News {
    /// A session that is used is news once in each period, in milliseconds.
    period: u64,
    /// By place: the period in which it was told last.
    told: Vec<u32>,
    waiting: VecDeque<Place>,
}

impl News {
    pub(super) fn was_used(&mut self, place: Place, now: u64) {
        let period = self.number(now);
        let Some(told) = (place as usize).checked_sub(1) else { return };
        if self.told.len() <= told {
            self.told.resize(told + 1, 0);
        }
        if let Some(told) = self.told.get_mut(told)
            && *told != period
            && self.waiting.len() < MOST_WAITING
        {
            *told = period;
            self.waiting.push_back(place);
        }
    }

    pub(super) fn has_changed(&mut self, place: Place, now: u64) {
        self.forget(place);
        self.was_used(place, now);
    }

    /// The peers know it already.
    fn was_learned(&mut self, place: Place, now: u64) {
        let waiting = self.waiting.len();
        self.has_changed(place, now);
        self.waiting.truncate(waiting);
    }

    fn forget(&mut self, place: Place) {
        if let Some(told) = (place as usize).checked_sub(1).and_then(|place| self.told.get_mut(place)) {
            *told = 0;
        }
    }

    /// Never 0.
    fn number(&self, now: u64) -> u32 {
        (now / self.period % u64::from(u32::MAX)) as u32 + 1
    }
}

impl Table {
    /// So much news at most, to be told now. With the first call the table begins to remember what is news. `turn` is another
    /// number each time: what does not fit is another part's.
    pub fn take_news(&self, turn: usize, most: usize, now: Instant) -> Vec<Known> {
        let now = self.since_origin(now);
        let mut taken = Vec::new();
        for index in 0..self.parts.len() {
            let mut part = self.lock((index + turn) % self.parts.len());
            let Some(entries) = part.as_deref_mut() else { continue };
            let period = (self.expire / TELLINGS).max(1);
            let news = entries
                .news
                .get_or_insert_with(|| Box::new(News { period, told: Vec::new(), waiting: VecDeque::new() }));
            let count = news.waiting.len().min(most - taken.len());
            let places: Vec<Place> = news.waiting.drain(..count).collect();
            taken.extend(places.into_iter().filter_map(|place| Some(entries.entry(place)?.known(now))));
        }
        taken
    }

    /// So many more of all sessions; fewer: those were the last.
    pub fn take_all(&self, cursor: &mut Cursor, most: usize, now: Instant) -> Vec<Known> {
        let now = self.since_origin(now);
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(part) = self.lock(cursor.part) else { break };
            // A part is looked at for a moment only.
            let left = part.entries.get(cursor.entry..).unwrap_or_default();
            let looked_at = left.len().min(most - taken.len());
            let known = left.iter().take(looked_at).map(|entry| entry.known(now));
            taken.extend(known.filter(|known| milliseconds(known.unused_for) < self.expire));
            cursor.entry += looked_at;
            if looked_at == left.len() {
                *cursor = Cursor { part: cursor.part + 1, entry: 0 };
            }
        }
        taken
    }

    /// A peer's table has this session. The later use counts.
    pub fn learn(&self, known: Known, now: Instant) {
        let age = milliseconds(known.unused_for);
        if age >= self.expire {
            return;
        }
        let (used, hash) = (self.since_origin(now).saturating_sub(age), self.hash(&known.key));
        if let Some(mut part) = self.part(hash) {
            part.learn(hash, known, used, |key| self.hash(key));
        }
    }

    fn lock(&self, part: usize) -> Option<std::sync::MutexGuard<'_, Entries>> {
        self.parts.get(part).map(|part| part.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Entries {
    fn learn(&mut self, hash: u64, known: Known, used: u64, hash_of: impl Fn(&Key) -> u64) {
        let newest = self.used(self.newest);
        let place = match self.place_of(hash, known.key) {
            Some(place) if self.used(place) >= used => return,
            Some(place) => place,
            // It is older than all that would have to make way.
            None if self.entries.len() == self.size && self.used(self.oldest) >= used => return,
            None => self.new_place(hash, known.key, hash_of),
        };
        let Some(entry) = self.entry(place) else { return };
        (entry.server, entry.used) = (known.server, used);
        // The row is in order as far as that is cheap: it only says who makes way.
        if used >= newest || self.oldest == place {
            self.move_to_front(place);
        }
        if let Some(news) = &mut self.news {
            news.was_learned(place, used);
        }
    }

    fn used(&mut self, place: Place) -> u64 {
        self.entry(place).map_or(0, |entry| entry.used)
    }
}

impl Entry {
    fn known(&self, now: u64) -> Known {
        let unused_for = Duration::from_millis(now.saturating_sub(self.used));
        Known { key: self.key, server: self.server, unused_for }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::IpAddr;

    use super::*;
    use crate::config::model::{Stick, StickBy};

    const MS: Duration = Duration::from_millis(1);

    fn table(size: usize, origin: Instant) -> Table {
        Table::new(&Stick { by: StickBy::Source, expire: 1000 * MS, size }, origin)
    }

    fn key(number: u32) -> Key {
        Key::of_address(IpAddr::from(number.to_be_bytes()))
    }

    /// All of it, until there is no more.
    fn news(table: &Table, now: Instant) -> Vec<Known> {
        let mut all = Vec::new();
        for turn in 0.. {
            let some = table.take_news(turn, 10, now);
            assert!(some.len() <= 10);
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        all
    }

    #[test]
    fn new_and_moved_sessions_are_news_once_and_used_ones_now_and_then() {
        let start = Instant::now();
        let table = table(1000, start);
        let (a, b) = (table.server("a"), table.server("b"));
        assert!(news(&table, start).is_empty());
        let told = |server, unused_for| vec![Known { key: key(1), server, unused_for }];
        table.keep(key(1), a, start);
        assert_eq!(news(&table, start + 5 * MS), told(a, 5 * MS));
        table.find(key(1), start + 6 * MS);
        table.keep(key(1), a, start + 7 * MS);
        assert!(news(&table, start + 7 * MS).is_empty());
        table.keep(key(1), b, start + 8 * MS);
        assert_eq!(news(&table, start + 8 * MS), told(b, Duration::ZERO));
        let uses = (0..1000).map(|ms| start + 8 * MS + ms * MS);
        let tellings = uses.map(|now| {
            assert!(table.find(key(1), now).is_some());
            news(&table, now).len()
        });
        let tellings = tellings.sum::<usize>();
        assert!((7..=9).contains(&tellings), "{tellings}");
    }

    #[test]
    fn a_peer_knows_what_it_was_told_for_as_long_and_tells_it_to_nobody() {
        let start = Instant::now();
        // The other began just now, and counts its time from there.
        let (one, other) = (table(1000, start), table(1000, start + 700 * MS));
        let (a, b) = (one.server("a"), other.server("a"));
        news(&one, start);
        news(&other, start + 700 * MS);
        for number in 0..200 {
            one.keep(key(number), a, start + 100 * MS);
        }
        let now = start + 700 * MS;
        let told = news(&one, now);
        assert_eq!(told.len(), 200);
        told.iter().for_each(|known| other.learn(Known { server: b, ..*known }, now));
        assert!(news(&other, now).is_empty());
        assert_eq!(other.find(key(7), start + 1099 * MS), Some(b));
        assert_eq!(other.find(key(8), start + 1100 * MS), None, "it expires when it does at the other");
    }

    #[test]
    fn the_later_use_counts() {
        let start = Instant::now();
        let table = table(1000, start);
        let (a, b) = (table.server("a"), table.server("b"));
        let at = start + 500 * MS;
        table.keep(key(1), a, at);
        let known = |unused_for| Known { key: key(1), server: b, unused_for };
        table.learn(known(MS), at);
        assert_eq!(table.find(key(1), at), Some(a));
        table.learn(known(Duration::ZERO), at + MS);
        assert_eq!(table.find(key(1), at + MS), Some(b));
        table.learn(Known { key: key(2), ..known(1000 * MS) }, at);
        assert_eq!(table.find(key(2), at), None, "it has expired");
    }

    #[test]
    fn all_sessions_are_told_in_pieces_and_learned_by_a_full_table_if_they_are_newer() {
        let start = Instant::now();
        let (one, other) = (table(5000, start), table(200, start));
        let (a, b) = (one.server("a"), other.server("b"));
        for number in 0..3000 {
            one.keep(key(number), a, start + (number / 100) * MS);
        }
        let now = start + 100 * MS;
        let mut cursor = Cursor::default();
        let mut all = Vec::new();
        loop {
            let some = one.take_all(&mut cursor, 70, now);
            all.extend_from_slice(&some);
            if some.len() < 70 {
                break;
            }
        }
        let keys: HashSet<Key> = all.iter().map(|known| known.key).collect();
        assert_eq!((all.len(), keys.len()), (3000, 3000));

        for number in 10_000..10_400 {
            other.keep(key(number), b, start + 50 * MS);
        }
        all.iter().for_each(|known| other.learn(Known { server: b, ..*known }, now));
        let own = (10_000..10_400).filter(|number| other.find(key(*number), now).is_some()).count();
        assert_eq!(own, 200, "its own were used later");
    }

    #[test]
    fn a_flood_of_news_takes_no_memory() {
        let start = Instant::now();
        let table = table(200_000, start);
        let a = table.server("a");
        table.take_news(0, 1, start);
        (0..100_000).for_each(|number| table.keep(key(number), a, start));
        let waiting = |part: usize| table.lock(part).unwrap().news.as_ref().unwrap().waiting.len();
        assert!((0..16).all(|part| waiting(part) == MOST_WAITING));
        assert_eq!(news(&table, start).len(), 16 * MOST_WAITING);
        // What was left out is news with its next use.
        assert!((0..100_000).all(|number| table.find(key(number), start + MS).is_some()));
        assert_eq!(news(&table, start + MS).len(), 100_000 - 16 * MOST_WAITING);
    }
}
