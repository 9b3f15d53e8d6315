//! Consistent hashing: each server has places on a ring, in proportion to its weight, and a key belongs to the server whose
//! place is the next one on the ring.
//!
//! So when a server goes, its own keys go to the others and no other key moves; when its weight changes, some of its places
//! come or go. A place depends on the server's name alone: nodes of a pair agree, and so do a file and its sorted copy.

use super::key::{mix, of_bytes};

/// Places of a server of average weight. Its share of the keys is then mostly within a twentieth of what its weight says.
const PLACES: u64 = 512;

/// No server has more, however heavy it becomes while running: a ring is made anew whenever a server changes.
pub(super) const MOST_PLACES: u64 = 32 * PLACES;

/// All places, in order.
#[derive(Debug, Default)]
pub(super) struct Ring(Vec<(u64, u32)>);

/// Places that each unit of weight stands for, in tenths; the same whoever is up.
pub(super) fn places_per_weight(weights: impl Iterator<Item = u32>) -> u64 {
    let (servers, sum) =
        weights.filter(|weight| *weight > 0).fold((0, 0), |(n, sum), weight| (n + 1, sum + u64::from(weight)));
    (10 * PLACES * servers / sum.max(1)).max(10)
}

impl Ring {
    /// Of these servers: index, name, and how many places each has.
    pub(super) fn new<'name>(servers: impl Iterator<Item = (usize, &'name str, u64)>) -> Self {
        let mut places: Vec<_> = servers
            .flat_map(|(server, name, places)| {
                let begin = of_bytes(name.as_bytes());
                (1..=places).map(move |number| (mix(begin.wrapping_add(number)), server as u32))
            })
            .collect();
        places.sort_unstable();
        Self(places)
    }

    /// Whose key this is, leaving out `tried`: the next one's on the ring.
    pub(super) fn of_key(&self, key: u64, tried: &[usize]) -> Option<usize> {
        let next = self.0.partition_point(|(place, _)| *place < key);
        let (before, from) = self.0.split_at_checked(next)?;
        from.iter().chain(before).map(|(_, server)| *server as usize).find(|server| !tried.contains(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "web1", "web2", "web3", "web4", "web5"];
    const KEYS: u64 = 100_000;

    fn ring(servers: &[(usize, u64)]) -> Ring {
        Ring::new(servers.iter().map(|(server, places)| (*server, NAMES[*server], *places)))
    }

    fn owners(ring: &Ring) -> Vec<usize> {
        (0..KEYS).filter_map(|key| ring.of_key(of_bytes(&key.to_be_bytes()), &[])).collect()
    }

    fn share(owners: &[usize], server: usize) -> f64 {
        owners.iter().filter(|owner| **owner == server).count() as f64 / owners.len() as f64
    }

    /// Theory: the keys of the one that goes, about a tenth, and no other; they spread over all others.
    #[test]
    fn when_one_of_ten_goes_its_own_keys_move_and_no_other() {
        let ten: Vec<_> = (0..10).map(|server| (server, PLACES)).collect();
        let before = owners(&ring(&ten));
        for gone in 0..10 {
            let left: Vec<_> = ten.iter().copied().filter(|(server, _)| *server != gone).collect();
            let after = owners(&ring(&left));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
            assert!(moved.iter().all(|(before, _)| **before == gone), "a key of another moved");
            // A share of PLACES random arcs has a standard deviation of 1/√PLACES of itself: four of them.
            let fraction = moved.len() as f64 / KEYS as f64;
            assert!((fraction - 0.1).abs() < 0.1 * 4.0 / (PLACES as f64).sqrt(), "{fraction} of the keys moved");
            let heirs: Vec<_> = moved.iter().map(|(_, after)| **after).collect();
            assert!((0..10).filter(|server| *server != gone).all(|server| share(&heirs, server) > 0.04), "{gone}");
            assert_eq!(before, owners(&ring(&ten)), "it comes back to its own keys");
        }
    }

    #[test]
    fn keys_are_shared_by_weight_and_a_change_of_weight_moves_the_difference() {
        let heavy = owners(&ring(&[(0, 2 * PLACES), (1, PLACES), (2, PLACES)]));
        for (server, expected) in [(0, 0.5), (1, 0.25), (2, 0.25)] {
            assert!(
                (share(&heavy, server) - expected).abs() < expected * 4.0 / (PLACES as f64).sqrt(),
                "{}",
                share(&heavy, server)
            );
        }
        let equal = owners(&ring(&[(0, PLACES), (1, PLACES), (2, PLACES)]));
        assert!(heavy.iter().zip(&equal).all(|(before, after)| before == after || *before == 0));
    }

    #[test]
    fn the_order_of_the_file_and_who_was_tried() {
        let ring = Ring::new([(0, "web1", PLACES), (1, "web2", PLACES), (2, "web3", PLACES)].into_iter());
        let sorted_otherwise = Ring::new([(2, "web3", PLACES), (0, "web1", PLACES), (1, "web2", PLACES)].into_iter());
        let without_first = Ring::new([(1, "web2", PLACES), (2, "web3", PLACES)].into_iter());
        for key in (0..1000_u64).map(|key| of_bytes(&key.to_be_bytes())) {
            assert_eq!(ring.of_key(key, &[]), sorted_otherwise.of_key(key, &[]));
            assert_eq!(
                ring.of_key(key, &[0]),
                without_first.of_key(key, &[]),
                "a retry goes where it goes when it is down"
            );
        }
        assert_eq!(ring.of_key(u64::MAX, &[0, 1, 2]), None);
        assert_eq!(Ring::default().of_key(0, &[]), None);
    }

    #[test]
    fn an_average_server_has_its_places_whatever_weights_are_made_of() {
        for weights in [&[1, 1, 1][..], &[100, 100], &[60, 45, 0], &[256, 1, 1]] {
            let per_weight = places_per_weight(weights.iter().copied());
            let places: u64 = weights.iter().map(|weight| per_weight * u64::from(*weight) / 10).sum();
            let average = places / weights.iter().filter(|weight| **weight > 0).count() as u64;
            assert!((PLACES * 9 / 10..=PLACES).contains(&average), "{weights:?}: {average}");
        }
        assert!(places_per_weight([0, 0].into_iter()) > 0);
    }
}
