//! The unprivileged process that carries traffic.

pub mod balance;
pub mod health;
pub mod persistence;
pub mod resolve;
pub mod routing;
pub mod state;
