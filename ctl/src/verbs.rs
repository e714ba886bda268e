//! Commands that are about no single resource, one file each.

pub mod apply;
pub mod completion;
pub mod version;
pub mod wait;
pub mod whoami;
