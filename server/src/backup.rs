//! A backup of a controller in one encrypted file, and a controller out of such a file: keys, configuration, and everything in
//! the database but the history of metrics. What the tables are is known to `store::dump`; who may have a backup is decided by
//! who may read the keys of this host.

mod archive;
mod configuration;
mod contents;
mod format;
mod passphrase;
pub mod restore;
mod rows;
pub mod take;
#[cfg(test)]
mod tests;
pub mod verify;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{admin, config, init, pki, store};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} exists already, and nothing is overwritten; choose another place, or move it away", .0.display())]
    Exists(PathBuf),
    #[error("failed to write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a backup of muster-server{}", path.display(), because(why))]
    NotABackup { path: PathBuf, why: &'static str },
    #[error("the passphrase is not the one that {} was made with", .0.display())]
    WrongPassphrase(PathBuf),
    #[error("{} is damaged: {problem}; nothing of it was used", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{} was made by a newer release, {muster} ({what}); use that one or a later one", path.display())]
    Newer {
        path: PathBuf,
        muster: String,
        what: String,
    },
    #[error("{0}")]
    Passphrase(String),
    #[error("failed to read the passphrase")]
    PassphraseFile(#[source] muster_certs::file::Error),
    #[error("failed to find the controller")]
    Find(#[from] admin::on_host::Error),
    #[error("failed to read or write a file of the controller")]
    File(#[from] muster_certs::file::Error),
    #[error("failed to use the keys")]
    Pki(#[from] pki::Error),
    #[error("the configuration is no good")]
    Config(#[from] config::Error),
    #[error("{0}")]
    Target(String),
    #[error("failed to prepare the data directory")]
    DataDir(#[source] init::Error),
    #[error("a controller is running on this database")]
    InUse,
    #[error(transparent)]
    Dump(#[from] store::dump::DumpError),
    #[error("failed to fill the database")]
    Store(#[from] store::Error),
}

fn because(why: &str) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    }
}

fn written(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}

fn damaged(path: &Path, problem: impl Into<String>) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
