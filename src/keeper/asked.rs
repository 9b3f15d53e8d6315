//! Questions for the state of the pair: answered with what the balancer counts in this moment, and not with its last beat.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::Keeper;
use crate::status::PairStatus;

/// A balancer that says nothing for so long hangs, or has much to do: its last beat must do.
const PATIENCE: Duration = Duration::from_millis(100);

/// Somebody waits for an answer.
pub(super) struct Asked {
    /// What the balancer answers with.
    number: u64,
    until: Instant,
    reply: oneshot::Sender<PairStatus>,
}

/// When the first of them has waited enough. Cancel-safe.
pub(super) async fn is_due(asked: &[Asked]) {
    match asked.first() {
        Some(first) => sleep_until(first.until).await,
        None => std::future::pending().await,
    }
}

impl Keeper {
    pub(super) fn status_asked(&mut self, reply: oneshot::Sender<PairStatus>) {
        match self.balancer.heed(&[]) {
            Some(number) => self.asked.push(Asked { number, until: Instant::now() + PATIENCE, reply }),
            // Whoever asked may have gone.
            None => drop(reply.send(self.pair_status())),
        }
    }

    /// Those who wait for what the balancer has told by now, and those who have waited enough.
    pub(super) fn answer_asked(&mut self, number: u64) {
        let now = Instant::now();
        let is_answered = |asked: &Asked| asked.number <= number || asked.until <= now;
        let (answered, asked) = std::mem::take(&mut self.asked).into_iter().partition(is_answered);
        self.asked = asked;
        let answered: Vec<Asked> = answered;
        if answered.is_empty() {
            return;
        }
        let status = self.pair_status();
        for Asked { reply, .. } in answered {
            let _ = reply.send(status.clone());
        }
    }
}
