//! Commands that are about no single resource, one file each.

pub mod apply;
pub mod complete;
pub mod completion;
pub mod delete;
pub mod doctor;
pub mod explain;
pub mod export;
pub mod login;
pub mod plan;
pub mod rollback;
pub mod validate;
pub mod version;
pub mod wait;
pub mod whoami;
