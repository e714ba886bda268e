//! The policies on disk: the signed bytes as they came, and the highest version seen of each. Verifies nothing; whoever
//! loads them does.

use std::{io, path::Path};

use muster_certs::file;
use muster_proto::v1;
use prost::Message;

/// More than the largest set there may be.
const MAX_BYTES: usize = 96 * 1024 * 1024;

/// The content of `policies.pb`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Kept {
    #[prost(message, repeated, tag = "1")]
    pub policies: Vec<v1::Signed>,
    #[prost(message, repeated, tag = "2")]
    pub marks: Vec<Mark>,
    /// Whether the set was ever complete: an empty set and none are different things.
    #[prost(bool, tag = "3")]
    pub complete: bool,
}

/// The highest version that was seen, of a policy that may be gone by now.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Mark {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(int64, tag = "3")]
    pub version: i64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("failed to decode the policies")]
    Decode(#[from] prost::DecodeError),
}

/// Nothing when there is no file.
pub(super) fn load(path: &Path) -> Result<Kept, Error> {
    match file::read_secret(path, MAX_BYTES) {
        Ok(bytes) => Ok(Kept::decode(bytes.as_slice())?),
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn save(path: &Path, kept: &Kept) -> Result<(), file::Error> {
    file::write_secret(path, &kept.encode_to_vec())
}
