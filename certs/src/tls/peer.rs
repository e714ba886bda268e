//! The peer of a connection, as its certificate states it after the handshake. What such a peer may do is not known here.

use std::fmt;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use crate::certificate::{self, Certificate};
use crate::identity::{self, Identity};

/// What a connection has proved about its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// No client certificate.
    None,
    Valid,
    /// The holder has the key, but the certificate has run out.
    Expired,
    /// A newer certificate of the same holder is in use. Only who keeps the file can say so, here and below.
    Superseded,
    Revoked,
    /// One of ours, but its holder or serial is not on file.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    pub identity: Identity,
    /// Lower-case hexadecimal.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("failed to read the peer's certificate")]
    Certificate(#[from] certificate::Error),
    #[error("failed to read the identity in the peer's certificate")]
    Identity(#[from] identity::Error),
    #[error("the peer shows the certificate of a CA as its own")]
    Authority,
    #[error("the peer's certificate may not be used for signatures")]
    KeyUsage,
}

/// The certificate that a finished handshake has proved, from `peer_certificates()` of the connection. `None` stands for a
/// client without one.
pub fn peer_certificate(certificates: Option<&[CertificateDer<'_>]>) -> Result<Option<PeerCertificate>, PeerError> {
    match certificates {
        None | Some([]) => Ok(None),
        Some([leaf, ..]) => PeerCertificate::of(&Certificate::parse(leaf)?).map(Some),
    }
}

impl PeerCertificate {
    /// Holds the leaf to the SPIFFE X.509-SVID standard, sections 3 and 5.2: one URI, not a CA, usable for signatures and
    /// not for certificates.
    pub(super) fn of(leaf: &Certificate) -> Result<PeerCertificate, PeerError> {
        if leaf.is_ca || leaf.signs_certificates {
            return Err(PeerError::Authority);
        }
        if !leaf.digital_signature {
            return Err(PeerError::KeyUsage);
        }
        Ok(PeerCertificate {
            identity: Identity::of(leaf)?,
            serial: leaf.serial.clone(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }
}

impl Standing {
    /// As far as the certificate alone tells.
    pub fn of(peer: Option<&PeerCertificate>, now: SystemTime) -> Standing {
        match peer {
            None => Standing::None,
            Some(peer) if peer.is_expired(now) => Standing::Expired,
            Some(_) => Standing::Valid,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::None => "none",
            Standing::Valid => "valid",
            Standing::Expired => "expired",
            Standing::Superseded => "superseded",
            Standing::Revoked => "revoked",
            Standing::Unknown => "unknown",
        })
    }
}
