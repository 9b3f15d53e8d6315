//! Who held the floating IP when: every node's addresses, followed by the kernel's own events.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::error::{Context, Result};
use super::namespace::Namespace;

/// How soon the thread sees that it is to end.
const LOOK_UP: u16 = 50;

/// Follows one address in several namespaces.
pub struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    history: Mutex<History>,
}

/// Changes of owner in the order they were seen.
#[derive(Debug, Clone, Default)]
pub struct History {
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    at: Instant,
    node: usize,
    holds: bool,
}

impl Watch {
    /// Begins to follow `address`; nobody holds it yet. The nodes are known by their places in `nodes`.
    pub fn start<'a>(address: Ipv4Addr, nodes: impl IntoIterator<Item = &'a Namespace>) -> Result<Self> {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), history: Mutex::default() });
        let mut threads = Vec::new();
        for (node, namespace) in nodes.into_iter().enumerate() {
            let socket = namespace
                .run(|| {
                    let mut socket = Socket::new(NETLINK_ROUTE)?;
                    socket.bind(&SocketAddr::new(0, 1 << (MulticastGroup::Ipv4Ifaddr as u32 - 1)))?;
                    std::io::Result::Ok(socket)
                })?
                .context(|| format!("cannot follow the addresses of {}", namespace.name()))?;
            let shared = Arc::clone(&shared);
            threads.push(namespace.thread("watch", move || follow(&socket, address, node, &shared))?);
        }
        Ok(Self { shared, threads })
    }

    /// All that was seen until now.
    pub fn history(&self) -> History {
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn follow(socket: &Socket, address: Ipv4Addr, node: usize, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut ready, PollTimeout::from(LOOK_UP)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        let Ok((datagram, _)) = socket.recv_from_full() else { continue };
        let at = Instant::now();
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram) else { continue };
        let holds = match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(new)) if is_about(&new, address) => true,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(old)) if is_about(&old, address) => false,
            _ => continue,
        };
        let mut history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        // Each refresh of a lease comes as a new address.
        if history.holds(node) != holds {
            history.changes.push(Change { at, node, holds });
        }
    }
}

fn is_about(message: &AddressMessage, address: Ipv4Addr) -> bool {
    message.attributes.iter().any(|attribute| *attribute == AddressAttribute::Local(address.into()))
}

impl History {
    /// Does the node hold it now?
    pub fn holds(&self, node: usize) -> bool {
        self.changes.iter().rev().find(|change| change.node == node).is_some_and(|change| change.holds)
    }

    /// How many hold it at that time.
    pub fn owners_at(&self, time: Instant) -> usize {
        self.until(time).map(|change| if change.holds { 1 } else { -1 }).sum::<isize>().max(0) as usize
    }

    /// Longest time within the span that nobody held it.
    pub fn longest_without_owner(&self, from: Instant, until: Instant) -> Duration {
        self.longest(from, until, |owners| owners == 0)
    }

    /// Longest time within the span that more than one held it.
    pub fn longest_with_two_owners(&self, from: Instant, until: Instant) -> Duration {
        self.longest(from, until, |owners| owners > 1)
    }

    /// From a moment until exactly one holds it for the rest of the span; `None` if that is not so at its end.
    pub fn settled_after(&self, from: Instant, until: Instant) -> Option<Duration> {
        let settles = self.spans(from, until).into_iter().rev().take_while(|span| span.owners == 1).last();
        settles.map(|span| span.begin - from)
    }

    /// What happened since, as a table for people.
    pub fn describe(&self, from: Instant) -> String {
        let line = |change: &Change| {
            let verb = if change.holds { "takes" } else { "loses" };
            format!("  {:>8.1} ms  node {} {verb} it\n", (change.at - from).as_secs_f64() * 1e3, change.node + 1)
        };
        let begin = format!("  {} of the nodes hold it at first\n", self.owners_at(from));
        self.changes.iter().filter(|change| change.at >= from).fold(begin, |text, change| text + &line(change))
    }

    fn until(&self, time: Instant) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(move |change| change.at <= time)
    }

    fn longest(&self, from: Instant, until: Instant, matches: impl Fn(usize) -> bool) -> Duration {
        let spans = self.spans(from, until).into_iter();
        spans.filter(|span| matches(span.owners)).map(|span| span.end - span.begin).max().unwrap_or_default()
    }

    /// Spans of an equal number of owners, next to each other.
    fn spans(&self, from: Instant, until: Instant) -> Vec<Span> {
        let moments = self.changes.iter().map(|change| change.at).filter(|at| *at > from && *at < until);
        let mut spans = vec![Span { begin: from, end: until, owners: self.owners_at(from) }];
        for moment in moments {
            let owners = self.owners_at(moment);
            if let Some(last) = spans.last_mut().filter(|last| last.owners != owners) {
                last.end = moment;
                spans.push(Span { begin: moment, end: until, owners });
            }
        }
        spans
    }
}

struct Span {
    begin: Instant,
    end: Instant,
    owners: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn history(begin: Instant, changes: &[(u64, usize, bool)]) -> History {
        let change =
            |(at, node, holds): &(u64, usize, bool)| Change { at: begin + ms(*at), node: *node, holds: *holds };
        History { changes: changes.iter().map(change).collect() }
    }

    #[test]
    fn a_gap_is_the_time_that_nobody_held_it() {
        let begin = Instant::now();
        let history = history(begin, &[(0, 0, true), (100, 0, false), (103, 1, true)]);
        assert_eq!(history.longest_without_owner(begin + ms(50), begin + ms(500)), ms(3));
        assert_eq!(history.longest_with_two_owners(begin + ms(50), begin + ms(500)), ms(0));
        assert_eq!((history.owners_at(begin + ms(101)), history.owners_at(begin + ms(103))), (0, 1));
        assert_eq!(history.settled_after(begin + ms(50), begin + ms(500)), Some(ms(53)));
    }

    #[test]
    fn an_overlap_is_the_time_that_two_held_it() {
        let begin = Instant::now();
        let history = history(begin, &[(0, 0, true), (100, 1, true), (900, 0, false)]);
        assert_eq!(history.longest_with_two_owners(begin, begin + ms(2000)), ms(800));
        assert_eq!(history.longest_with_two_owners(begin, begin + ms(500)), ms(400));
        assert_eq!(history.longest_without_owner(begin, begin + ms(2000)), ms(0));
    }

    #[test]
    fn an_address_nobody_took_is_held_by_nobody() {
        let begin = Instant::now();
        let history = history(begin, &[]);
        assert_eq!(history.longest_without_owner(begin, begin + ms(70)), ms(70));
        assert_eq!(history.settled_after(begin, begin + ms(70)), None);
    }
}
