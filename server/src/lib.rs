//! The controller of Muster: it enrolls machines, holds their links, tells them their policies, keeps what they report, and
//! answers operators. `app` builds it, `main` is the life of the process.

pub mod admin;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod init;
pub mod lease;
pub mod logging;
pub mod net;
pub mod pki;
pub mod signals;
pub mod store;
pub mod tasks;
pub mod telemetry;
