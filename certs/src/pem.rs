//! Certificates and private keys as PEM text. Which key or certificate is meant, and where the text comes from, is the
//! caller's affair; sizes and counts are bounded here.

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// Longer texts are refused unread.
pub const MAX_BYTES: usize = 256 * 1024;
/// A chain or bundle of ours has a few.
pub const MAX_CERTIFICATES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a PEM text is at most {MAX_BYTES} bytes long")]
    TooLong,
    #[error("not PEM text: {0:?}")]
    Malformed(rustls_pki_types::pem::Error),
    #[error("the PEM text holds a {0}, which does not belong there")]
    Unexpected(&'static str),
    #[error("the PEM text holds no certificate")]
    NoCertificate,
    #[error("the PEM text holds more than {MAX_CERTIFICATES} certificates")]
    TooManyCertificates,
    #[error("the PEM text holds no private key in PKCS #8 (\"BEGIN PRIVATE KEY\")")]
    NoPrivateKey,
    #[error("the PEM text holds no private key")]
    NoKey,
    #[error("the private key is encrypted; write it without a passphrase: openssl pkey -in FILE -out NEW")]
    EncryptedKey,
    #[error("the PEM text holds more than one private key")]
    TooManyPrivateKeys,
}

/// What a text holds: at most one private key (PKCS #8, DER), and certificates in their order.
pub(crate) struct Sections {
    pub key: Option<Zeroizing<Vec<u8>>>,
    pub certificates: Vec<CertificateDer<'static>>,
}

/// One or more certificates, and nothing else.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    match sections(text)? {
        Sections { key: Some(_), .. } => Err(Error::Unexpected("private key")),
        Sections { certificates, .. } if certificates.is_empty() => Err(Error::NoCertificate),
        Sections { certificates, .. } => Ok(certificates),
    }
}

pub fn encode_certificates<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    certificates
        .into_iter()
        .map(|der| encode("CERTIFICATE", der).to_string())
        .collect()
}

/// PKCS #8, DER.
pub(crate) fn private_key(text: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let sections = sections(text)?;
    if !sections.certificates.is_empty() {
        return Err(Error::Unexpected("certificate"));
    }
    sections.key.ok_or(Error::NoPrivateKey)
}

/// A private key as other tools write it: PKCS #8, SEC 1 or PKCS #1, with certificates beside it or not.
pub(crate) fn any_private_key(text: &str) -> Result<PrivateKeyDer<'static>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(text.as_bytes());
    match (keys.next(), keys.next()) {
        (Some(Err(error)), _) | (_, Some(Err(error))) => Err(Error::Malformed(error)),
        (Some(_), Some(_)) => Err(Error::TooManyPrivateKeys),
        (Some(Ok(key)), None) => Ok(key),
        (None, _) if text.contains("ENCRYPTED") => Err(Error::EncryptedKey),
        (None, _) => Err(Error::NoKey),
    }
}

/// What [`any_private_key`] reads.
pub(crate) fn encode_any_private_key(key: &PrivateKeyDer<'_>) -> Zeroizing<String> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    encode(label, key.secret_der())
}

pub(crate) fn sections(text: &str) -> Result<Sections, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    let mut key = None;
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section.map_err(Error::Malformed)? {
            (SectionKind::PrivateKey, der) => {
                if key.replace(Zeroizing::new(der)).is_some() {
                    return Err(Error::TooManyPrivateKeys);
                }
            }
            (SectionKind::Certificate, der) => certificates.push(CertificateDer::from(der)),
            (SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey, _) => return Err(Error::NoPrivateKey),
            _ => return Err(Error::Unexpected("section that is neither certificate nor private key")),
        }
        if certificates.len() > MAX_CERTIFICATES {
            return Err(Error::TooManyCertificates);
        }
    }
    Ok(Sections { key, certificates })
}

pub(crate) fn encode_private_key(pkcs8: &[u8]) -> Zeroizing<String> {
    encode("PRIVATE KEY", pkcs8)
}

/// RFC 7468: 64 characters a line. Written here because the text may be a private key, which must not stay behind in the
/// buffers of an encoder; the capacity is exact, so nothing is left by a growing string either.
fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const BYTES_PER_LINE: usize = 48;
    let digits = der.len().div_ceil(3) * 4;
    let lines = der.len().div_ceil(BYTES_PER_LINE);
    let frame = "-----BEGIN -----\n-----END -----\n".len() + 2 * label.len();
    let mut text = Zeroizing::new(String::with_capacity(digits + lines + frame));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(BYTES_PER_LINE) {
        for group in line.chunks(3) {
            let mut bytes = [0; 3];
            bytes[..group.len()].copy_from_slice(group);
            let word = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
            for place in 0..4 {
                let digit = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
                text.push(if place <= group.len() { digit as char } else { '=' });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests;
