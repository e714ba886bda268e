//! The identity of an agent or a user as one file: private key, then certificate chain, leaf first, as PEM. One file, so
//! that key and certificate can never be of different ages. Does not say whether the certificate is still valid.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::certificate::{self, Certificate};
use crate::identity::{self, Identity};
use crate::key::{self, KeyPair};
use crate::{file, pem};

#[derive(Debug)]
pub struct IdentityFile {
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
    identity: Identity,
    leaf: Certificate,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("failed to read the identity in {}", path.display())]
    Content { path: PathBuf, source: ContentError },
}

/// What is wrong with the content itself.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error(transparent)]
    Pem(#[from] pem::Error),
    #[error(transparent)]
    Key(#[from] key::Error),
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

impl IdentityFile {
    /// `chain` starts with the certificate of `key`.
    pub fn new(key: KeyPair, chain: Vec<CertificateDer<'static>>) -> Result<IdentityFile, ContentError> {
        let leaf = Certificate::parse(chain.first().ok_or(pem::Error::NoCertificate)?)?;
        if leaf.public_key_der != key.public_key().der() {
            return Err(ContentError::KeyMismatch);
        }
        Ok(IdentityFile {
            identity: Identity::of(&leaf)?,
            key,
            chain,
            leaf,
        })
    }

    pub fn from_pem(text: &str) -> Result<IdentityFile, ContentError> {
        let pem::Sections { key, certificates } = pem::sections(text)?;
        let key = KeyPair::from_pkcs8(&key.ok_or(pem::Error::NoPrivateKey)?)?;
        IdentityFile::new(key, certificates)
    }

    pub fn to_pem(&self) -> Zeroizing<String> {
        let key = self.key.to_pem();
        let chain = pem::encode_certificates(&self.chain);
        let mut text = Zeroizing::new(String::with_capacity(key.len() + chain.len()));
        text.push_str(&key);
        text.push_str(&chain);
        text
    }

    pub fn load(path: &Path) -> Result<IdentityFile, Error> {
        let text = file::read_secret_text(path, pem::MAX_BYTES)?;
        IdentityFile::from_pem(&text).map_err(|source| Error::Content {
            path: path.to_owned(),
            source,
        })
    }

    /// Replaces the file in one step, with mode 0600.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        Ok(file::write_secret(path, self.to_pem().as_bytes())?)
    }

    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }
}

#[cfg(test)]
mod tests;
