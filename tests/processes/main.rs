//! Guard, keeper and balancer as real processes: what each may do, what happens when one dies, and what is said when the
//! node cannot start. Each test has a network namespace of its own.

mod addresses;
mod deaths;
mod node;
mod pauses;
mod refusals;
mod rights;
mod service;
