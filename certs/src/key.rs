//! Key pairs of identities and CAs (ECDSA P-256), and the public keys that may be certified. Keys that sign policies are
//! in `sign`; how a key lies on disk is in `file` and `identity_file`.

mod foreign;

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub(crate) use foreign::ForeignKey;

use crate::{fingerprint, pem};

/// An ECDSA P-256 private key with its public key. The private half leaves only through [`KeyPair::to_pem`].
pub struct KeyPair {
    inner: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

/// A public key of a kind that we certify, in its one canonical encoding.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    spki: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    P256,
    P384,
    Ed25519,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to generate a key")]
    Generate,
    #[error("failed to read a private key")]
    Pem(#[from] pem::Error),
    #[error("not an ECDSA P-256 private key in PKCS #8")]
    PrivateKey,
    #[error("not a private key of a kind that a CA may have (ECDSA P-256, P-384 or P-521, Ed25519, RSA)")]
    ForeignKey,
    #[error("not a public key of a kind that is accepted (ECDSA P-256, ECDSA P-384, Ed25519)")]
    PublicKey,
}

impl KeyPair {
    pub fn generate() -> Result<KeyPair, Error> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Generate)?;
        KeyPair::from_pkcs8(document.as_ref())
    }

    /// The text holds one `PRIVATE KEY` and nothing else.
    pub fn from_pem(text: &str) -> Result<KeyPair, Error> {
        KeyPair::from_pkcs8(&pem::private_key(text)?)
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<KeyPair, Error> {
        let inner = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(|_| Error::PrivateKey)?;
        Ok(KeyPair {
            inner,
            pkcs8: Zeroizing::new(der.to_vec()),
        })
    }

    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode_private_key(&self.pkcs8)
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey {
            spki: self.subject_public_key_info(),
            kind: Kind::P256,
        }
    }

    pub(crate) fn private_key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}

impl PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.inner.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self
            .inner
            .sign(&SystemRandom::new(), message)
            .map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl PublicKey {
    /// Takes a SubjectPublicKeyInfo. The encoding is compared, not parsed: each kind has exactly one that is accepted (an
    /// EC point is uncompressed), so two keys are equal exactly when their bytes are.
    pub fn from_der(spki: &[u8]) -> Result<PublicKey, Error> {
        let kind = Kind::ALL.into_iter().find(|kind| {
            spki.strip_prefix(kind.prefix()).is_some_and(|raw| match kind {
                Kind::Ed25519 => raw.len() == kind.raw_len(),
                Kind::P256 | Kind::P384 => raw.len() == kind.raw_len() && raw[0] == 4,
            })
        });
        Ok(PublicKey {
            spki: spki.to_vec(),
            kind: kind.ok_or(Error::PublicKey)?,
        })
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of [`PublicKey::der`].
    pub fn digest(&self) -> [u8; 32] {
        fingerprint::sha256(&self.spki)
    }

    /// "sha256:" and [`PublicKey::digest`] in hexadecimal.
    pub fn fingerprint(&self) -> String {
        fingerprint::label(&self.digest())
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.kind, self.fingerprint())
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.spki[self.kind.prefix().len()..]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            Kind::P256 => &PKCS_ECDSA_P256_SHA256,
            Kind::P384 => &PKCS_ECDSA_P384_SHA384,
            Kind::Ed25519 => &PKCS_ED25519,
        }
    }
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::P256, Kind::P384, Kind::Ed25519];

    /// What stands before the key itself in its SubjectPublicKeyInfo (RFC 5480, RFC 8410).
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Kind::P256 => b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
            Kind::P384 => b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
            Kind::Ed25519 => b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
        }
    }

    fn raw_len(self) -> usize {
        match self {
            Kind::P256 => 65,
            Kind::P384 => 97,
            Kind::Ed25519 => 32,
        }
    }
}

#[cfg(test)]
mod tests;
