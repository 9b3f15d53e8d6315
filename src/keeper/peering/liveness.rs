//! What a peer's link tells about the peer's process (design rule 3). Pure: no socket, no clock.
//!
//! ```text
//! link closed, goodbye said        its active routers are released, nothing is known any more
//! link closed, no goodbye          nothing yet: dial again
//!   refused                        the process is gone
//!   accepted, same instance        it is alive
//!   accepted, another instance     the old process is gone; what the new one is active for by now is its own
//!   silence, unreachable           nothing: the adverts decide
//! ```

use relevo_ha::{RouterStatus, State};

use super::PeerEvent;
use super::message::Hello;
use crate::status::NodeStatus;

/// A peer's process as its link showed it.
#[derive(Debug)]
pub(super) struct Liveness {
    peer: String,
    /// `None` before the first link, and once it is gone or said goodbye.
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    instance: String,
    last: NodeStatus,
    /// `last` came over the present link: changes against it are news.
    heard_on_this_link: bool,
    /// What the process before it last told: gone, which is an event as soon as this one has told its own state.
    predecessor: Option<Box<NodeStatus>>,
}

impl Liveness {
    pub(super) fn new(peer: String) -> Liveness {
        Liveness { peer, process: None }
    }

    /// A link is established.
    pub(super) fn linked(&mut self, hello: &Hello) {
        if let Some(process) = self.process.as_mut().filter(|process| process.instance == hello.instance) {
            process.heard_on_this_link = false;
            return;
        }
        let predecessor = self.process.take().map(Process::last_of_all);
        let last = NodeStatus {
            node: hello.node.clone(),
            version: hello.version.clone(),
            config_hash: hello.config_hash.clone(),
            ..NodeStatus::default()
        };
        self.process = Some(Process { instance: hello.instance.clone(), last, heard_on_this_link: false, predecessor });
    }

    /// The peer told its state.
    pub(super) fn told(&mut self, status: NodeStatus) -> Vec<PeerEvent> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let earlier = std::mem::replace(&mut process.last, status);
        if !std::mem::replace(&mut process.heard_on_this_link, true) {
            let Some(mut last) = process.predecessor.take() else { return Vec::new() };
            // The link may be much later than the death: who follows its adverts again must not take over from it.
            let is_active = |id| active(&process.last).any(|router| router.virtual_router_id == id);
            last.vrrp.retain(|router| !is_active(router.virtual_router_id));
            return vec![PeerEvent::Gone { peer: self.peer.clone(), last }];
        }
        let later = &process.last.vrrp;
        let released = active(&earlier).filter_map(|router| match later.iter().find(|now| now.name == router.name) {
            Some(now) if now.state == State::Active => None,
            Some(now) => Some((router, now.reason.clone())),
            None => Some((router, "it no longer runs this virtual router".to_owned())),
        });
        released.map(|(router, reason)| release(&self.peer, router, reason)).collect()
    }

    /// The peer ends the link on purpose: what it held it gives away.
    pub(super) fn said_goodbye(&mut self, reason: &str) -> Vec<PeerEvent> {
        let Some(process) = self.process.take() else { return Vec::new() };
        if !process.heard_on_this_link {
            return Vec::new();
        }
        active(&process.last).map(|router| release(&self.peer, router, reason.to_owned())).collect()
    }

    /// Nobody listens where the peer did. No event for a peer that was never there.
    pub(super) fn refused(&mut self) -> Option<PeerEvent> {
        let process = self.process.take()?;
        Some(PeerEvent::Gone { peer: self.peer.clone(), last: process.last_of_all() })
    }
}

impl Process {
    /// Of a process that told nothing: what the one before it told.
    fn last_of_all(self) -> Box<NodeStatus> {
        self.predecessor.unwrap_or_else(|| Box::new(self.last))
    }
}

fn release(peer: &str, router: &RouterStatus, reason: String) -> PeerEvent {
    PeerEvent::Released {
        peer: peer.to_owned(),
        virtual_router_id: router.virtual_router_id,
        own_address: router.own_address,
        reason,
    }
}

/// Of any virtual router.
pub(super) fn is_active(status: &NodeStatus) -> bool {
    active(status).next().is_some()
}

fn active(status: &NodeStatus) -> impl Iterator<Item = &RouterStatus> {
    status.vrrp.iter().filter(|router| router.state == State::Active)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(instance: &str) -> Hello {
        Hello { node: "lb2".into(), instance: instance.into(), ..Hello::default() }
    }

    fn status(state: State) -> NodeStatus {
        let router = RouterStatus {
            name: "main".into(),
            virtual_router_id: 51,
            state,
            own_address: Some([192, 0, 2, 2].into()),
            reason: "its balancer died".into(),
            ..RouterStatus::default()
        };
        NodeStatus { node: "lb2".into(), vrrp: vec![router], ..NodeStatus::default() }
    }

    fn released(reason: &str) -> Vec<PeerEvent> {
        let own_address = Some([192, 0, 2, 2].into());
        vec![PeerEvent::Released { peer: "lb2".into(), virtual_router_id: 51, own_address, reason: reason.into() }]
    }

    fn gone(last: NodeStatus) -> Option<PeerEvent> {
        Some(PeerEvent::Gone { peer: "lb2".into(), last: Box::new(last) })
    }

    fn linked() -> Liveness {
        let mut liveness = Liveness::new("lb2".into());
        liveness.linked(&hello("a"));
        liveness
    }

    #[test]
    fn a_peer_that_was_never_there_is_not_gone() {
        assert_eq!(Liveness::new("lb2".into()).refused(), None);
    }

    #[test]
    fn refused_after_a_link_is_a_death_once() {
        let mut liveness = linked();
        liveness.told(status(State::Active));
        assert_eq!(liveness.refused(), gone(status(State::Active)));
        assert_eq!(liveness.refused(), None);
    }

    #[test]
    fn the_same_instance_is_alive_another_is_the_death_of_the_first() {
        let mut liveness = linked();
        liveness.told(status(State::Active));
        liveness.linked(&hello("a"));
        assert_eq!(liveness.told(status(State::Active)), []);
        liveness.linked(&hello("b"));
        assert_eq!(liveness.told(status(State::Backup)), Vec::from_iter(gone(status(State::Active))));
        liveness.linked(&hello("b"));
        assert_eq!(liveness.told(status(State::Backup)), []);
    }

    #[test]
    fn what_the_next_process_is_active_for_already_is_not_taken_from_it() {
        let mut liveness = linked();
        liveness.told(status(State::Active));
        liveness.linked(&hello("b"));
        let without_routers = NodeStatus { vrrp: Vec::new(), ..status(State::Active) };
        assert_eq!(liveness.told(status(State::Active)), Vec::from_iter(gone(without_routers)));
    }

    #[test]
    fn a_death_is_told_even_if_the_next_process_dies_before_it_speaks() {
        let mut liveness = linked();
        liveness.told(status(State::Active));
        liveness.linked(&hello("b"));
        liveness.linked(&hello("c"));
        assert_eq!(liveness.refused(), gone(status(State::Active)));
    }

    #[test]
    fn only_a_change_seen_on_this_link_releases() {
        let mut liveness = linked();
        assert_eq!(liveness.told(status(State::Backup)), []);
        assert_eq!(liveness.told(status(State::Active)), []);
        assert_eq!(liveness.told(status(State::Active)), []);
        assert_eq!(liveness.told(status(State::Backup)), released("its balancer died"));
        assert_eq!(liveness.told(status(State::Backup)), []);

        assert_eq!(liveness.told(status(State::Active)), []);
        liveness.linked(&hello("a"));
        assert_eq!(liveness.told(status(State::Backup)), [], "the link was new: this may be old");
    }

    #[test]
    fn a_virtual_router_that_is_no_more_is_released() {
        let mut liveness = linked();
        liveness.told(status(State::Active));
        assert_eq!(liveness.told(NodeStatus::default()), released("it no longer runs this virtual router"));
    }

    #[test]
    fn goodbye_releases_and_is_no_death() {
        let mut liveness = linked();
        liveness.told(status(State::Active));
        assert_eq!(liveness.said_goodbye("stopping"), released("stopping"));
        assert_eq!(liveness.refused(), None);

        let mut liveness = linked();
        liveness.told(status(State::Backup));
        assert_eq!(liveness.said_goodbye("stopping"), []);
    }
}
