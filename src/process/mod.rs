//! What guard, keeper and balancer share because they are processes of one program.

pub mod descriptors;
pub mod messages;
