//! Reads the kernel's small files, bounded, and says which one was wrong.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::detached;

/// Larger than any of these files gets on a machine with thousands of CPUs or mounts.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{file} is not as expected: {problem}")]
    Malformed { file: &'static str, problem: String },
    #[error("an earlier call into the kernel still hangs")]
    Hangs,
    #[error("the collector panicked")]
    Panicked,
    #[error(transparent)]
    Call(#[from] detached::Error),
}

/// The text of a file, with U+FFFD where it is not UTF-8 (names of mount points are bytes).
pub(super) fn read(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The same for a file that only some kernels, devices or namespaces have.
pub(super) fn read_if_there(path: impl AsRef<Path>) -> Option<String> {
    read(path).ok()
}

/// A number of `file`, or what stood there instead.
pub(super) fn number<T: FromStr>(file: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Malformed {
        file,
        problem: format!("{text:?} is not a number"),
    })
}

/// Something of `file`, or the words for what is missing.
pub(super) fn expect<T>(file: &'static str, what: &str, found: Option<T>) -> Result<T, Error> {
    found.ok_or_else(|| Error::Malformed {
        file,
        problem: format!("{what} is missing"),
    })
}
