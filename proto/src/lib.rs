//! The contract between controller, agents and operators: generated messages and services, ids, error reasons, the
//! selector grammar, manifests and the JSON dialect. Knows no transport, no storage and no TLS.

pub mod attempts;
pub mod audit;
pub mod check;
pub mod codec;
pub mod comments;
pub mod digest;
pub mod document;
pub mod duration;
pub mod endpoint;
pub mod error;
mod excerpt;
pub mod ids;
pub mod json;
pub mod label;
pub mod manifest;
pub mod policy_set;
pub mod selector;
mod suggest;
pub mod threshold;
pub mod token;

/// Generated from `muster/v1/*.proto`.
#[allow(clippy::all, missing_debug_implementations, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("muster.v1");
}

/// The encoded `FileDescriptorSet` of the package and all it imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The same with comments.
pub const DESCRIBED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/described.bin"));
