//! What Muster reads out of an X.509 certificate, in one place. Reading is not verifying: chains and signatures are
//! checked by the verifiers in `tls`, and nothing here may be believed before that.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::fingerprint;

/// Far above anything a peer of ours shows, far below anything that hurts.
pub const MAX_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Lower-case hexadecimal, without leading zero bytes.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// URI SANs, in order.
    pub uris: Vec<String>,
    /// DNS names and IP addresses among the SANs, in order. They mean nothing among peers of ours, who go by `uris`.
    pub hosts: Vec<String>,
    /// basicConstraints CA:TRUE.
    pub is_ca: bool,
    /// How many CAs there may be between this one and a leaf. None: any number.
    pub path_len: Option<u32>,
    pub digital_signature: bool,
    /// keyUsage keyCertSign.
    pub key_cert_sign: bool,
    /// keyUsage cRLSign.
    pub crl_sign: bool,
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
        let hosts = names
            .iter()
            .flat_map(|ext| &ext.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            });
        let constraints = x509.basic_constraints().map_err(malformed)?.map(|ext| ext.value);
        Ok(Certificate {
            serial: serial_text(x509.raw_serial()),
            not_before: time(x509.validity().not_before.timestamp())?,
            not_after: time(x509.validity().not_after.timestamp())?,
            uris: uris.collect(),
            hosts: hosts.collect(),
            is_ca: constraints.is_some_and(|ext| ext.ca),
            path_len: constraints.and_then(|ext| ext.path_len_constraint),
            digital_signature: usage.is_some_and(|usage| usage.digital_signature()),
            key_cert_sign: usage.is_some_and(|usage| usage.key_cert_sign()),
            crl_sign: usage.is_some_and(|usage| usage.crl_sign()),
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

    /// Whether it names `above` as its issuer; nothing is verified.
    pub fn is_below(&self, above: &Certificate) -> bool {
        self.issuer == above.subject
    }

    /// Whether both are of one CA: the same subject and key, whoever signed them.
    pub fn is_same_authority(&self, other: &Certificate) -> bool {
        self.subject == other.subject && self.public_key_der == other.public_key_der
    }

    /// The subject for people: `CN=Example Root CA, O=Example`.
    pub fn subject_text(&self) -> String {
        name_text(&self.subject)
    }

    pub fn issuer_text(&self) -> String {
        name_text(&self.issuer)
    }

    /// Whether subject and issuer are the same, as in a root.
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

/// Whether `certificate` names `above` as its issuer and is signed with the key of it. Both must be readable.
pub fn is_signed_by(certificate: &[u8], above: &[u8]) -> bool {
    if certificate.len() > MAX_BYTES || above.len() > MAX_BYTES {
        return false;
    }
    let (Ok((_, certificate)), Ok((_, above))) =
        (X509Certificate::from_der(certificate), X509Certificate::from_der(above))
    else {
        return false;
    };
    certificate.issuer().as_raw() == above.subject().as_raw()
        && certificate.verify_signature(Some(above.public_key())).is_ok()
}

/// What is no plain text in a name does not reach a terminal.
fn name_text(der: &[u8]) -> String {
    let text = X509Name::from_der(der)
        .map(|(_, name)| name.to_string())
        .unwrap_or_default();
    let text: String = text.chars().filter(|c| is_shown(*c)).take(256).collect();
    match text.as_str() {
        "" => "an empty name".to_owned(),
        _ => text,
    }
}

/// Neither a control character nor one that changes how its neighbours are shown.
fn is_shown(c: char) -> bool {
    let is_format =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !is_format
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| v6()).ok().map(|address| address.to_string())
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
