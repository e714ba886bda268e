//! Background work: each task is periodic, idempotent and bounded, and ends at shutdown. One file each.

pub mod controller_certificate;
pub mod disk;
pub mod identity;
pub mod liveness;
pub mod reload;
pub mod retention;
