//! The agent: proves itself to a controller once, holds one link to it, runs the checks it is given and reports what they
//! and the machine say. A library, so that tests and `muster-server dev` run the very same agent; `main` is the life of the
//! process.

mod backoff;
pub mod config;
mod dial;
pub mod failure;
pub mod identity;
pub mod link;
pub mod policy;
pub mod state_dir;
