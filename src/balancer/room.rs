//! How many clients' connections there may be at once: of a frontend, of the process, and from one source.
//!
//! What finds no room is not accepted: it waits in the kernel's queue, as with HAProxy, or in the hand of whoever accepted it
//! when another worker was quicker.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::balancer::queue::Slots;

const UNLIMITED: u64 = u64::MAX;

/// Connections open now, and who waits until there are fewer.
#[derive(Debug)]
#[repr(align(128))]
pub struct Room {
    most: AtomicU64,
    open: Slots,
    /// There are as many marks in the slots as there are wakers here.
    waiting: Mutex<Vec<Waker>>,
}

impl Room {
    /// For so many at once; `None`: without limit.
    pub fn new(most: Option<u64>) -> Self {
        Self { most: AtomicU64::new(most.unwrap_or(UNLIMITED)), open: Slots::default(), waiting: Mutex::default() }
    }

    /// From now on so many; those that are there stay.
    pub fn set_most(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or(UNLIMITED), Relaxed);
        self.wake_all();
    }

    /// Open now.
    pub fn count(&self) -> u64 {
        self.open.count()
    }

    /// Is there none left at the moment?
    pub fn is_full(&self) -> bool {
        self.count() >= self.most.load(Relaxed)
    }

    fn leave(&self) {
        if self.open.give_back() {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let awake = std::mem::take(&mut *waiting);
        awake.iter().for_each(|_| self.open.unmark());
        drop(waiting);
        awake.into_iter().for_each(Waker::wake);
    }

    fn poll_enter(&self, context: &mut Context<'_>) -> Poll<()> {
        let most = self.most.load(Relaxed);
        if most == UNLIMITED {
            self.open.take();
            return Poll::Ready(());
        }
        if self.open.hand_over(most) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
            self.open.mark();
        }
        // Who leaves after this look has seen the mark, and finds the waker; so does who sets another limit.
        if self.open.hand_over(self.most.load(Relaxed)) { Poll::Ready(()) } else { Poll::Pending }
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

impl Default for Room {
    fn default() -> Self {
        Self::new(None)
    }
}

/// Takes a place in both of these at once, or in none; waits until that can be.
pub async fn enter(rooms: [Arc<Room>; 2]) -> Places {
    poll_fn(|context| {
        let [own, all] = &rooms;
        if own.poll_enter(context).is_ready() {
            if all.poll_enter(context).is_ready() {
                return Poll::Ready(());
            }
            own.leave();
        }
        Poll::Pending
    })
    .await;
    Places { rooms, source: None }
}

/// What a connection has a place in; dropped, it has left.
pub struct Places {
    /// Its frontend's, and that of the process.
    rooms: [Arc<Room>; 2],
    source: Option<Box<(Arc<Sources>, IpAddr)>>,
}

impl Places {
    /// Counts it among those of its source, if there may be another.
    #[must_use]
    pub fn enter_source(&mut self, sources: &Arc<Sources>, source: IpAddr) -> bool {
        let may = sources.enter(source);
        if may {
            self.source = Some(Box::new((sources.clone(), source)));
        }
        may
    }

    /// It is another frontend's from now on, or the same one's under another configuration: it counts there whatever the limits.
    pub fn move_to(&mut self, room: &Arc<Room>, sources: Option<&Arc<Sources>>, source: IpAddr) {
        let [own, _] = &mut self.rooms;
        if !Arc::ptr_eq(own, room) {
            room.open.take();
            std::mem::replace(own, room.clone()).leave();
        }
        let is_counted =
            |sources: &Arc<Sources>| self.source.as_ref().is_some_and(|known| Arc::ptr_eq(&known.0, sources));
        if let Some(sources) = sources.filter(|sources| !is_counted(sources)) {
            sources.add(source);
            let before = self.source.replace(Box::new((sources.clone(), source)));
            before.iter().for_each(|known| known.0.leave(known.1));
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.rooms.iter().for_each(|room| room.leave());
        self.source.iter().for_each(|known| known.0.leave(known.1));
    }
}

/// Waits until it looks as if all of these had a place left.
pub async fn vacancy(rooms: &[Arc<Room>]) {
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
    most: AtomicU32,
    open: Mutex<HashMap<IpAddr, u32>>,
}

impl Sources {
    /// For so many from one.
    pub fn new(most: u32) -> Self {
        Self { most: AtomicU32::new(most), open: Mutex::default() }
    }

    /// How many there may be.
    pub fn most(&self) -> u32 {
        self.most.load(Relaxed)
    }

    /// From now on so many; those that are there stay.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Relaxed);
    }

    fn add(&self, source: IpAddr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open.entry(network(source)).or_default() += 1;
    }

    fn enter(&self, source: IpAddr) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network(source)).or_default();
        let may = *count < self.most();
        *count += u32::from(may);
        may
    }

    fn leave(&self, source: IpAddr) {
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
