//! What Muster reads out of an X.509 certificate, in one place. Reading is not verifying: chains and signatures are
//! checked by the verifiers in `tls`, and nothing here may be believed before that.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::fingerprint;

/// Far above anything a peer of ours shows, far below anything that hurts.
pub const MAX_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Lower-case hexadecimal, without leading zero bytes.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// URI SANs, in order. Names of other kinds are of no meaning here.
    pub uris: Vec<String>,
    /// basicConstraints CA:TRUE.
    pub is_ca: bool,
    pub digital_signature: bool,
    /// keyUsage keyCertSign or cRLSign.
    pub signs_certificates: bool,
    pub server_auth: bool,
    pub client_auth: bool,
    /// SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a certificate is at most {MAX_BYTES} bytes long")]
    TooLong,
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    #[error("bytes follow the certificate")]
    TrailingBytes,
}

impl Certificate {
    pub fn parse(der: &[u8]) -> Result<Certificate, Error> {
        if der.len() > MAX_BYTES {
            return Err(Error::TooLong);
        }
        let (rest, x509) = X509Certificate::from_der(der).map_err(malformed)?;
        if !rest.is_empty() {
            return Err(Error::TrailingBytes);
        }
        let usage = x509.key_usage().map_err(malformed)?.map(|ext| ext.value);
        let extended = x509.extended_key_usage().map_err(malformed)?.map(|ext| ext.value);
        let names = x509.subject_alternative_name().map_err(malformed)?;
        let uris = names
            .iter()
            .flat_map(|ext| &ext.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            });
        Ok(Certificate {
            serial: serial_text(x509.raw_serial()),
            not_before: time(x509.validity().not_before.timestamp())?,
            not_after: time(x509.validity().not_after.timestamp())?,
            uris: uris.collect(),
            is_ca: x509
                .basic_constraints()
                .map_err(malformed)?
                .is_some_and(|ext| ext.value.ca),
            digital_signature: usage.is_some_and(|usage| usage.digital_signature()),
            signs_certificates: usage.is_some_and(|usage| usage.key_cert_sign() || usage.crl_sign()),
            server_auth: extended.is_some_and(|usage| usage.server_auth),
            client_auth: extended.is_some_and(|usage| usage.client_auth),
            public_key_der: x509.public_key().raw.to_vec(),
            subject: x509.subject().as_raw().to_vec(),
            issuer: x509.issuer().as_raw().to_vec(),
        })
    }

    /// Whether other certificates may stand on this one: a CA by its constraints and by its key usage.
    pub fn is_authority(&self) -> bool {
        self.is_ca && self.signs_certificates
    }

    /// Whether subject and issuer are the same, as in a root.
    /// Whether it names `above` as its issuer; nothing is verified.
    pub fn is_below(&self, above: &Certificate) -> bool {
        self.issuer == above.subject
    }

    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

impl TryFrom<&CertificateDer<'_>> for Certificate {
    type Error = Error;

    fn try_from(der: &CertificateDer<'_>) -> Result<Certificate, Error> {
        Certificate::parse(der)
    }
}

/// A serial number as [`Certificate::serial`] and [`crate::ca::Issued::serial`] write it.
pub(crate) fn serial_text(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    fingerprint::hex(&bytes[zeros..])
}

fn time(seconds: i64) -> Result<SystemTime, Error> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    time.ok_or_else(|| Error::Malformed("a time out of range".to_owned()))
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Malformed(error.to_string())
}

#[cfg(test)]
mod tests;
