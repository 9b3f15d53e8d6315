//! The unprivileged process that carries traffic.

pub mod state;
