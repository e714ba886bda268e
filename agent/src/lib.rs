//! The agent: proves itself to a controller once, holds one link to it, runs the checks it is given and reports what they
//! and the machine say. A library, so that tests and `muster-server dev` run the very same agent; `main` is the life of the
//! process.

pub mod app;
pub mod backoff;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
mod detached;
mod dial;
pub mod endpoints;
pub mod exec;
pub mod facts;
pub mod failure;
pub mod identity;
pub mod link;
mod logging;
pub mod logs;
pub mod policy;
mod splay;
pub mod state_dir;
pub mod status;
mod statvfs;
