//! How many clients' connections there may be at once: of a frontend, of the process, and from one source.
//!
//! What finds no room is not accepted: it waits in the kernel's queue, as with HAProxy, or in the hand of whoever accepted it
//! when another worker was quicker.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::balancer::queue::Slots;

/// Connections open now, and who waits until there are fewer.
#[derive(Debug, Default)]
pub struct Room {
    most: Option<u64>,
    open: Slots,
    /// There are as many marks in the slots as there are wakers here.
    waiting: Mutex<Vec<Waker>>,
}

impl Room {
    /// For so many at once; `None`: without limit.
    pub fn new(most: Option<u64>) -> Self {
        Self { most, ..Self::default() }
    }

    /// How many there may be.
    pub fn most(&self) -> Option<u64> {
        self.most
    }

    /// Open now.
    pub fn count(&self) -> u64 {
        self.open.count()
    }

    /// Is there none left at the moment?
    pub fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.count() >= most)
    }

    /// One has gone.
    pub fn leave(&self) {
        if self.open.give_back() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let awake = std::mem::take(&mut *waiting);
            awake.iter().for_each(|_| self.open.unmark());
            drop(waiting);
            awake.into_iter().for_each(Waker::wake);
        }
    }

    fn poll_enter(&self, context: &mut Context<'_>) -> Poll<()> {
        let Some(most) = self.most else {
            self.open.take();
            return Poll::Ready(());
        };
        if self.open.hand_over(most) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
            self.open.mark();
        }
        // Who leaves after this look has seen the mark, and finds the waker.
        if self.open.hand_over(most) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_vacancy(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let entered = self.poll_enter(context);
        if entered.is_ready() {
            self.leave();
        }
        entered
    }
}

/// Takes a place in all of these at once, or in none; waits until that can be, and tells whether it had to.
pub async fn enter(rooms: &[&Room]) -> bool {
    let mut has_waited = false;
    poll_fn(|context| {
        for (index, room) in rooms.iter().enumerate() {
            if room.poll_enter(context).is_pending() {
                rooms.iter().take(index).for_each(|entered| entered.leave());
                has_waited = true;
                return Poll::Pending;
            }
        }
        Poll::Ready(has_waited)
    })
    .await
}

/// Waits until it looks as if all of these had a place left.
pub async fn vacancy(rooms: &[&Room]) {
    poll_fn(|context| match rooms.iter().any(|room| room.poll_vacancy(context).is_pending()) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
    .await;
}

/// Connections by where they come from. It has an entry for each source with an open connection and no other: so it holds
/// no more than there may be connections.
#[derive(Debug)]
pub struct Sources {
    most: u32,
    open: Mutex<HashMap<IpAddr, u32>>,
}

impl Sources {
    /// For so many from one.
    pub fn new(most: u32) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// One more from there, if there may be.
    #[must_use]
    pub fn enter(&self, source: IpAddr) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network(source)).or_default();
        let may = *count < self.most;
        *count += u32::from(may);
        may
    }

    /// One less.
    pub fn leave(&self, source: IpAddr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let source = network(source);
        let Some(count) = open.get_mut(&source) else { return };
        *count -= 1;
        if *count == 0 {
            open.remove(&source);
        }
    }
}

/// One host has a whole /64 of IPv6 addresses at its disposal (RFC 6177), and counts as one.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_places_and_an_ipv6_network_counts_as_one() {
        let sources = Sources::new(2);
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        for one in ["192.0.2.1", "2001:db8::1"] {
            assert!(sources.enter(of(one)) && sources.enter(of(one)));
            assert!(!sources.enter(of(one)));
        }
        assert!(!sources.enter(of("::ffff:192.0.2.1")), "the same address");
        assert!(!sources.enter(of("2001:db8::2:1")), "the same network");
        assert!(sources.enter(of("2001:db8:0:1::1")) && sources.enter(of("192.0.2.2")));
        sources.leave(of("2001:db8::9"));
        assert!(sources.enter(of("2001:db8::2:1")));
    }

    #[test]
    fn a_table_keeps_nothing_of_who_has_gone() {
        let sources = Sources::new(1);
        for number in 0..1000_u32 {
            assert!(sources.enter(IpAddr::V4(number.into())));
            sources.leave(IpAddr::V4(number.into()));
        }
        assert_eq!(sources.open.lock().unwrap().len(), 0);
    }
}
