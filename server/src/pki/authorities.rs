//! The CAs of an installation and the phase that each is in. The first lies in `pki` itself, each later one in a folder that
//! is called by its id; `authorities.json` says which there are, and appears with the second. A root's key is read only when
//! the next CA is made, and may be kept elsewhere until then.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use muster_certs::{CertificateDer, ca::Ca, certificate::Certificate, file, identity::TrustDomain, pem, pin::Pin};
use serde::{Deserialize, Serialize};

use super::{Error, read};
use crate::clock::{self, Micros};

const LIST: &str = "authorities.json";
const ROOT: &str = "root.pem";
const ROOT_KEY: &str = "root-key.pem";
const ISSUING: &str = "issuing.pem";
const ISSUING_KEY: &str = "issuing-key.pem";
/// Certificates of this root by the one before.
const CROSS: &str = "cross.pem";
const MAX_BYTES: usize = 256 * 1024;
/// The bundle that agents get when they enroll with a CA that was never rotated.
const FIRST_BUNDLE: i64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Trusted beside the active one, issues nothing yet.
    Prepared,
    Active,
    /// Issued before the active one; still trusted.
    Old,
    /// No longer trusted.
    Retired,
}

/// A root and the issuing CA below it.
#[derive(Debug, Clone)]
pub struct Authority {
    pub issuing: std::sync::Arc<Ca>,
    pub root: CertificateDer<'static>,
    pub pin: Pin,
    /// Certificates of this root by the one before it.
    pub cross: Vec<CertificateDer<'static>>,
    pub entry: Entry,
}

/// What `authorities.json` says of one. Times are microseconds; 0: not yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub id: String,
    /// Below `pki`; empty: there itself.
    pub folder: String,
    pub phase: Phase,
    pub created_at: Micros,
    pub activated_at: Micros,
    pub retired_at: Micros,
    pub compromised: bool,
    /// The first trust bundle that holds its root.
    pub bundle_version: i64,
    /// How long its root is shown after it was retired, for those who know no other: tokens and operators' files.
    pub shown_until: Micros,
}

#[derive(Debug, Clone)]
pub struct Authorities {
    /// Oldest first; exactly one is active.
    all: Vec<Authority>,
    /// Of what agents are to trust now.
    pub bundle_version: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    bundle_version: i64,
    authorities: Vec<Entry>,
}

/// An authority that was just made, with the keys that go to disk.
#[derive(Debug)]
pub(super) struct New {
    root: Ca,
    issuing: Ca,
}

impl Authority {
    /// New keys.
    pub(super) fn create(trust_domain: &TrustDomain, now: SystemTime) -> Result<New, Error> {
        let root = Ca::create_root(trust_domain, now)?;
        let issuing = Ca::create_issuing(&root, now)?;
        Ok(New { root, issuing })
    }

    fn load(pki: &Path, entry: Entry) -> Result<Self, Error> {
        let dir = pki.join(&entry.folder);
        let root = read(&dir.join(ROOT), |text| {
            let [root] = <[_; 1]>::try_from(pem::certificates(text)?).map_err(|_| pem::Error::TooManyCertificates)?;
            Ok::<_, pem::Error>(root)
        })?;
        let issuing_key = file::read_secret_text(&dir.join(ISSUING_KEY), MAX_BYTES)?;
        let issuing = read(&dir.join(ISSUING), |text| Ca::load(text, &issuing_key))?;
        let cross = match file::read_secret_text(&dir.join(CROSS), MAX_BYTES) {
            Ok(text) => pem::certificates(&text).map_err(|error| Error::Read {
                path: dir.join(CROSS),
                source: Box::new(error),
            })?,
            Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let pin = Pin::of_certificate(&root)?;
        let id = issuing.id();
        Ok(Self {
            issuing: std::sync::Arc::new(issuing),
            root,
            pin,
            cross,
            entry: Entry { id, ..entry },
        })
    }

    pub fn id(&self) -> String {
        self.entry.id.clone()
    }

    pub fn phase(&self) -> Phase {
        self.entry.phase
    }

    /// When its root ends.
    pub fn root_not_after(&self) -> Micros {
        Certificate::parse(&self.root).map_or(0, |root| clock::from_system(root.not_after))
    }

    pub fn not_after(&self) -> Micros {
        clock::from_system(self.issuing.not_after())
    }
}

impl New {
    pub(super) fn write(&self, dir: &Path) -> Result<(), Error> {
        for (name, content) in [
            (ROOT, self.root.certificate_pem().as_bytes()),
            (ROOT_KEY, self.root.key_pem().as_bytes()),
            (ISSUING, self.issuing.certificate_pem().as_bytes()),
            (ISSUING_KEY, self.issuing.key_pem().as_bytes()),
        ] {
            file::write_secret(&dir.join(name), content)?;
        }
        Ok(())
    }
}

impl Authorities {
    pub(super) fn load(pki: &Path) -> Result<Self, Error> {
        let path = pki.join(LIST);
        let list = match file::read_secret_text(&path, MAX_BYTES) {
            Ok(text) => serde_json::from_str::<List>(&text).map_err(|error| Error::Authorities {
                path: path.clone(),
                problem: error.to_string(),
            })?,
            Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => List {
                bundle_version: FIRST_BUNDLE,
                authorities: vec![Entry {
                    id: String::new(),
                    folder: String::new(),
                    phase: Phase::Active,
                    created_at: 0,
                    activated_at: 0,
                    retired_at: 0,
                    compromised: false,
                    bundle_version: FIRST_BUNDLE,
                    shown_until: 0,
                }],
            },
            Err(error) => return Err(error.into()),
        };
        let active = list.authorities.iter().filter(|entry| entry.phase == Phase::Active);
        if active.count() != 1 {
            return Err(Error::Authorities {
                path,
                problem: "there must be one that is active".into(),
            });
        }
        let all = list.authorities.into_iter().map(|entry| Authority::load(pki, entry));
        Ok(Self {
            all: all.collect::<Result<_, _>>()?,
            bundle_version: list.bundle_version,
        })
    }

    pub(super) fn save(&self, pki: &Path) -> Result<(), Error> {
        let list = List {
            bundle_version: self.bundle_version,
            authorities: self.all.iter().map(|authority| authority.entry.clone()).collect(),
        };
        let text = serde_json::to_string_pretty(&list).unwrap_or_default() + "\n";
        Ok(file::write_secret(&pki.join(LIST), text.as_bytes())?)
    }

    /// Oldest first.
    pub fn all(&self) -> &[Authority] {
        &self.all
    }

    pub fn active(&self) -> &Authority {
        self.in_phase(Phase::Active).unwrap_or(&self.all[0])
    }

    pub fn prepared(&self) -> Option<&Authority> {
        self.in_phase(Phase::Prepared)
    }

    pub fn old(&self) -> Option<&Authority> {
        self.in_phase(Phase::Old)
    }

    fn in_phase(&self, phase: Phase) -> Option<&Authority> {
        self.all.iter().find(|authority| authority.phase() == phase)
    }

    /// Newest first.
    pub(super) fn trusted(&self) -> impl Iterator<Item = &Authority> {
        self.all
            .iter()
            .rev()
            .filter(|authority| authority.phase() != Phase::Retired)
    }

    /// The authority that issued a certificate, or the active one.
    pub(super) fn issuer_of(&self, leaf: &CertificateDer<'_>) -> &Authority {
        let is_issuer = |authority: &&Authority| is_below(leaf, authority.issuing.certificate_der());
        self.all.iter().find(is_issuer).unwrap_or(self.active())
    }

    pub(super) fn accepted_from_agents(&self) -> Vec<CertificateDer<'static>> {
        self.trusted().map(|it| it.issuing.certificate_der().clone()).collect()
    }

    /// An operator's certificate outlives the phase of its CA, unless the key is in other hands.
    pub(super) fn accepted_from_users(&self) -> Vec<CertificateDer<'static>> {
        self.all
            .iter()
            .filter(|authority| !authority.entry.compromised)
            .map(|it| it.issuing.certificate_der().clone())
            .collect()
    }

    /// What is served with a leaf of the active CA: the way up to its root, and from there on to each older root that somebody
    /// may know no better than.
    pub(super) fn chain(&self, leaf: CertificateDer<'static>, now: Micros) -> Vec<CertificateDer<'static>> {
        let active = self.active();
        let is_shown = |it: &&Authority| match it.phase() {
            Phase::Active | Phase::Old => true,
            Phase::Retired => !it.entry.compromised && it.entry.shown_until > now,
            Phase::Prepared => false,
        };
        let shown: Vec<&Authority> = self.all.iter().rev().filter(is_shown).collect();
        let mut chain = vec![leaf, active.issuing.certificate_der().clone()];
        // A cross-signature is of use as long as the root that made it is shown.
        for authority in &shown {
            let is_of_use = |cross: &&CertificateDer<'_>| shown.iter().any(|above| is_below(cross, &above.root));
            chain.extend(authority.cross.iter().filter(is_of_use).cloned());
        }
        chain.extend(shown.iter().map(|authority| authority.root.clone()));
        chain
    }

    /// With another CA that is trusted from now on, signed by the root of the active one. Its files are on disk when this
    /// returns; that it counts, `Pki::set_authorities` makes.
    pub fn with_prepared(&self, pki: &Path, now: SystemTime) -> Result<Self, Error> {
        let active = self.active();
        let path = pki.join(&active.entry.folder).join(ROOT_KEY);
        let key = match file::read_secret_text(&path, MAX_BYTES) {
            Ok(key) => key,
            Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::RootKeyOffline(path));
            }
            Err(error) => return Err(error.into()),
        };
        let old_root = Ca::load(&pem::encode_certificates([&active.root]), &key)?;
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
        let entry = Entry {
            folder: id.clone(),
            id,
            phase: Phase::Prepared,
            created_at: now,
            activated_at: 0,
            retired_at: 0,
            compromised: false,
            bundle_version: next.bundle_version,
            shown_until: 0,
        };
        next.all.push(Authority::load(pki, entry)?);
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

    /// Grows, also over a backup that is restored.
    fn next_version(&self, now: Micros) -> i64 {
        (self.bundle_version + 1).max(now)
    }

    /// The key of a root, where it is when nobody took it away.
    pub fn root_key(&self, pki: &Path) -> PathBuf {
        pki.join(&self.active().entry.folder).join(ROOT_KEY)
    }
}

fn is_below(certificate: &CertificateDer<'_>, above: &CertificateDer<'_>) -> bool {
    match (Certificate::parse(certificate), Certificate::parse(above)) {
        (Ok(certificate), Ok(above)) => certificate.is_below(&above),
        _ => false,
    }
}
