//! Certificate requests (PKCS #10). A request proves possession of a key and carries nothing else: names and extensions
//! that it asks for are ignored.

mod shape;

use rcgen::{CertificateParams, DistinguishedName};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

use crate::key::{self, KeyPair, PublicKey};

/// Longer requests are refused unread.
pub const MAX_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to make a certificate request")]
    Create(#[source] rcgen::Error),
    #[error("a certificate request is at most {MAX_BYTES} bytes long")]
    TooLong,
    #[error("not a certificate request (PKCS #10, DER): {0}")]
    Malformed(String),
    #[error("a certificate request is DER, nested at most {} deep", shape::MAX_DEPTH)]
    Shape,
    #[error("neither a certificate request in PEM (\"BEGIN CERTIFICATE REQUEST\") nor one in DER")]
    NotAFile,
    #[error("bytes follow the certificate request")]
    TrailingBytes,
    #[error("the certificate request has an unsuitable key")]
    Key(#[from] key::Error),
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

/// A request for a certificate of this key, DER.
pub fn create(key: &KeyPair) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(Error::Create)?;
    Ok(request.der().to_vec())
}

/// A request as other tools write it into a file, PEM or DER: its DER. What is in it is not looked at.
pub fn from_file(content: &[u8]) -> Result<Vec<u8>, Error> {
    // PEM is a third longer, and people may have written above it what it is.
    if content.len() > 4 * MAX_BYTES {
        return Err(Error::TooLong);
    }
    if matches!(content, [0x30, 0x80..=0xff, ..]) {
        return Ok(content.to_vec());
    }
    let text = str::from_utf8(content).map_err(|_| Error::NotAFile)?;
    // The name that some tools have kept from before RFC 7468.
    let text = text.replace("NEW CERTIFICATE REQUEST", "CERTIFICATE REQUEST");
    let request = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| Error::NotAFile)?;
    Ok(request.to_vec())
}

/// The key that the request is for, after its signature has shown that the sender holds it.
pub fn verify(der: &[u8]) -> Result<PublicKey, Error> {
    if der.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    if !shape::is_der(der) {
        return Err(Error::Shape);
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|error| Error::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Error::TrailingBytes);
    }
    let public_key = PublicKey::from_der(request.certification_request_info.subject_pki.raw)?;
    // The parser takes the algorithm from the request; a key of one kind is not even well-formed as one of another.
    if request.verify_signature().is_err() {
        return Err(Error::Signature);
    }
    Ok(public_key)
}

#[cfg(test)]
mod tests;
