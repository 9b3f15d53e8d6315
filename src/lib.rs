//! Relevo: an HTTP and TCP load balancer that comes as a high-availability pair.
//!
//! `docs/architecture.md` explains the whole in ten minutes.

pub mod balancer;
pub mod config;
pub mod keeper;
pub mod process;
pub mod status;
