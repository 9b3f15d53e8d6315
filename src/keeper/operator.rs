//! What people want of servers, on its way: from the control socket or a peer, to the balancer and to the peers, and the answer
//! back.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::Keeper;
use super::orders::{self, Order};
use crate::process::wishes::StampedWish;
use crate::wish::ServerName;

/// Somebody wants something of servers.
pub(super) struct Waiting {
    /// What the balancer answers with.
    number: u64,
    servers: Vec<ServerName>,
    reply: oneshot::Sender<Result<String, String>>,
}

impl Keeper {
    /// Somebody here wants something of servers.
    pub(super) fn order(&mut self, order: &Order, reply: oneshot::Sender<Result<String, String>>) {
        let servers = match order.servers(&self.config.balancer) {
            Ok(servers) => servers,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut news = Vec::new();
        self.wishes.send_modify(|wishes| {
            let wishes = Arc::make_mut(wishes);
            news.extend(servers.iter().map(|name| wishes.add(name.clone(), order.wish, &self.config.node.name, now)));
        });
        match self.balancer.heed(&news) {
            Some(number) => self.waiting.push(Waiting { number, servers, reply }),
            None => drop(reply.send(Ok(self.answer(&servers, false)))),
        }
    }

    /// Those who wait for what the balancer heeds by now, or was told before it was lost.
    pub(super) fn answer_waiting(&mut self, number: u64, serves: bool) {
        let (answered, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|it| it.number <= number);
        self.waiting = waiting;
        for Waiting { servers, reply, .. } in answered {
            let _ = reply.send(Ok(self.answer(&servers, serves)));
        }
    }

    fn answer(&self, servers: &[ServerName], serves: bool) -> String {
        let backends = self.balancer.backends();
        let peers = self.peers.as_ref().map(|peers| peers.borrow().clone()).unwrap_or_default();
        orders::answer(servers, serves.then_some(backends), &peers)
    }

    /// A peer knows what people want of servers.
    pub(super) fn learn(&mut self, told: Vec<StampedWish>) {
        let mut news = Vec::new();
        self.wishes.send_if_modified(|wishes| {
            let wishes = Arc::make_mut(wishes);
            news.extend(told.into_iter().filter(|wish| wishes.learn(wish.clone())));
            !news.is_empty()
        });
        if !news.is_empty() {
            self.balancer.heed(&news);
        }
    }
}
