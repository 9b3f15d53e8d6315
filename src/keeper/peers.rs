//! What a keeper does when something happens to a peer.

use std::num::NonZeroU8;

use relevo_ha::State;
use tokio::sync::watch;

use super::peering::{PeerEvent, Peering};
use super::{Keeper, view};
use crate::config::model::Config;

/// Never, where there are no peers. Cancel-safe.
pub(super) async fn next_event(peering: &mut Option<Peering>) -> PeerEvent {
    match peering {
        Some(peering) => peering.next_event().await,
        None => std::future::pending().await,
    }
}

impl Keeper {
    pub(super) fn warn(&mut self) {
        let Some(peers) = &self.peers else { return };
        let Config { node, virtual_routers, .. } = &self.config;
        self.warnings.look(&node.name, &self.routers.borrow(), virtual_routers, &peers.borrow());
    }

    /// A router that is known to be gone need not be waited for.
    pub(super) fn peer_event(&mut self, event: PeerEvent) {
        let (peer, routers, reason) = match event {
            PeerEvent::Wishes(told) => return self.learn(told),
            PeerEvent::Sessions(batch) => return self.balancer.tell_sessions(batch),
            PeerEvent::Gone { peer, last } => {
                let reason = format!("the keeper of {peer} is gone");
                (peer, view::routers_of(&last), reason)
            }
            PeerEvent::Released { peer, virtual_router_id, own_address, reason } => {
                let reason = format!("{peer} let go: {reason}");
                (peer, own_address.map(|address| (virtual_router_id, address)).into_iter().collect(), reason)
            }
        };
        let peers = self.peers.as_ref().map(watch::Receiver::borrow);
        let peers = peers.as_deref().map_or(&[][..], Vec::as_slice);
        let own_routers = self.routers.borrow();
        for (id, address) in routers {
            let own = own_routers.iter().find(|own| own.virtual_router_id == id && own.state == State::Backup);
            let Some(id) = NonZeroU8::new(id) else { continue };
            if own.is_some_and(|own| view::is_first_in_line(own, &peer, peers)) {
                self.driver.router_gone(id, address, &reason);
            }
        }
    }
}
