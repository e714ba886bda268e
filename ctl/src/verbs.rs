//! Commands that are about no single resource, one file each.

pub mod apply;
pub mod complete;
pub mod completion;
pub mod doctor;
pub mod login;
pub mod version;
pub mod wait;
pub mod whoami;
