//! What a virtual router sends: adverts and announcements. What fails is logged once, and once when it works again.

use tracing::{info, warn};

use super::{Instance, Sockets};
use crate::clock;
use crate::packet::{Advert, GROUP};
use crate::router::VirtualRouter;

impl Instance {
    pub(super) fn send_advert(&mut self, priority: u8) -> Result<(), String> {
        let Some(sockets) = &self.sockets else { return Ok(()) };
        // Active, and frozen between the decision and here: by now another router may be active, and would yield to this.
        // (A last advert, of a router that lets go or is overruled, makes nobody yield.)
        if self.election.replaceable_at().is_some_and(|until| clock::now() >= until) {
            return Ok(());
        }
        let advert = Advert {
            virtual_router_id: self.router.virtual_router_id,
            priority,
            advertisement_interval: self.router.advertisement_interval,
            addresses: self.router.addresses.iter().map(|address| address.address).collect(),
        };
        let destinations =
            if self.router.unicast_peers.is_empty() { &[GROUP][..] } else { self.router.unicast_peers.as_slice() };
        let (mut is_sent, mut failure) = (false, None);
        for &destination in destinations {
            let packet = advert.encode(sockets.interface.own_address, destination);
            match sockets.adverts.send(&packet, destination) {
                Ok(()) => is_sent = true,
                Err(error) => failure = Some((destination, error)),
            }
        }
        self.shown.adverts_sent += u64::from(is_sent);
        self.shown.adverts_unsent += u64::from(!is_sent);
        let code = failure.as_ref().map(|(_destination, error)| error.raw_os_error().unwrap_or_default());
        let is_news = code != std::mem::replace(&mut self.send_error, code);
        let VirtualRouter { name, interface, .. } = &self.router;
        match failure {
            None => {
                if is_news {
                    info!(router = name, interface, "adverts can be sent again");
                }
                Ok(())
            }
            Some((destination, error)) => {
                if is_news {
                    warn!(router = name, interface, %destination, %error, "cannot send adverts; whoever does not hear them takes over");
                }
                if is_sent { Ok(()) } else { Err(error.to_string()) }
            }
        }
    }

    pub(super) fn announce(&mut self) {
        let Some(Sockets { interface, announcer, .. }) = &self.sockets else { return };
        let Some(hardware_address) = interface.hardware_address else { return };
        let mut result = Ok(());
        for address in &self.router.addresses {
            result = result.and(announcer.announce(address.address, hardware_address));
        }
        let code = result.as_ref().err().map(|error| error.raw_os_error().unwrap_or_default());
        if code == std::mem::replace(&mut self.announce_error, code) {
            return;
        }
        let VirtualRouter { name, interface, .. } = &self.router;
        match result {
            Ok(()) => info!(router = name, interface, "the virtual addresses can be announced again"),
            Err(error) => warn!(router = name, interface, %error, "cannot announce the virtual addresses"),
        }
    }
}
