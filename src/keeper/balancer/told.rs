//! What the balancer is told while it runs.

use std::net::IpAddr;
use std::sync::PoisonError;

use super::Balancer;
use super::process::OUTBOX;
use crate::process::log;
use crate::process::messages::ToBalancer;
use crate::process::wishes::StampedWish;
use crate::status::{BalancerState, PairStatus, ServerState, ServerStatus};

impl Balancer {
    /// Was it told that this node holds this address?
    pub(in crate::keeper) fn holds(&self, address: IpAddr) -> bool {
        self.held.contains(&address)
    }

    /// Tells it the virtual addresses this node holds.
    pub(in crate::keeper) fn hold(&mut self, held: Vec<IpAddr>) {
        if self.held == held {
            return;
        }
        self.held.clone_from(&held);
        self.tell(ToBalancer::Held(held));
    }

    /// Tells it which of this host's addresses are cut off.
    pub(in crate::keeper) fn cut_off(&mut self, addresses: Vec<IpAddr>) {
        if self.cut_off == addresses {
            return;
        }
        self.cut_off.clone_from(&addresses);
        self.tell(ToBalancer::CutOff(addresses));
    }

    /// Has it check its servers at once. Rounds are counted from [`FIRST_ROUND`](crate::process::messages::FIRST_ROUND) on.
    pub(in crate::keeper) fn check_again(&self, round: u64) {
        self.tell(ToBalancer::CheckAgain(round));
    }

    /// The last round in which every server has been checked.
    pub(in crate::keeper) fn checked(&self) -> u64 {
        self.beat.checked
    }

    /// Opens the targets of its log again, which it cannot do by itself.
    pub(in crate::keeper) fn reopen_log(&self) {
        let Some(process) = &self.process else { return };
        let (targets, outbox) = (self.template.log_targets.clone(), process.outbox.clone());
        let trouble = self.log_trouble.clone();
        // A file system may take its time.
        tokio::task::spawn_blocking(move || {
            let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
            let mut open = |(place, target)| match log::open(target) {
                Ok(opened) => {
                    trouble.remove(&place);
                    Some((place, opened))
                }
                Err(error) => {
                    if trouble.insert(place) {
                        tracing::error!(%error, "the balancer cannot log there, and goes on with what it has: {error}");
                    }
                    None
                }
            };
            let (places, opened) = targets.iter().enumerate().filter_map(&mut open).unzip();
            let _ = outbox.try_send((ToBalancer::Log(places), opened));
        });
    }

    /// Tells it the state of the pair, where it shows that to somebody.
    pub(in crate::keeper) fn tell_pair(&self, pair: impl FnOnce() -> PairStatus) {
        let is_shown = self.template.config.frontends.iter().any(|frontend| frontend.statistics.is_some());
        if is_shown && self.state == BalancerState::Serving {
            self.tell(ToBalancer::Pair(Box::new(pair())));
        }
    }

    /// Tells it what people want of servers now. Gives the number that it answers with, or `None` where no balancer hears it:
    /// the next one begins with it.
    pub(in crate::keeper) fn heed(&mut self, wishes: &[StampedWish]) -> Option<u64> {
        self.number += 1;
        let wishes = wishes.iter().map(StampedWish::for_balancer).collect();
        self.owes_wishes |= !self.tell(ToBalancer::Wishes(self.number, wishes));
        // One that starts hears it as well, and takes its time for the answer.
        (self.state == BalancerState::Serving).then_some(self.number)
    }

    /// Tells it what the peers know of servers that it has yet to check.
    pub(in crate::keeper) fn tell_known(&self) {
        let is_unknown = |server: &ServerStatus| server.state == ServerState::Starting;
        if self.beat.backends.iter().flat_map(|backend| &backend.servers).any(is_unknown) {
            for known in self.knowledge.of_peers() {
                self.tell(ToBalancer::Known(known));
            }
        }
    }

    /// Sessions of a peer. More of them than it reads are lost: what matters more has to get through.
    pub(in crate::keeper) fn tell_sessions(&self, batch: String) {
        if let Some(process) = self.process.as_ref().filter(|process| process.outbox.capacity() > OUTBOX / 2) {
            let _ = process.outbox.try_send((ToBalancer::Sessions(batch), Vec::new()));
        }
    }

    /// A peer that knows no sessions is to be told all of them.
    pub(in crate::keeper) fn greet_peers(&mut self) {
        let has_sessions = self.template.config.backends.iter().any(|backend| backend.stick.is_some());
        if self.knowledge.has_new_peer() && has_sessions {
            self.tell(ToBalancer::TellSessions);
        }
    }

    /// Did the message find its place? Where there is no balancer, it is not missed.
    pub(super) fn tell(&self, message: ToBalancer) -> bool {
        let Some(process) = &self.process else { return true };
        let told = process.outbox.try_send((message, Vec::new())).is_ok();
        if !told {
            tracing::warn!("the balancer does not read its messages; one was dropped");
        }
        told
    }
}
