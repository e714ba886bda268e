//! `identity.next.pem`: the identity that a renewal is about to bring. First the key alone, on disk before it is certified;
//! then the key with its chain; then, once a connection has proved it, it takes the place of `identity.pem` by one rename.
//! Whatever comes between, one of the two files is an identity that works.

use std::{fs, io, path::Path};

use muster_certs::{
    file,
    identity_file::{ContentError, IdentityFile},
    key::{self, KeyPair},
    pem,
};

use super::Identity;
use crate::state_dir::StateDir;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("failed to make a key")]
    Key(#[from] key::Error),
    #[error("failed to put the new identity in its place")]
    Promote(#[source] io::Error),
}

#[derive(Debug)]
pub enum Next {
    Key(KeyPair),
    Complete(Box<IdentityFile>),
}

/// What an earlier renewal has left, or a new key that is on disk when this returns.
pub fn load_or_make(state: &StateDir, current: &Identity) -> Result<Next, Error> {
    match load(state, current)? {
        Some(next) => Ok(next),
        None => {
            let key = KeyPair::generate()?;
            file::write_secret(&state.next_identity(), key.to_pem().as_bytes())?;
            Ok(Next::Key(key))
        }
    }
}

/// What an earlier renewal has left. A file that cannot be read, or is not of this agent or not newer than what it has, is as
/// good as none.
pub fn load(state: &StateDir, current: &Identity) -> Result<Option<Next>, Error> {
    let path = state.next_identity();
    let text = match file::read_secret_text(&path, pem::MAX_BYTES) {
        Ok(text) => text,
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error @ (file::Error::FileTooOpen { .. } | file::Error::Read { .. })) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    match IdentityFile::from_pem(&text) {
        Ok(next) if next.identity() == current.file().identity() && next.not_after() > current.expires() => {
            Ok(Some(Next::Complete(Box::new(next))))
        }
        // Of an agent that this one was before, or older than what it has: of no use, and nobody else's either.
        Ok(_) => Ok(None),
        Err(ContentError::Pem(pem::Error::NoCertificate)) => Ok(KeyPair::from_pem(&text).ok().map(Next::Key)),
        Err(_) => Ok(None),
    }
}

/// The certified identity is on disk when this returns.
pub fn keep(state: &StateDir, next: &IdentityFile) -> Result<(), Error> {
    Ok(file::write_secret(&state.next_identity(), next.to_pem().as_bytes())?)
}

/// What has been proved becomes what the agent is.
pub fn promote(state: &StateDir) -> Result<(), Error> {
    let path = state.identity();
    fs::rename(state.next_identity(), &path)
        .and_then(|()| fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all())
        .map_err(Error::Promote)
}

/// It does not work and never will.
pub fn drop(state: &StateDir) {
    match fs::remove_file(state.next_identity()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "a key that is of no use could not be removed");
        }
        _ => {}
    }
}
