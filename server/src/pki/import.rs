//! CAs of the operator's own PKI: read from files, and put beside those that are there. That they issue nothing before they
//! are activated, and when that may be, is as with our own.

use std::{fs::File, io::Read as _, path::Path, time::SystemTime};

use muster_certs::{
    ca::foreign::{self, Chain},
    certificate::{Certificate, is_signed_by},
    file,
    identity::TrustDomain,
    pem,
};

use super::{
    Authorities, Authority, Error, Phase,
    authorities::{CROSS, Entry, INTERMEDIATES, ISSUING, ISSUING_KEY, ROOT},
};
use crate::clock;

/// What an import came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// Another CA, by its id; agents are told to trust its root as well.
    Prepared(String),
    /// Another certificate of a CA that is there already.
    Renewed(String),
}

/// Reads an issuing CA: the file with its certificate and those above it, and the one with its key, which must be for its
/// owner alone.
pub fn read(trust_domain: &TrustDomain, certificates: &Path, key: &Path, now: SystemTime) -> Result<Chain, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Read {
        path: certificates.to_owned(),
        source,
    };
    let mut text = String::new();
    let limit = pem::MAX_BYTES as u64 + 1;
    File::open(certificates)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|error| failed(error.into()))?;
    let key_text = file::read_secret_text(key, pem::MAX_BYTES)?;
    Chain::read(trust_domain, &text, &key_text, now).map_err(|error| match error {
        foreign::Error::Key(_) => Error::Read {
            path: key.to_owned(),
            source: error.into(),
        },
        error => failed(error.into()),
    })
}

/// Puts the files of one into a folder.
pub(super) fn write(chain: &Chain, dir: &Path) -> Result<(), Error> {
    file::create_private_dir(dir)?;
    file::write_secret(&dir.join(ROOT), pem::encode_certificates([&chain.root]).as_bytes())?;
    file::write_secret(&dir.join(ISSUING), chain.issuing.certificate_pem().as_bytes())?;
    file::write_secret(&dir.join(ISSUING_KEY), chain.issuing.key_pem().as_bytes())?;
    for (name, certificates) in [(INTERMEDIATES, &chain.intermediates), (CROSS, &chain.cross)] {
        if !certificates.is_empty() {
            file::write_secret(&dir.join(name), pem::encode_certificates(certificates).as_bytes())?;
        }
    }
    Ok(())
}

impl Authorities {
    /// With this CA as the next one, or with its new certificate. Its files are on disk when this returns; that it counts,
    /// `Pki::set_authorities` makes.
    pub(super) fn with_imported(
        &self,
        pki: &Path,
        mut chain: Chain,
        now: SystemTime,
    ) -> Result<(Self, Imported), Error> {
        let id = chain.issuing.id();
        let known = self.all.iter().position(|it| it.entry.id == id);
        if let Some(known) = known {
            let known = &self.all[known];
            if known.phase() == Phase::Retired {
                return Err(Error::Import(format!(
                    "the CA {id} was retired; bring one with another key"
                )));
            }
            if !known.entry.external {
                return Err(Error::Import(format!("the CA {id} is this controller's own")));
            }
            if Certificate::parse(&chain.root)? != Certificate::parse(&known.root)? {
                return Err(Error::Import(format!(
                    "the CA {id} stood on another root certificate so far; bring a CA with another key"
                )));
            }
            chain.cross.clone_from(&known.cross);
        } else if self.prepared().is_some() {
            return Err(Error::Import(
                "the next CA is prepared already; activate it first".into(),
            ));
        } else if self.old().is_some() {
            return Err(Error::Import("the CA before is not retired yet".into()));
        } else {
            self.make_trusted(pki, &mut chain, now)?;
        }

        let micros = clock::from_system(now);
        let folder = match known {
            None => id.clone(),
            // What is in use stays as it is until the list names the new files.
            Some(_) => format!("{id}-{micros}"),
        };
        write(&chain, &pki.join(&folder))?;
        let mut next = self.clone();
        next.bundle_version = next.next_version(micros);
        let imported = match known {
            None => {
                let entry = Entry::prepared(id.clone(), folder, next.bundle_version, true, micros);
                next.all.push(Authority::load(pki, entry, Some(&self.trust_domain))?);
                Imported::Prepared(id)
            }
            Some(known) => {
                let entry = Entry {
                    folder,
                    ..next.all[known].entry.clone()
                };
                next.all[known] = Authority::load(pki, entry, Some(&self.trust_domain))?;
                Imported::Renewed(id)
            }
        };
        Ok((next, imported))
    }

    /// Agents that know the present root alone must be able to verify what stands on the new one: it is the same, or there is
    /// a certificate of it by the present one.
    fn make_trusted(&self, pki: &Path, chain: &mut Chain, now: SystemTime) -> Result<(), Error> {
        let present = &self.active().root;
        let (new, old) = (Certificate::parse(&chain.root)?, Certificate::parse(present)?);
        chain.cross.retain(|cross| is_signed_by(cross, present));
        if new.is_same_authority(&old) || !chain.cross.is_empty() {
            return Ok(());
        }
        let not_trusted = || {
            Error::Import(format!(
                "agents trust the root {}, and the new CA stands on {}: add a certificate of the new root that the \
                 present one has signed to the file with the certificates",
                old.subject_text(),
                new.subject_text()
            ))
        };
        if self.active().entry.external {
            return Err(not_trusted());
        }
        let root = self.root_of_active(pki)?;
        let cross = root.cross_sign_foreign(&chain.root, now);
        chain.cross.push(cross.map_err(|error| Error::Read {
            path: pki.join(ROOT),
            source: error.into(),
        })?);
        Ok(())
    }
}
