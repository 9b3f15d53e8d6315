//! Relevo: an HTTP and TCP load balancer that comes as a high-availability pair.
//!
//! `docs/architecture.md` explains the whole in ten minutes.

pub mod balancer;
pub mod cli;
pub mod config;
pub mod guard;
pub mod keeper;
pub mod lab;
pub mod process;
pub mod stats;
pub mod status;
pub mod wish;
