//! The private key of a CA that was made elsewhere, as other tools write it. Keys of our own making are `KeyPair`.

use std::fmt;

use rcgen::{PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use super::Error;
use crate::{fingerprint, pem};

/// ECDSA on P-256, P-384 or P-521, Ed25519, or RSA.
pub(crate) struct ForeignKey {
    inner: rcgen::KeyPair,
    der: PrivateKeyDer<'static>,
}

impl ForeignKey {
    pub(crate) fn from_pem(text: &str) -> Result<ForeignKey, Error> {
        let der = pem::any_private_key(text)?;
        let inner = rcgen::KeyPair::try_from(&der).map_err(|_| Error::ForeignKey)?;
        Ok(ForeignKey { inner, der })
    }

    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        pem::encode_any_private_key(&self.der)
    }
}

impl PublicKeyData for ForeignKey {
    fn der_bytes(&self) -> &[u8] {
        self.inner.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.inner.algorithm()
    }
}

impl rcgen::SigningKey for ForeignKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.inner.sign(message)
    }
}

impl fmt::Debug for ForeignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = fingerprint::sha256(&self.subject_public_key_info());
        f.debug_struct("ForeignKey")
            .field("public_key", &fingerprint::label(&public))
            .finish_non_exhaustive()
    }
}
