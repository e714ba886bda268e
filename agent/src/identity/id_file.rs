//! The file that names this machine: one UUID. Whoever sets the machine up may have put it there; otherwise it is made
//! before the agent first enrolls. It proves nothing.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use muster_certs::file;
use muster_proto::ids::{self, AgentId};

const MAX_BYTES: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read the agent's id from {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} does not hold an agent's id", path.display())]
    Content { path: PathBuf, source: ids::Error },
    #[error("failed to make the directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("failed to write a new agent's id")]
    Write(#[source] file::Error),
}

/// The id in the file; none when there is no file.
pub fn read(path: &Path) -> Result<Option<AgentId>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let id = text.trim().parse().map_err(|source| Error::Content {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(id))
}

/// The id in the file, which is made when it is not there, and is on disk when this returns.
pub fn read_or_make(path: &Path) -> Result<AgentId, Error> {
    if let Some(id) = read(path)? {
        return Ok(id);
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .and_then(|()| sync_parent(parent))
            .map_err(|source| Error::Directory {
                path: parent.to_owned(),
                source,
            })?;
    }
    // A file that somebody was killed over is no reason not to write another.
    let _ = file::remove_leftovers(path);
    let id = AgentId::random();
    file::write_public(path, format!("{id}\n").as_bytes()).map_err(Error::Write)?;
    Ok(id)
}

/// A new directory is an entry of the one above it.
fn sync_parent(path: &Path) -> io::Result<()> {
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_with_the_directory_it_lies_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/muster/agent-id");
        let id = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), id);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{id}\n"));
    }

    #[test]
    fn an_id_that_was_put_there_is_taken_in_either_case() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent-id");
        fs::write(&path, "  7D0C51C2-9F0E-4B57-A3A1-5E1F0C7B8D21\r\n").unwrap();
        assert_eq!(
            read_or_make(&path).unwrap().to_string(),
            "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21"
        );
    }

    #[test]
    fn a_file_that_holds_anything_else_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent-id");
        for content in [&b""[..], b"\n", b"db-01", b"{{ uuid }}", b"\xff\xfe", &[b'a'; 10_000]] {
            fs::write(&path, content).unwrap();
            assert!(matches!(read_or_make(&path), Err(Error::Content { .. })), "{content:?}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read_or_make(dir.path()), Err(Error::Read { .. })));
    }
}
