//! The steps of a rotation, each from one set of authorities to the next: prepare, activate, retire. Whether it is time for a
//! step is decided in `cas`, and that it counts by `Pki::set_authorities`.

use std::{io, path::Path, time::SystemTime};

use muster_certs::{ca::Ca, file, pem};

use super::{
    Authorities, Authority, Error, Phase,
    authorities::{CROSS, Entry, MAX_BYTES, ROOT_KEY},
};
use crate::clock::{self, Micros};

impl Authorities {
    /// With another CA that is trusted from now on, signed by the root of the active one. Its files are on disk when this
    /// returns; that it counts, `Pki::set_authorities` makes.
    pub fn with_prepared(&self, pki: &Path, now: SystemTime) -> Result<Self, Error> {
        let active = self.active();
        if active.entry.external {
            return Err(Error::External);
        }
        let old_root = self.root_of_active(pki)?;
        let new = Authority::create(active.issuing.trust_domain(), now)?;
        let cross = old_root.cross_sign(&new.root, now)?;
        let id = new.issuing.id();
        let folder = pki.join(&id);
        file::create_private_dir(&folder)?;
        new.write(&folder)?;
        file::write_secret(&folder.join(CROSS), pem::encode_certificates([&cross]).as_bytes())?;
        let now = clock::from_system(now);
        let mut next = self.clone();
        next.bundle_version = next.next_version(now);
        let entry = Entry::prepared(id.clone(), id, next.bundle_version, false, now);
        next.all.push(Authority::load(pki, entry, None)?);
        Ok(next)
    }

    /// With the prepared one as the active one. None: there is none.
    pub fn with_activated(&self, now: Micros) -> Option<Self> {
        self.prepared()?;
        let mut next = self.clone();
        for authority in &mut next.all {
            match authority.entry.phase {
                Phase::Active => authority.entry.phase = Phase::Old,
                Phase::Prepared => {
                    authority.entry.phase = Phase::Active;
                    authority.entry.activated_at = now;
                }
                _ => {}
            }
        }
        next.bundle_version = next.next_version(now);
        Some(next)
    }

    /// Without trust in the old one. None: there is none.
    pub fn with_retired(&self, compromised: bool, shown_until: Micros, now: Micros) -> Option<Self> {
        self.old()?;
        let mut next = self.clone();
        for authority in &mut next.all {
            if authority.entry.phase == Phase::Old {
                authority.entry.phase = Phase::Retired;
                authority.entry.retired_at = now;
                authority.entry.compromised = compromised;
                authority.entry.shown_until = if compromised { 0 } else { shown_until };
            }
        }
        next.bundle_version = next.next_version(now);
        Some(next)
    }

    /// The same with a version above any that agents were told, of which a backup may not know.
    pub fn with_new_version(&self, now: Micros) -> Self {
        let bundle_version = self.next_version(now);
        Self {
            bundle_version,
            ..self.clone()
        }
    }

    /// Grows, also over a backup that is restored.
    pub(super) fn next_version(&self, now: Micros) -> i64 {
        (self.bundle_version + 1).max(now)
    }

    /// The root of the active CA with its key, which may be elsewhere.
    pub(super) fn root_of_active(&self, pki: &Path) -> Result<Ca, Error> {
        let active = self.active();
        let path = pki.join(&active.entry.folder).join(ROOT_KEY);
        match file::read_secret_text(&path, MAX_BYTES) {
            Ok(key) => Ok(Ca::load(&pem::encode_certificates([&active.root]), &key)?),
            Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(Error::RootKeyOffline(path))
            }
            Err(error) => Err(error.into()),
        }
    }
}
