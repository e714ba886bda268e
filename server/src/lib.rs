//! The controller of Muster: it enrolls machines, holds their links, tells them their policies, keeps what they report, and
//! answers operators. `app` builds it, `main` is the life of the process.

pub mod access;
pub mod admin;
pub mod agents;
pub mod api;
pub mod app;
pub mod backup;
pub mod cas;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod clones;
pub mod config;
pub mod dev;
pub mod disk;
pub mod enroll;
pub mod events;
pub mod fleet;
pub mod forks;
pub mod ingest;
pub mod init;
pub mod lease;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod pki;
pub mod policies;
pub mod renewal;
pub mod signals;
pub mod states;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod tokens;
pub mod users;
