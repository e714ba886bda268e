//! The CAs of an installation and the phase that each is in. The first lies in `pki` itself, each later one in a folder that
//! is called by its id; `authorities.json` says which there are, and appears with the second. A root's key is read only when
//! the next CA is made, and may be kept elsewhere until then. CAs of the operator's own PKI come by `import`.

use std::{io, path::Path, time::SystemTime};

use muster_certs::{
    CertificateDer,
    ca::Ca,
    certificate::{Certificate, is_signed_by},
    file,
    identity::TrustDomain,
    pem,
    pin::Pin,
};
use serde::{Deserialize, Serialize};

use super::{Error, read};
use crate::clock::{self, Micros};

pub(super) const LIST: &str = "authorities.json";
pub(super) const ROOT: &str = "root.pem";
pub(super) const ROOT_KEY: &str = "root-key.pem";
pub(super) const ISSUING: &str = "issuing.pem";
pub(super) const ISSUING_KEY: &str = "issuing-key.pem";
/// Certificates of this root by the one before.
pub(super) const CROSS: &str = "cross.pem";
/// Between the issuing CA and the root.
pub(super) const INTERMEDIATES: &str = "intermediates.pem";
pub(super) const MAX_BYTES: usize = 256 * 1024;
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
    /// Between the issuing CA and the root, from below. Our own have none.
    pub intermediates: Vec<CertificateDer<'static>>,
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
    /// From the operator's own PKI.
    #[serde(default)]
    pub external: bool,
}

#[derive(Debug, Clone)]
pub struct Authorities {
    pub(super) trust_domain: TrustDomain,
    /// Oldest first; exactly one is active.
    pub(super) all: Vec<Authority>,
    /// Of what agents are to trust now.
    pub bundle_version: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    bundle_version: i64,
    /// Certificates of another PKI do not say it. Empty: ours do.
    #[serde(default)]
    trust_domain: String,
    authorities: Vec<Entry>,
}

/// An authority that was just made, with the keys that go to disk.
#[derive(Debug)]
pub(super) struct New {
    pub(super) root: Ca,
    pub(super) issuing: Ca,
}

impl Authority {
    /// New keys.
    pub(super) fn create(trust_domain: &TrustDomain, now: SystemTime) -> Result<New, Error> {
        let root = Ca::create_root(trust_domain, now)?;
        let issuing = Ca::create_issuing(&root, now)?;
        Ok(New { root, issuing })
    }

    /// `trust_domain` is needed for one of another PKI.
    pub(super) fn load(pki: &Path, entry: Entry, trust_domain: Option<&TrustDomain>) -> Result<Self, Error> {
        let dir = pki.join(&entry.folder);
        let root = read(&dir.join(ROOT), |text| {
            let [root] = <[_; 1]>::try_from(pem::certificates(text)?).map_err(|_| pem::Error::TooManyCertificates)?;
            Ok::<_, pem::Error>(root)
        })?;
        let issuing_key = file::read_secret_text(&dir.join(ISSUING_KEY), MAX_BYTES)?;
        let intermediates = optional(&dir.join(INTERMEDIATES))?;
        let issuing = read(&dir.join(ISSUING), |text| match (entry.external, trust_domain) {
            (true, Some(trust_domain)) => {
                let mut way = pem::certificates(text)?;
                way.extend(intermediates.iter().chain([&root]).cloned());
                Ca::load_foreign(&way, &issuing_key, trust_domain)
            }
            _ => Ca::load(text, &issuing_key),
        })?;
        let cross = optional(&dir.join(CROSS))?;
        let pin = Pin::of_certificate(&root)?;
        let id = issuing.id();
        Ok(Self {
            issuing: std::sync::Arc::new(issuing),
            root,
            pin,
            cross,
            intermediates,
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

impl Entry {
    /// The one that an installation starts with.
    fn first(external: bool) -> Self {
        Self {
            id: String::new(),
            folder: String::new(),
            phase: Phase::Active,
            created_at: 0,
            activated_at: 0,
            retired_at: 0,
            compromised: false,
            bundle_version: FIRST_BUNDLE,
            shown_until: 0,
            external,
        }
    }

    /// One that is trusted from now on and issues nothing yet.
    pub(super) fn prepared(id: String, folder: String, bundle_version: i64, external: bool, now: Micros) -> Self {
        Self {
            id,
            folder,
            phase: Phase::Prepared,
            created_at: now,
            bundle_version,
            ..Self::first(external)
        }
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
                trust_domain: String::new(),
                authorities: vec![Entry::first(false)],
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
        let trust_domain = match list.trust_domain.as_str() {
            "" => None,
            text => Some(text.parse::<TrustDomain>()?),
        };
        let load = |entry| Authority::load(pki, entry, trust_domain.as_ref());
        let all = list.authorities.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            trust_domain: trust_domain.unwrap_or_else(|| all[0].issuing.trust_domain().clone()),
            all,
            bundle_version: list.bundle_version,
        })
    }

    /// Makes an installation that starts with a CA of another PKI, whose files lie there already.
    pub(super) fn first_external(pki: &Path, trust_domain: &TrustDomain) -> Result<(), Error> {
        let first = Self {
            trust_domain: trust_domain.clone(),
            all: vec![Authority::load(pki, Entry::first(true), Some(trust_domain))?],
            bundle_version: FIRST_BUNDLE,
        };
        first.save(pki)
    }

    pub(super) fn save(&self, pki: &Path) -> Result<(), Error> {
        let list = List {
            bundle_version: self.bundle_version,
            trust_domain: self.trust_domain.to_string(),
            authorities: self.all.iter().map(|authority| authority.entry.clone()).collect(),
        };
        let text = serde_json::to_string_pretty(&list).unwrap_or_default() + "\n";
        Ok(file::write_secret(&pki.join(LIST), text.as_bytes())?)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        let parts = |of: &Self| {
            let part = |it: &Authority| {
                let issuing = it.issuing.certificate_der().clone();
                (
                    issuing,
                    it.root.clone(),
                    it.cross.clone(),
                    it.intermediates.clone(),
                    it.entry.clone(),
                )
            };
            of.all.iter().map(part).collect::<Vec<_>>()
        };
        let head = |of: &Self| (of.trust_domain.clone(), of.bundle_version);
        head(self) == head(other) && parts(self) == parts(other)
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
        let named = |it: &&Authority| is_below(leaf, it.issuing.certificate_der());
        // CAs of another PKI may share a name; then the signature tells.
        match self.all.iter().filter(named).collect::<Vec<_>>().as_slice() {
            [] => self.active(),
            [one] => one,
            several => several
                .iter()
                .find(|it| is_signed_by(leaf, it.issuing.certificate_der()))
                .copied()
                .unwrap_or(self.active()),
        }
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
        chain.extend(active.intermediates.iter().cloned());
        // A cross-signature is of use as long as the root that made it is shown.
        for authority in &shown {
            let is_of_use = |cross: &&CertificateDer<'_>| shown.iter().any(|above| is_signed_by(cross, &above.root));
            chain.extend(authority.cross.iter().filter(is_of_use).cloned());
        }
        // Several CAs of another PKI may stand on one root.
        for authority in &shown {
            if !chain.contains(&authority.root) {
                chain.push(authority.root.clone());
            }
        }
        chain
    }
}

/// The certificates of a file that need not be there.
fn optional(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    match file::read_secret_text(path, MAX_BYTES) {
        Ok(text) => pem::certificates(&text).map_err(|error| Error::Read {
            path: path.to_owned(),
            source: Box::new(error),
        }),
        Err(file::Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn is_below(certificate: &CertificateDer<'_>, above: &CertificateDer<'_>) -> bool {
    match (Certificate::parse(certificate), Certificate::parse(above)) {
        (Ok(certificate), Ok(above)) => certificate.is_below(&above),
        _ => false,
    }
}
