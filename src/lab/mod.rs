//! A pair with servers and clients on one machine, in network namespaces: `relevo demo`, the tests and the benchmark of
//! failover all run on it.
//!
//! ```text
//!  client 10.77.0.100 ─┐                    ┌─ lb1 10.77.0.11 ┐ one of them holds
//!                      ├── switch (bridge) ─┤                 │ 10.77.0.10
//!  web1 10.77.0.21 … ──┘                    └─ lb2 10.77.0.12 ┘
//! ```
//!
//! Everything is made through netlink and system calls, and everything goes away with the value that made it.

pub mod client;
pub mod directory;
pub mod error;
pub mod fault;
pub mod isolation;
pub mod namespace;
pub mod neighbour;
mod netlink;
pub mod network;
pub mod node;
pub mod outage;
pub mod pair;
mod priority;
pub mod show;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod tour;
pub mod trial;
pub mod watch;
pub mod web;
pub mod wire;

pub use error::{Error, Result};
