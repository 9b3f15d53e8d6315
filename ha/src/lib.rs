//! The election of a pair: VRRP (RFC 9568) adverts, leased virtual addresses, announcements.
//!
//! Knows nothing of HTTP. The pure part is [`election`]; everything with a socket, a task or a timer is around it.

pub mod address;
mod advert_socket;
mod announce;
pub mod clock;
mod conflict;
mod driver;
pub mod election;
mod instance;
mod interface_settings;
mod link;
mod netlink;
mod others;
pub mod packet;
mod packet_socket;
mod prober;
mod readiness;
mod reception;
mod rescue;
pub mod router;
mod thread_priority;

pub use driver::{Driver, StartError};
pub use router::{AddressConflict, OtherRouter, RouterStatus, State, VirtualAddress, VirtualRouter};
