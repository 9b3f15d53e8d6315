//! `[vrrp.NAME]`: the virtual routers this node takes part in.

use std::num::NonZeroU8;
use std::ops::Range;
use std::time::Duration;

use relevo_ha::{VirtualAddress, VirtualRouter};
use toml::Spanned;

use super::{Checker, into_file_order, plain};
use crate::config::file::{self, Named};
use crate::config::value::{FromText, Interface, OneOrMany, Text};

/// What later virtual routers must not repeat.
#[derive(Default)]
struct Taken {
    /// By interface and VRID.
    routers: Vec<(String, u32, Range<usize>)>,
    addresses: Vec<(VirtualAddress, Range<usize>)>,
}

impl Checker<'_> {
    pub(super) fn virtual_routers(&mut self, written: Named<file::VirtualRouter>) -> Vec<VirtualRouter> {
        let mut taken = Taken::default();
        let mut routers = Vec::new();
        for (name, written) in into_file_order(written) {
            self.name(&name);
            routers.extend(self.virtual_router(name, written, &mut taken));
        }
        routers
    }

    fn virtual_router(
        &mut self,
        name: Spanned<String>,
        written: file::VirtualRouter,
        taken: &mut Taken,
    ) -> Option<VirtualRouter> {
        let place = name.span();
        let interface = plain(self.required(written.interface, &place, "interface", Interface::ACCEPTED));
        let id = self.required(written.virtual_router_id, &place, "virtual_router_id", "a whole number from 1 to 255");
        if let (Some(interface), Some(id)) = (&interface, &id) {
            let number = id.get_ref().0;
            match taken.routers.iter().find(|(other, other_id, _)| *other == interface.0 && *other_id == number) {
                Some((_, _, first)) => {
                    let first = first.clone();
                    let message = "every virtual router on an interface has its own VRID";
                    self.conflict(id.span(), message, &format!("is taken on {}", interface.0), first, "first here");
                }
                None => taken.routers.push((interface.0.clone(), number, id.span())),
            }
        }
        let addresses = self.addresses(written.addresses, &place, taken);
        let interval = written.advertisement_interval.map(|interval| self.interval(interval));
        let mut unicast_peers = Vec::new();
        for peer in written.unicast_peers.map(OneOrMany::elements).unwrap_or_default() {
            let span = peer.span();
            let peer = peer.into_inner().0;
            if unicast_peers.contains(&peer) {
                self.problem(span, "every peer is listed once", "is already listed");
            }
            unicast_peers.push(peer);
        }
        Some(VirtualRouter {
            name: name.into_inner(),
            interface: interface?.0,
            virtual_router_id: octet(id?.into_inner().0)?,
            priority: octet(written.priority.map_or(100, |priority| priority.0))?,
            addresses: addresses?,
            advertisement_interval: match interval {
                Some(interval) => interval?,
                None => Duration::from_secs(1),
            },
            preempt: written.preempt.unwrap_or(true),
            unicast_peers,
            obey_other_addresses: written.obey_other_addresses.unwrap_or(false),
        })
    }

    fn addresses(
        &mut self,
        written: Option<Spanned<OneOrMany<Text<VirtualAddress>>>>,
        place: &Range<usize>,
        taken: &mut Taken,
    ) -> Option<Vec<VirtualAddress>> {
        let written = written.map(OneOrMany::elements).unwrap_or_default();
        if written.is_empty() {
            self.missing(place, "addresses", "a list of addresses, such as `addresses = [\"192.0.2.20/24\"]`");
            return None;
        }
        if let Some(first_too_many) = written.get(255) {
            self.problem(first_too_many.span(), "an advert carries at most 255 addresses", "is one too many");
        }
        let mut addresses = Vec::new();
        for address in written {
            let span = address.span();
            let address = address.into_inner().0;
            match taken.addresses.iter().find(|(other, _)| other.address == address.address) {
                Some((_, first)) => {
                    let first = first.clone();
                    self.conflict(span, "an address belongs to one virtual router", "is taken", first, "first here");
                }
                None => taken.addresses.push((address, span)),
            }
            addresses.push(address);
        }
        Some(addresses)
    }

    /// Adverts carry it in centiseconds, in 12 bits (RFC 9568 §5.2.7).
    fn interval(&mut self, written: Spanned<Text<Duration>>) -> Option<Duration> {
        let span = written.span();
        let interval = written.into_inner().0;
        let centisecond = Duration::from_millis(10);
        let is_whole = interval.as_nanos().is_multiple_of(centisecond.as_nanos());
        if !is_whole || !(centisecond..=centisecond * 4095).contains(&interval) {
            let found = format!("found {interval:?}");
            let hint = "adverts carry it in centiseconds, in 12 bits";
            self.problem_with_hint(span, "expected \"10ms\" to \"40.95s\", in steps of 10ms", &found, hint);
            return None;
        }
        Some(interval)
    }
}

fn octet(number: u32) -> Option<NonZeroU8> {
    u8::try_from(number).ok().and_then(NonZeroU8::new)
}
