//! The agent's end of the link.

pub mod queue;
pub mod session;
