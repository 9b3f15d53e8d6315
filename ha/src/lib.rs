//! The election of a pair: VRRP (RFC 9568) adverts, leased virtual addresses, announcements.
//!
//! Knows nothing of HTTP. The pure part is [`election`]; everything with a socket, a task or a timer is around it.

pub mod election;
pub mod packet;
pub mod router;

pub use router::{RouterStatus, State, VirtualAddress, VirtualRouter};
