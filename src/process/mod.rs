//! What guard, keeper and balancer share because they are processes of one program.

pub mod backoff;
pub mod descriptor;
pub mod descriptors;
pub mod lock;
pub mod log;
pub mod memory;
pub mod messages;
pub mod wishes;
