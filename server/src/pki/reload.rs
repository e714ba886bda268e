//! The keys on disk while a controller runs: one change at a time, whichever process makes it, and what another process or a
//! person has put there is taken over when it is good.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use muster_certs::ca::foreign::Chain;

use super::{Authorities, Error, Imported, Pki};

const LOCK: &str = "lock";

/// While this is held, nobody else changes the authorities on disk.
#[derive(Debug)]
pub struct Alone {
    _lock: File,
}

/// What was taken over from disk.
#[derive(Clone, Debug)]
pub struct Reloaded {
    pub before: Arc<Authorities>,
    pub after: Arc<Authorities>,
}

/// What the files were when they were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, Option<SystemTime>, u64, u64)>);

impl Alone {
    pub(super) fn lock(pki: &Path) -> Result<Self, Error> {
        let path = pki.join(LOCK);
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self { _lock: lock })
    }
}

impl Stamp {
    pub(super) fn of(pki: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut folders = vec![pki.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                // A file that was there a moment ago will be seen to be gone the next time.
                let Ok(metadata) = fs::metadata(&path) else { continue };
                if metadata.is_dir() && folder == pki {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "pem" || end == "json") {
                    files.push((path, metadata.modified().ok(), metadata.len(), metadata.ino()));
                }
            }
        }
        files.sort();
        Ok(Self(files))
    }
}

impl Pki {
    /// For a change of the authorities: nobody else makes one meanwhile, and what is on disk is in use.
    pub fn alone(&self) -> Result<Alone, Error> {
        let alone = Alone::lock(&self.dir)?;
        self.take_over()?;
        Ok(alone)
    }

    /// Takes over what has changed on disk since the last look. What is no good is told once, and what is in use stays.
    pub fn reload(&self) -> Result<Option<Reloaded>, Error> {
        let stamp = Stamp::of(&self.dir).map_err(|source| Error::Read {
            path: self.dir.clone(),
            source: source.into(),
        })?;
        {
            let mut seen = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamp {
                return Ok(None);
            }
            *seen = stamp;
        }
        let _alone = Alone::lock(&self.dir)?;
        self.take_over()
    }

    /// On the host of the controller, whether it runs or not.
    pub fn import(&self, chain: Chain, now: SystemTime) -> Result<Imported, Error> {
        let _alone = self.alone()?;
        let (next, imported) = self.authorities().with_imported(&self.dir, chain, now)?;
        self.set_authorities(next)?;
        Ok(imported)
    }

    fn take_over(&self) -> Result<Option<Reloaded>, Error> {
        let before = self.authorities();
        let after = Authorities::load(&self.dir)?;
        if after.is_same(&before) {
            return Ok(None);
        }
        let wrong = |problem: &str| Error::Authorities {
            path: self.dir.join(super::authorities::LIST),
            problem: problem.to_owned(),
        };
        if after.trust_domain != before.trust_domain {
            return Err(wrong("it is for another trust domain than the one in use"));
        }
        if after.bundle_version < before.bundle_version {
            return Err(wrong("it is older than what agents have been told"));
        }
        let roots = |of: &Authorities| of.trusted().map(|it| it.root.clone()).collect::<Vec<_>>();
        if after.bundle_version == before.bundle_version && roots(&after) != roots(&before) {
            return Err(wrong(
                "the roots have changed and the version has not, so that no agent would be told; use `muster-server ca import`",
            ));
        }
        self.put(after)?;
        Ok(Some(Reloaded {
            before,
            after: self.authorities(),
        }))
    }
}
