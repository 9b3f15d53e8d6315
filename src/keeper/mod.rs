//! The privileged process: runs the election, owns the virtual addresses, talks to the peers.

pub mod peering;
