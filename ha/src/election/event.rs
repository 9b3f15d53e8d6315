//! What goes into an election and what comes out: events with the time, actions in order.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use crate::router::{State, VirtualAddress};

/// A moment on CLOCK_BOOTTIME, in microseconds: it goes on while the host is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// What an election needs to know of its virtual router.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "see VirtualRouter")]
pub struct Settings {
    pub priority: NonZeroU8,
    pub advertisement_interval: Duration,
    pub preempt: bool,
}

/// What happens to a virtual router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The deadline was reached.
    Timer,
    /// A valid advert of another router arrived.
    Advert(Received),
    /// The interface is up and has an address to send from.
    LinkUp {
        /// Source of our adverts.
        own_address: Ipv4Addr,
    },
    /// The interface is gone, down, without carrier or without an address.
    LinkDown {
        /// In words.
        reason: String,
    },
    /// The node may be active: its balancer serves.
    Eligible,
    /// It may not.
    Ineligible {
        /// In words.
        reason: String,
    },
    /// The node may take the addresses from a router that works, by its priority. So it is at first.
    Ready,
    /// It may not, and gives them up to any that is ready: it would serve worse. It still takes over where nobody is active.
    Unready {
        /// In words.
        reason: String,
    },
    /// The kernel has taken every address of the last [`Action::Lease`].
    AddressesTaken,
    /// The kernel refused one.
    AddressRefused {
        /// In words.
        reason: String,
    },
    /// The kernel has done what the last [`Action::RemoveAddresses`] asked for.
    AddressesRemoved,
    /// The advert of the last [`Action::SendAdvert`] could be sent to nobody.
    AdvertNotSent {
        /// In words.
        reason: String,
    },
    /// Somebody else removed one of our addresses.
    AddressLost(VirtualAddress),
    /// The router that adverts from `address` is known (not by its adverts) to be gone or to have let go.
    RouterGone {
        /// Source address of its adverts.
        address: Ipv4Addr,
        /// In words.
        reason: String,
    },
    /// Shut down: hand over.
    Stop,
}

/// The fields of an advert that the election looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9568 §5.2")]
pub struct Received {
    pub source: Ipv4Addr,
    pub priority: u8,
    pub advertisement_interval: Duration,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// To the group, or to every unicast peer; answered by [`Event::AdvertNotSent`] if that fails while active.
    SendAdvert {
        /// 0: we let go.
        priority: u8,
    },
    /// Add every address, or refresh its lease, unless by then it is later than
    /// [`Election::replaceable_at`](super::Election::replaceable_at); answered by [`Event::AddressesTaken`] or [`Event::AddressRefused`].
    Lease {
        /// `valid_lft`, in whole seconds.
        seconds: u32,
    },
    /// Remove every address; answered by [`Event::AddressesRemoved`].
    RemoveAddresses,
    /// One gratuitous ARP for each address.
    Announce,
    /// Throw away what waits in the receive queue: it is older than our absence.
    DrainReceived,
    /// The state changed.
    Changed(Transition),
}

/// A change of state, for log and status.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Transition {
    pub from: State,
    pub to: State,
    pub reason: String,
}
