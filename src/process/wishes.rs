//! What people want of servers, as a keeper remembers it: for the balancer that starts next, and for the peers. The guard
//! remembers it for the keeper that starts next.
//!
//! Every node has all wishes of all nodes, and of two for the same thing the later one counts: whoever meets again after a
//! time apart tells the other everything, and both then know the same. Pure: it is told the time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::messages::ServerWish;
use crate::wish::{ServerName, Wish};

/// More are not taken from peers.
const MOST: usize = 20_000;

/// Of one message to a peer, in bytes of names.
const LONGEST_PIECE: usize = 32 << 10;

/// A wish, with when and where it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampedWish {
    /// Whom it concerns.
    pub server: ServerName,
    /// What it is.
    pub wish: Wish,
    /// Milliseconds since 1970, or more: later than every wish that its node knew then.
    pub at: u64,
    /// Where somebody asked for it.
    pub node: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes(BTreeMap<(ServerName, Aspect), StampedWish>);

/// Wishes of different aspects do not replace each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aspect {
    Admin,
    Weight,
}

impl Wishes {
    /// Somebody wants this on this node, now (milliseconds since 1970).
    pub fn add(&mut self, server: ServerName, wish: Wish, node: &str, now: u64) -> StampedWish {
        let latest = self.0.values().map(|wish| wish.at).max();
        let at = latest.map_or(now, |latest| now.max(latest.saturating_add(1)));
        let wish = StampedWish { server, wish, at, node: node.to_owned() };
        self.0.insert(wish.key(), wish.clone());
        wish
    }

    /// A peer knows this one. Is it news?
    pub fn learn(&mut self, wish: StampedWish) -> bool {
        let has_room = self.0.len() < MOST;
        match self.0.get_mut(&wish.key()) {
            Some(known) if (wish.at, &wish.node) > (known.at, &known.node) => *known = wish,
            None if has_room => drop(self.0.insert(wish.key(), wish)),
            _ => return false,
        }
        true
    }

    /// All of them, in the order of their servers.
    pub fn iter(&self) -> impl Iterator<Item = &StampedWish> {
        self.0.values()
    }

    /// What somebody does not know who was told `told`, in pieces of the length of a message.
    pub fn news_after(&self, told: &Wishes) -> Vec<Vec<StampedWish>> {
        let mut pieces: Vec<Vec<StampedWish>> = Vec::new();
        let mut length = usize::MAX;
        for (key, wish) in self.0.iter().filter(|(key, wish)| told.0.get(key) != Some(wish)) {
            length = length.saturating_add(key.0.backend.len() + key.0.server.len() + wish.node.len() + 100);
            if length > LONGEST_PIECE {
                pieces.push(Vec::new());
                length = 0;
            }
            pieces.last_mut().into_iter().for_each(|piece| piece.push(wish.clone()));
        }
        pieces
    }
}

impl FromIterator<StampedWish> for Wishes {
    fn from_iter<I: IntoIterator<Item = StampedWish>>(wishes: I) -> Self {
        let mut all = Self::default();
        all.extend(wishes);
        all
    }
}

impl Extend<StampedWish> for Wishes {
    /// Takes in what is news.
    fn extend<I: IntoIterator<Item = StampedWish>>(&mut self, wishes: I) {
        for wish in wishes {
            self.learn(wish);
        }
    }
}

impl StampedWish {
    /// As the balancer is told it.
    pub fn for_balancer(&self) -> ServerWish {
        ServerWish { server: self.server.clone(), wish: self.wish, node: self.node.clone() }
    }

    fn key(&self) -> (ServerName, Aspect) {
        let aspect = match self.wish {
            Wish::Admin(_) => Aspect::Admin,
            Wish::Weight(_) => Aspect::Weight,
        };
        (self.server.clone(), aspect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wish::{Admin, Weight};

    const DRAIN: Wish = Wish::Admin(Admin::Drain);
    const READY: Wish = Wish::Admin(Admin::Ready);
    const HALF: Wish = Wish::Weight(Weight::Percent(50));

    fn server(name: &str) -> ServerName {
        ServerName { backend: "app".into(), server: name.into() }
    }

    /// Tells the other everything.
    fn tell(from: &Wishes, to: &mut Wishes) -> usize {
        from.news_after(&Wishes::default()).into_iter().flatten().filter(|wish| to.learn(wish.clone())).count()
    }

    #[test]
    fn the_later_wish_counts_on_both_nodes_whoever_tells_first() {
        let (mut one, mut two) = (Wishes::default(), Wishes::default());
        one.add(server("a"), DRAIN, "lb1", 1000);
        two.add(server("a"), READY, "lb2", 1001);
        two.add(server("a"), HALF, "lb2", 900);
        one.add(server("b"), DRAIN, "lb1", 1002);
        assert_eq!(tell(&one, &mut two), 1);
        assert_eq!(tell(&two, &mut one), 2);
        assert_eq!(one, two);
        let of_a: Vec<_> = one.iter().filter(|wish| wish.server == server("a")).map(|wish| wish.wish).collect();
        assert_eq!(of_a, [READY, HALF]);
        assert_eq!((tell(&one, &mut two), tell(&two, &mut one)), (0, 0));
    }

    #[test]
    fn two_at_the_same_moment_end_the_same_on_both_nodes() {
        let (mut one, mut two) = (Wishes::default(), Wishes::default());
        one.add(server("a"), DRAIN, "lb1", 1000);
        two.add(server("a"), READY, "lb2", 1000);
        tell(&one, &mut two);
        tell(&two, &mut one);
        assert_eq!(one, two);
        assert_eq!(one.iter().next().unwrap().wish, READY);
    }

    #[test]
    fn a_clock_that_is_behind_makes_no_wish_an_old_one() {
        let (mut one, mut two) = (Wishes::default(), Wishes::default());
        one.add(server("a"), DRAIN, "lb1", 5_000_000);
        tell(&one, &mut two);
        two.add(server("a"), READY, "lb2", 1000);
        assert_eq!(tell(&two, &mut one), 1);
        assert_eq!(one.iter().next().unwrap().wish, READY);
    }

    #[test]
    fn only_news_is_told_and_much_of_it_in_pieces() {
        let mut wishes = Wishes::default();
        wishes.add(server("a"), DRAIN, "lb1", 1);
        let told = wishes.clone();
        assert!(wishes.news_after(&told).is_empty());
        wishes.add(server("a"), READY, "lb1", 2);
        assert_eq!(wishes.news_after(&told).concat().len(), 1);

        for number in 0..1000 {
            wishes.add(server(&number.to_string()), DRAIN, "lb1", 3);
        }
        let pieces = wishes.news_after(&told);
        assert!(pieces.len() > 1);
        assert!(pieces.iter().all(|piece| serde_json::to_vec(piece).unwrap().len() < 4 * LONGEST_PIECE));
        assert_eq!(pieces.concat().len(), 1001);
    }

    #[test]
    fn a_peer_fills_no_memory() {
        let (mut one, mut two) = (Wishes::default(), Wishes::default());
        for number in 0..MOST + 10 {
            one.0.extend([number].map(|number| {
                let wish = StampedWish { server: server(&number.to_string()), wish: DRAIN, at: 1, node: "lb1".into() };
                (wish.key(), wish)
            }));
        }
        assert_eq!(tell(&one, &mut two), MOST);
    }
}
