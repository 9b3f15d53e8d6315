//! What the balancers of two nodes tell each other of servers and sessions, as the keepers pass it on.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{broadcast, watch};

use crate::process::messages::{BATCH_PAUSE, Known, LONGEST_BATCH};
use crate::status::{BalancerState, PeerStatus};

/// What one balancer says in [`BATCH_PAUSE`].
const BATCHES: usize = 2;

/// Between our balancer and the peers'.
pub(super) struct Knowledge {
    /// `None`: there are none.
    peers: Option<watch::Receiver<Vec<PeerStatus>>>,
    /// Where batches of sessions go.
    sessions: broadcast::Sender<Arc<str>>,
    /// Batches that went there, since when.
    passed_on: (Instant, usize),
    /// By name and process of their balancers: who was told all sessions.
    told: Vec<(String, u32)>,
}

impl Knowledge {
    pub(super) fn new(peers: Option<watch::Receiver<Vec<PeerStatus>>>, sessions: broadcast::Sender<Arc<str>>) -> Self {
        Knowledge { peers, sessions, passed_on: (Instant::now(), 0), told: Vec::new() }
    }

    pub(super) fn has_peers(&self) -> bool {
        self.peers.is_some()
    }

    /// What the peers know of servers.
    pub(super) fn of_peers(&self) -> Vec<Known> {
        let known = |peer: &PeerStatus| Known { by: peer.name.clone(), backends: peer.status.backends.clone() };
        self.of(|peers| peers.iter().filter(|peer| peer.connected).map(known).collect())
    }

    /// Is there a peer that has linked since this was asked last, or whose balancer is another one? It knows no sessions.
    pub(super) fn has_new_peer(&mut self) -> bool {
        let serves = |peer: &&PeerStatus| peer.connected && peer.status.balancer.state == BalancerState::Serving;
        let balancer = |peer: &PeerStatus| (peer.name.clone(), peer.status.balancer.pid);
        let serving: Vec<_> = self.of(|peers| peers.iter().filter(serves).map(balancer).collect());
        let is_new = serving.iter().any(|peer| !self.told.contains(peer));
        self.told = serving;
        is_new
    }

    /// A batch of sessions to the peers, unless the balancer says more than it may.
    pub(super) fn pass_on(&mut self, batch: String) {
        let (since, count) = &mut self.passed_on;
        if since.elapsed() >= BATCH_PAUSE / 2 {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count <= BATCHES && batch.len() <= LONGEST_BATCH {
            // Without a link there is nobody to hear it.
            let _ = self.sessions.send(batch.into());
        }
    }

    fn of<T>(&self, what: impl FnOnce(&[PeerStatus]) -> T) -> T {
        match &self.peers {
            Some(peers) => what(&peers.borrow()),
            None => what(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(pid: u32, connected: bool, state: BalancerState) -> PeerStatus {
        let mut peer = PeerStatus { name: "lb2".into(), connected, ..PeerStatus::default() };
        (peer.status.balancer.pid, peer.status.balancer.state) = (pid, state);
        peer
    }

    #[test]
    fn a_peer_is_new_when_it_links_and_when_its_balancer_is_another() {
        use BalancerState::{Down, Serving};
        let (peers, receiver) = watch::channel(vec![peer(0, false, BalancerState::Starting)]);
        let mut knowledge = Knowledge::new(Some(receiver), broadcast::Sender::new(1));
        let rows = [
            (peer(7, true, BalancerState::Starting), false),
            (peer(7, true, Serving), true),
            (peer(7, true, Serving), false),
            (peer(7, false, Serving), false),
            (peer(7, true, Serving), true),
            (peer(0, true, Down), false),
            (peer(8, true, Serving), true),
        ];
        for (peer, expected) in rows {
            let state = format!("{peer:?}");
            peers.send_replace(vec![peer]);
            assert_eq!(knowledge.has_new_peer(), expected, "{state}");
        }
    }

    #[test]
    fn a_balancer_that_floods_its_keeper_reaches_no_peer() {
        let sessions = broadcast::Sender::new(100);
        let mut peer = sessions.subscribe();
        let mut knowledge = Knowledge::new(None, sessions);
        knowledge.pass_on("x".repeat(LONGEST_BATCH + 1));
        assert!(peer.try_recv().is_err());
        let begin = Instant::now();
        let mut sent = 0;
        while begin.elapsed() < 2 * BATCH_PAUSE {
            knowledge.pass_on("x".into());
            sent += 1;
            std::thread::sleep(BATCH_PAUSE / 50);
        }
        let limit = BATCHES * (2 + 2 * (begin.elapsed().as_millis() / BATCH_PAUSE.as_millis()) as usize);
        let received = std::iter::from_fn(|| peer.try_recv().ok()).count();
        assert!(received <= limit && received > 0, "{received} of {sent}");
    }
}
