//! Pins: what a joining machine knows the controller's CA by before it has any certificate. A pin is the SHA-256 of a CA's
//! SubjectPublicKeyInfo, so it outlives a re-issued CA certificate with the same key.

use std::fmt;
use std::str::FromStr;

use crate::certificate::{self, Certificate};
use crate::fingerprint;

/// Written "sha256:<64 hexadecimal digits>".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin([u8; 32]);

#[derive(Debug, thiserror::Error)]
#[error("a pin is \"sha256:\" and 64 hexadecimal digits")]
pub struct Error;

impl Pin {
    pub fn of_certificate(der: &[u8]) -> Result<Pin, certificate::Error> {
        Ok(Pin::of(&Certificate::parse(der)?))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn of(certificate: &Certificate) -> Pin {
        Pin(fingerprint::sha256(&certificate.public_key_der))
    }
}

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pin, Error> {
        text.strip_prefix("sha256:")
            .and_then(fingerprint::unhex)
            .map(Pin)
            .ok_or(Error)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fingerprint::label(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

#[cfg(test)]
mod tests;
