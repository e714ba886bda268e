//! `endpoints.json` in the state directory: where controllers are, as the controller said last. A file that cannot be read is
//! as good as none, with a warning: the configuration leads to a controller too, and it tells them again.

use std::{io, path::Path};

use muster_certs::file;
use serde::{Deserialize, Serialize};

use super::parse;
use crate::{config::Endpoint, dial::causes};

/// Above what the most endpoints with the longest names take.
const MAX_BYTES: usize = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    endpoints: Vec<String>,
}

pub(super) fn load(path: &Path) -> Vec<Endpoint> {
    let bytes = match file::read_secret(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(
                error = causes(&error),
                "the endpoints that the controller told of cannot be read"
            );
            return Vec::new();
        }
    };
    match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) => parse(&kept.endpoints),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the endpoints that the controller told of cannot be read");
            Vec::new()
        }
    }
}

/// In one step: who reads the file finds the old ones or the new ones.
pub(super) fn save(path: &Path, endpoints: &[Endpoint]) -> Result<(), file::Error> {
    let kept = Kept {
        endpoints: endpoints.iter().map(Endpoint::to_string).collect(),
    };
    let text = serde_json::to_string_pretty(&kept).unwrap_or_default() + "\n";
    file::write_secret(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoints.json");
        assert_eq!(load(&path), []);
        for text in [
            "",
            "{",
            "[]",
            "{\"endpoints\": 1}",
            "{\"endpoints\": [\"nothing\", \"\"]}",
        ] {
            file::write_secret(&path, text.as_bytes()).unwrap();
            assert_eq!(load(&path), [], "{text:?}");
        }
        file::write_secret(&path, &vec![b' '; MAX_BYTES + 1]).unwrap();
        assert_eq!(load(&path), []);
    }

    proptest! {
        #[test]
        fn any_content_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("endpoints.json");
            file::write_secret(&path, &bytes).unwrap();
            prop_assert_eq!(load(&path), []);
        }
    }
}
