//! What this node counts, and how it is shown: a page for people, HAProxy's CSV, Prometheus's text.
//!
//! The balancer counts into [`counters`] and tells its checks to [`checks`]; from both it makes a [`snapshot::Snapshot`], which
//! is all that [`page`], [`csv`] and [`prometheus`] know.

pub mod access;
pub mod checks;
pub mod counters;
pub mod csv;
pub mod figures;
pub mod page;
pub mod prometheus;
pub mod rates;
pub mod snapshot;
