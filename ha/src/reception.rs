//! Which packets an election hears of: valid adverts of its virtual router, from where they may come. The others are
//! counted, and logged without a flood.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use tracing::{info, warn};

use crate::election::{Received, Time};
use crate::others::Others;
use crate::packet::{self, Advert, GROUP};
use crate::router::VirtualRouter;

/// Between two log lines about packets that are no valid adverts, and between two about differences.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Senders whose differences are remembered.
const SENDERS: usize = 16;

/// Counters, and what was logged.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    logged_at: Option<Time>,
    unlogged: u64,
    compared_at: Option<Time>,
    differences: BTreeMap<Ipv4Addr, Option<Difference>>,
    pub(crate) others: Others,
    /// It was said that another router has our priority.
    told_of_tie: bool,
}

/// How a router's advert differs from our configuration; it is obeyed even so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    advertisement_interval: Duration,
    addresses: Vec<Ipv4Addr>,
}

impl Reception {
    /// What the election is to hear, if anything. `nodes` are the addresses of this installation's nodes, as far as they are
    /// known otherwise than by their adverts: those are obeyed while a change of the addresses has not come to all of them, or
    /// two would be active meanwhile.
    pub(crate) fn judge(
        &mut self,
        packet: &[u8],
        router: &VirtualRouter,
        nodes: &[Ipv4Addr],
        own_address: Option<Ipv4Addr>,
        now: Time,
    ) -> Option<Received> {
        // Another virtual router may speak another version: nothing of its packets is our concern.
        if virtual_router_id(packet).is_some_and(|id| id != router.virtual_router_id.get()) {
            return None;
        }
        let incoming = match packet::parse(packet) {
            Ok(incoming) => incoming,
            Err(invalid) => {
                self.reject(router, source(packet), &invalid, now);
                return None;
            }
        };
        let (source, advert) = (incoming.source, incoming.advert);
        if let Some(objection) = objection(router, own_address, source, incoming.destination) {
            self.reject(router, Some(source), &objection, now);
            return None;
        }
        let is_of_ours =
            router.obey_other_addresses || router.unicast_peers.contains(&source) || nodes.contains(&source);
        if !is_of_ours && !lists_ours(router, &advert) {
            self.others.hear(router, source, advert, now);
            return None;
        }
        self.accepted += 1;
        self.compare(router, source, &advert, now);
        self.tell_of_tie(router, source, advert.priority);
        let Advert { priority, advertisement_interval, .. } = advert;
        Some(Received { source, priority, advertisement_interval })
    }

    fn reject(&mut self, router: &VirtualRouter, source: Option<Ipv4Addr>, reason: &dyn std::fmt::Display, now: Time) {
        self.rejected += 1;
        if self.logged_at.is_some_and(|logged_at| now < logged_at + LOG_INTERVAL) {
            self.unlogged += 1;
            return;
        }
        self.logged_at = Some(now);
        let unlogged = std::mem::take(&mut self.unlogged);
        let VirtualRouter { name, interface, .. } = router;
        let source = source.map_or_else(|| "unknown".to_owned(), |source| source.to_string());
        warn!(router = name, interface, source, %reason, unlogged, "ignored a packet that is no advert for this virtual router");
    }

    /// Once: of two routers with one priority neither preempts the other, and of two active ones the address decides.
    fn tell_of_tie(&mut self, router: &VirtualRouter, source: Ipv4Addr, priority: u8) {
        if priority != router.priority.get() || std::mem::replace(&mut self.told_of_tie, true) {
            return;
        }
        let VirtualRouter { name, interface, .. } = router;
        warn!(router = name, interface, %source, priority, "another router of this virtual router has the same priority: where both are active the higher address wins; give each a priority of its own");
    }

    /// Logs once what a sender is configured with that we are not; where they keep changing, one now and then.
    fn compare(&mut self, router: &VirtualRouter, source: Ipv4Addr, advert: &Advert, now: Time) {
        let (ours, theirs) =
            (sorted(router.addresses.iter().map(|it| it.address)), sorted(advert.addresses.iter().copied()));
        let difference = (ours != theirs || router.advertisement_interval != advert.advertisement_interval)
            .then_some(Difference { advertisement_interval: advert.advertisement_interval, addresses: theirs });
        let known = self.differences.get(&source);
        let is_news = known.map_or(difference.is_some(), |known| *known != difference);
        let is_flood = self.compared_at.is_some_and(|compared_at| now < compared_at + LOG_INTERVAL);
        if !is_news || is_flood || (known.is_none() && self.differences.len() >= SENDERS) {
            return;
        }
        self.compared_at = Some(now);
        let VirtualRouter { name, interface, advertisement_interval, .. } = router;
        match &difference {
            Some(theirs) => warn!(
                router = name, interface, %source,
                its_interval = ?theirs.advertisement_interval, our_interval = ?advertisement_interval,
                its_addresses = ?theirs.addresses, our_addresses = ?ours,
                "another router of this virtual router is configured differently; its adverts are obeyed even so"
            ),
            None => info!(router = name, interface, %source, "the other router is configured as this one again"),
        }
        self.differences.insert(source, difference);
    }
}

fn lists_ours(router: &VirtualRouter, advert: &Advert) -> bool {
    let (ours, theirs) = (router.addresses.iter().map(|it| it.address), advert.addresses.iter().copied());
    // In the order of the file, mostly.
    ours.clone().eq(theirs.clone()) || sorted(ours) == sorted(theirs)
}

/// Each once.
fn sorted(addresses: impl Iterator<Item = Ipv4Addr>) -> Vec<Ipv4Addr> {
    let addresses: BTreeSet<_> = addresses.collect();
    addresses.into_iter().collect()
}

/// Why an advert that is valid is not for us.
fn objection(
    router: &VirtualRouter,
    own_address: Option<Ipv4Addr>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> Option<&'static str> {
    if own_address == Some(source) {
        return Some("it comes from our own address; is that address given twice?");
    }
    let peers = &router.unicast_peers;
    if peers.is_empty() {
        return (destination != GROUP).then_some("it was sent to this node alone, but no unicast_peers are configured");
    }
    (!peers.contains(&source)).then_some("its sender is none of the unicast_peers")
}

/// Of a packet that may not be valid: which virtual router it means.
fn virtual_router_id(packet: &[u8]) -> Option<u8> {
    let ip_header = usize::from(packet.first()? & 0x0f) * 4;
    packet.get(ip_header + 1).copied()
}

/// Of a packet that may not be valid: who sent it.
fn source(packet: &[u8]) -> Option<Ipv4Addr> {
    packet.get(12..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::router::{OtherRouter, VirtualAddress};

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn router(unicast_peers: &[Ipv4Addr]) -> VirtualRouter {
        VirtualRouter {
            name: "main".to_owned(),
            interface: "eth1".to_owned(),
            virtual_router_id: NonZeroU8::MIN,
            priority: NonZeroU8::MIN,
            addresses: vec![VirtualAddress { address: Ipv4Addr::new(192, 0, 2, 20), prefix_length: 24 }],
            advertisement_interval: Duration::from_millis(100),
            preempt: true,
            unicast_peers: unicast_peers.to_vec(),
            obey_other_addresses: false,
        }
    }

    fn advert(virtual_router_id: NonZeroU8) -> Advert {
        Advert {
            virtual_router_id,
            priority: 100,
            advertisement_interval: Duration::from_millis(100),
            addresses: vec![Ipv4Addr::new(192, 0, 2, 20)],
        }
    }

    /// Accepted and rejected.
    fn judged(router: &VirtualRouter, packet: &[u8]) -> (u64, u64) {
        let mut reception = Reception::default();
        let heard = reception.judge(packet, router, &[], Some(OWN), Time(0));
        assert_eq!(heard.is_some(), reception.accepted == 1);
        (reception.accepted, reception.rejected)
    }

    #[test]
    fn who_may_speak_to_whom() {
        let stranger = Ipv4Addr::new(192, 0, 2, 9);
        let from = |source, destination| advert(NonZeroU8::MIN).encode(source, destination);
        for (peers, source, destination, expected) in [
            (&[][..], PEER, GROUP, (1, 0)),
            (&[], PEER, OWN, (0, 1)),
            (&[], OWN, GROUP, (0, 1)),
            (&[PEER], PEER, OWN, (1, 0)),
            (&[PEER], PEER, GROUP, (1, 0)),
            (&[PEER], stranger, OWN, (0, 1)),
            (&[PEER], stranger, GROUP, (0, 1)),
        ] {
            assert_eq!(
                judged(&router(peers), &from(source, destination)),
                expected,
                "{source} to {destination}, {peers:?}"
            );
        }
    }

    #[test]
    fn another_virtual_router_is_neither_heard_nor_counted() {
        let mut packet = advert(NonZeroU8::MAX).encode(PEER, GROUP);
        assert_eq!(judged(&router(&[]), &packet), (0, 0));
        // Of version 2.
        packet[20] = 0x21;
        assert_eq!(judged(&router(&[]), &packet), (0, 0));
    }

    /// An advert that lists other addresses is obeyed where it is known whose it is.
    #[test]
    fn whose_other_addresses_are_obeyed() {
        let ours = Ipv4Addr::new(192, 0, 2, 20);
        let other = Ipv4Addr::new(192, 0, 2, 50);
        for (addresses, peers, nodes, obeys, is_heard) in [
            (vec![ours], &[][..], &[][..], false, true),
            (vec![ours, ours], &[], &[], false, true),
            (vec![other], &[], &[], false, false),
            (vec![ours, other], &[], &[], false, false),
            (vec![other], &[], &[PEER], false, true),
            (vec![other], &[], &[OWN], false, false),
            (vec![other], &[PEER], &[], false, true),
            (vec![other], &[], &[], true, true),
        ] {
            for priority in [0, 1, 255] {
                let advert = Advert { addresses: addresses.clone(), priority, ..advert(NonZeroU8::MIN) };
                let router = VirtualRouter { obey_other_addresses: obeys, ..router(peers) };
                let mut reception = Reception::default();
                let received = reception.judge(&advert.encode(PEER, GROUP), &router, nodes, Some(OWN), Time(0));
                let case = format!("{addresses:?} {peers:?} {nodes:?} {obeys}");
                assert_eq!((received.is_some(), reception.others.adverts == 0), (is_heard, is_heard), "{case}");
                assert_eq!((reception.accepted, reception.rejected), (u64::from(is_heard), 0), "{case}");
            }
        }
    }

    #[test]
    fn another_installation_is_told_of_until_it_is_silent() {
        let (router, mut reception) = (router(&[]), Reception::default());
        let addresses = vec![Ipv4Addr::new(192, 0, 2, 50)];
        let packet = Advert { addresses: addresses.clone(), ..advert(NonZeroU8::MIN) }.encode(PEER, GROUP);
        for second in 0..100 {
            assert!(reception.judge(&packet, &router, &[], Some(OWN), Time(second * 1_000_000)).is_none());
            reception.others.look(&router, Time(second * 1_000_000));
        }
        assert_eq!(reception.others.adverts, 100);
        assert_eq!(reception.others.shown(), [OtherRouter { source: PEER, priority: 100, addresses }]);
        reception.others.look(&router, Time(159_000_000));
        assert!(reception.others.shown().is_empty());
        // Made up senders are no flood.
        for number in 0..200 {
            let source = Ipv4Addr::new(192, 0, 2, number);
            let other = Advert { addresses: vec![source], ..advert(NonZeroU8::MIN) };
            reception.judge(&other.encode(source, GROUP), &router, &[], Some(OWN), Time(0));
        }
        assert_eq!(reception.others.shown().len(), 16);
    }

    #[test]
    fn differences_that_change_with_every_advert_are_no_flood_of_log_lines() {
        let router = router(&[]);
        let mut reception = Reception::default();
        let mut told = 0;
        let mut last = None;
        for number in 0..2000 {
            let advertisement_interval = Duration::from_millis(10 + 10 * (number % 2));
            let packet = Advert { advertisement_interval, ..advert(NonZeroU8::MIN) }.encode(PEER, GROUP);
            let now = Time(number * 10_000);
            assert!(
                reception.judge(&packet, &router, &[], Some(OWN), now).is_some(),
                "a difference is no reason to ignore it"
            );
            told += u32::from(reception.differences.get(&PEER) != last.as_ref());
            last = reception.differences.get(&PEER).cloned();
        }
        assert_eq!(told, 2, "in 20 s");
    }

    #[test]
    fn a_router_of_the_same_priority_is_worth_a_warning() {
        let tells = |priority| {
            let packet = Advert { priority, ..advert(NonZeroU8::MIN) }.encode(PEER, GROUP);
            let mut reception = Reception::default();
            assert!(reception.judge(&packet, &router(&[]), &[], Some(OWN), Time(0)).is_some());
            reception.told_of_tie
        };
        assert_eq!([0, 1, 2].map(tells), [false, true, false], "ours is 1");
    }

    #[test]
    fn what_is_cut_off_anywhere_is_counted() {
        let packet = advert(NonZeroU8::MIN).encode(PEER, GROUP);
        for length in 0..packet.len() {
            assert_eq!(judged(&router(&[]), &packet[..length]), (0, 1), "{length} bytes");
        }
    }
}
