//! Commands that are about no single resource, one file each.

pub mod apply;
pub mod completion;
pub mod export;
pub mod plan;
pub mod rollback;
pub mod validate;
pub mod version;
pub mod whoami;
