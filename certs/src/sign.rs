//! Signatures over policies: Ed25519 over the pre-authentication encoding of DSSE v1
//! (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>), so that a signature holds for one type of
//! payload and for exactly these bytes. Which keys are trusted, is the caller's affair.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::key::{Kind, PublicKey};
use crate::token::{self, Seed};
use crate::{fingerprint, pem};

pub struct SigningKey {
    inner: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to generate a signing key")]
    Generate,
    #[error("failed to read a signing key")]
    Pem(#[from] pem::Error),
    #[error("not an Ed25519 private key in PKCS #8")]
    PrivateKey,
    #[error("not an Ed25519 public key")]
    PublicKey,
    #[error("the signature does not fit the payload, its type and the key")]
    Signature,
}

impl SigningKey {
    pub fn generate() -> Result<SigningKey, Error> {
        let key = Ed25519KeyPair::generate().map_err(|_| Error::Generate)?;
        // Version 1 without the public key: what every tool reads.
        let document = key.to_pkcs8v1().map_err(|_| Error::Generate)?;
        SigningKey::from_pkcs8(document.as_ref())
    }

    /// The text holds one `PRIVATE KEY` and nothing else.
    pub fn from_pem(text: &str) -> Result<SigningKey, Error> {
        SigningKey::from_pkcs8(&pem::private_key(text)?)
    }

    fn from_pkcs8(der: &[u8]) -> Result<SigningKey, Error> {
        let inner = Ed25519KeyPair::from_pkcs8(der).map_err(|_| Error::PrivateKey)?;
        Ok(SigningKey {
            inner,
            pkcs8: Zeroizing::new(der.to_vec()),
        })
    }

    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode_private_key(&self.pkcs8)
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn public_key_der(&self) -> Vec<u8> {
        [Kind::Ed25519.prefix(), self.inner.public_key().as_ref()].concat()
    }

    pub fn key_id(&self) -> String {
        key_id(&self.public_key_der())
    }

    pub fn sign(&self, payload_type: &str, payload: &[u8]) -> Vec<u8> {
        self.inner
            .sign(&pre_authentication_encoding(payload_type, payload))
            .as_ref()
            .to_vec()
    }

    /// What only who has this key can derive. `label` names the use, so that no two uses of the key meet.
    pub fn seed(&self, label: &str, parts: &[&[u8]]) -> Result<Seed, token::Error> {
        Seed::of(&self.pkcs8, label, parts)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

/// `public_key_der` is a SubjectPublicKeyInfo.
pub fn verify(public_key_der: &[u8], payload_type: &str, payload: &[u8], signature: &[u8]) -> Result<(), Error> {
    let key = PublicKey::from_der(public_key_der).map_err(|_| Error::PublicKey)?;
    if key.kind() != Kind::Ed25519 {
        return Err(Error::PublicKey);
    }
    UnparsedPublicKey::new(&ED25519, rcgen::PublicKeyData::der_bytes(&key))
        .verify(&pre_authentication_encoding(payload_type, payload), signature)
        .map_err(|_| Error::Signature)
}

/// "sha256:" and the hexadecimal SHA-256 of a SubjectPublicKeyInfo.
pub fn key_id(public_key_der: &[u8]) -> String {
    fingerprint::label(&fingerprint::sha256(public_key_der))
}

fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests;
