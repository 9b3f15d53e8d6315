//! Other installations that use this virtual router's VRID: what they advert is not ours to obey.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tracing::{error, info};

use crate::election::Time;
use crate::packet::Advert;
use crate::router::{OtherRouter, VirtualRouter};

/// One that has been silent for so long is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Of so many is told, and of so many addresses of each.
const MOST: usize = 16;

/// Those that were heard, by the source of their adverts.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// Adverts of theirs, all told.
    pub(crate) adverts: u64,
    heard: BTreeMap<Ipv4Addr, (OtherRouter, Time)>,
}

impl Others {
    /// An advert of one of them.
    pub(crate) fn hear(&mut self, router: &VirtualRouter, source: Ipv4Addr, advert: Advert, now: Time) {
        self.adverts += 1;
        let Advert { priority, mut addresses, .. } = advert;
        addresses.truncate(MOST);
        let known = self.heard.get_mut(&source).filter(|(other, _)| other.addresses == addresses);
        if let Some((other, heard_at)) = known {
            (other.priority, *heard_at) = (priority, now);
            return;
        }
        // Whoever makes up senders or addresses is told of as well, but is no flood.
        if self.heard.len() >= MOST || self.heard.contains_key(&source) {
            return;
        }
        let VirtualRouter { name, interface, virtual_router_id, .. } = router;
        let ours: Vec<_> = router.addresses.iter().map(|address| address.address).collect();
        error!(
            router = name, interface, %source, its_addresses = ?addresses, our_addresses = ?ours, priority,
            "another installation uses VRID {virtual_router_id} on this network for other addresses, and is not obeyed; give one of the \
             two another virtual_router_id. If it is a node of this one, link it ([peering]) or list it in unicast_peers; to obey whatever it \
             lists set obey_other_addresses"
        );
        self.heard.insert(source, (OtherRouter { source, priority, addresses }, now));
    }

    /// Forgets who has been silent for long.
    pub(crate) fn look(&mut self, router: &VirtualRouter, now: Time) {
        self.heard.retain(|source, (_, heard_at)| {
            let stays = now < *heard_at + FORGOTTEN_AFTER;
            if !stays {
                let VirtualRouter { name, interface, virtual_router_id, .. } = router;
                info!(router = name, interface, %source, "another installation that used VRID {virtual_router_id} is not heard any more");
            }
            stays
        });
    }

    /// For the status.
    pub(crate) fn shown(&self) -> Vec<OtherRouter> {
        self.heard.values().map(|(other, _)| other.clone()).collect()
    }
}
