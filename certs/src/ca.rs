//! The CA: a root, an issuing CA below it, and the certificates of agents, controllers and users, made after the SPIFFE
//! X.509-SVID standard. Where keys lie and which serials are on file is the controller's affair.

pub mod foreign;

use std::ops::Range;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::certificate::{self, Certificate};
use crate::identity::{self, Identity, TrustDomain};
use crate::key::{self, ForeignKey, KeyPair, PublicKey};
use crate::{fingerprint, pem};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub const ROOT_LIFETIME: Duration = DAY.saturating_mul(20 * 365 + 5);
pub const ISSUING_LIFETIME: Duration = DAY.saturating_mul(5 * 365 + 1);
pub const CONTROLLER_LIFETIME: Duration = DAY.saturating_mul(30);
pub const AGENT_LIFETIME: Duration = DAY;
pub const USER_LIFETIME: Duration = DAY.saturating_mul(30);
/// How far back a certificate's validity starts, for peers whose clock is slow.
pub const BACKDATE: Duration = Duration::from_secs(2 * 60 * 60);

/// 9999-12-31T23:59:59Z, the last second that X.509 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// A CA certificate with its key.
#[derive(Debug)]
pub struct Ca {
    der: CertificateDer<'static>,
    certificate: Certificate,
    trust_domain: TrustDomain,
    issuer: Issuer<'static, Key>,
    /// When all that it issues on stands: its own certificate, and those above it that are known.
    good: Range<SystemTime>,
}

/// Of our own making, or of the operator's PKI.
#[derive(Debug)]
pub(crate) enum Key {
    Own(KeyPair),
    Foreign(ForeignKey),
}

/// A certificate that a CA has just made. Times are whole seconds, as they stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub der: CertificateDer<'static>,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// [`Ca::id`] of the CA that made it.
    pub ca: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read the CA's certificate")]
    Pem(#[from] pem::Error),
    #[error("failed to read the CA's certificate")]
    Certificate(#[from] certificate::Error),
    #[error("failed to read the CA's key")]
    Key(#[from] key::Error),
    #[error("the CA's key does not belong to its certificate")]
    KeyMismatch,
    #[error("the certificate is not one of a CA")]
    NotAnAuthority,
    #[error("the CA's certificate does not name a trust domain")]
    TrustDomain(#[from] identity::Error),
    #[error("the CA of trust domain {ca} does not issue for {identity}")]
    ForeignIdentity { ca: TrustDomain, identity: String },
    #[error("a root issues CAs only")]
    RootIssuesNoLeaves,
    #[error("an issuing CA issues no CAs")]
    NotARoot,
    #[error("the validity asked for is empty, or outside of what the CA's own certificate allows")]
    Validity,
    #[error("failed to draw random bits")]
    Random,
    #[error("failed to make a certificate")]
    Create(#[from] rcgen::Error),
}

impl Ca {
    pub fn create_root(trust_domain: &TrustDomain, now: SystemTime) -> Result<Ca, Error> {
        let key = KeyPair::generate()?;
        // Without a limit of depth: a root that is to come is between this one and its issuing CA.
        let mut params = authority(trust_domain, "root", &key, None)?;
        set_validity(&mut params, &validity(backdated(now, ROOT_LIFETIME), None)?);
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        let der = params.self_signed(&key)?.der().clone();
        Ca::new(der, key)
    }

    /// A CA below the root `self`, for certificates of agents, controllers and users.
    pub fn create_issuing(root: &Ca, now: SystemTime) -> Result<Ca, Error> {
        if !root.is_root() {
            return Err(Error::NotARoot);
        }
        let key = KeyPair::generate()?;
        let mut params = authority(&root.trust_domain, "issuing", &key, Some(0))?;
        set_validity(&mut params, &validity(backdated(now, ISSUING_LIFETIME), Some(root))?);
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        let der = params.signed_by(&key.public_key(), &root.issuer)?.der().clone();
        Ca::new(der, key)
    }

    /// A certificate for the key of another root, under the other's name: whoever trusts this root trusts what is below the
    /// other one too.
    pub fn cross_sign(&self, other: &Ca, now: SystemTime) -> Result<CertificateDer<'static>, Error> {
        if !self.is_root() || !other.is_root() {
            return Err(Error::NotARoot);
        }
        if self.trust_domain != other.trust_domain {
            return Err(Error::ForeignIdentity {
                ca: self.trust_domain.clone(),
                identity: other.trust_domain.uri(),
            });
        }
        let Key::Own(key) = other.issuer.key() else {
            return Err(Error::NotARoot);
        };
        let mut params = authority(&other.trust_domain, "root", key, None)?;
        let until = other.certificate.not_after;
        set_validity(&mut params, &validity(now - BACKDATE..until, Some(self))?);
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        Ok(params.signed_by(&key.public_key(), &self.issuer)?.der().clone())
    }

    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Ca, Error> {
        let mut certificates = pem::certificates(certificate_pem)?;
        if certificates.len() != 1 {
            return Err(pem::Error::TooManyCertificates.into());
        }
        Ca::new(certificates.remove(0), KeyPair::from_pem(key_pem)?)
    }

    /// An issuing CA of another PKI, which stands for `trust_domain` though its certificate need not say so. `chain` is its
    /// certificate and those above it up to the root; nothing but the key is checked here, see [`foreign::Chain`].
    pub fn load_foreign(
        chain: &[CertificateDer<'static>],
        key_pem: &str,
        trust_domain: &TrustDomain,
    ) -> Result<Ca, Error> {
        let der = chain.first().ok_or(pem::Error::NoCertificate)?.clone();
        let mut ca = Ca::assemble(der, Key::Foreign(ForeignKey::from_pem(key_pem)?), |_| {
            Ok(trust_domain.clone())
        })?;
        for above in &chain[1..] {
            let above = Certificate::parse(above)?;
            ca.good.start = ca.good.start.max(above.not_before);
            ca.good.end = ca.good.end.min(above.not_after);
        }
        Ok(ca)
    }

    fn new(der: CertificateDer<'static>, key: KeyPair) -> Result<Ca, Error> {
        Ca::assemble(der, Key::Own(key), |certificate| match certificate.uris.as_slice() {
            [uri] => Ok(TrustDomain::from_uri(uri)?),
            uris => Err(identity::Error::UriCount(uris.len()).into()),
        })
    }

    fn assemble(
        der: CertificateDer<'static>,
        key: Key,
        trust_domain: impl FnOnce(&Certificate) -> Result<TrustDomain, Error>,
    ) -> Result<Ca, Error> {
        let certificate = Certificate::parse(&der)?;
        if !certificate.is_authority() {
            return Err(Error::NotAnAuthority);
        }
        if certificate.public_key_der != key.subject_public_key_info() {
            return Err(Error::KeyMismatch);
        }
        Ok(Ca {
            trust_domain: trust_domain(&certificate)?,
            issuer: Issuer::from_ca_cert_der(&der, key)?,
            good: certificate.not_before..certificate.not_after,
            certificate,
            der,
        })
    }

    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub fn certificate_pem(&self) -> String {
        pem::encode_certificates([&self.der])
    }

    pub fn key_pem(&self) -> Zeroizing<String> {
        match self.issuer.key() {
            Key::Own(key) => key.to_pem(),
            Key::Foreign(key) => key.to_pem(),
        }
    }

    /// What people call it: the first 16 digits of the SHA-256 of its key.
    pub fn id(&self) -> String {
        fingerprint::hex(&fingerprint::sha256(&self.certificate.public_key_der)[..8])
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, Key> {
        &self.issuer
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The end of all that it issues.
    pub fn not_after(&self) -> SystemTime {
        self.good.end
    }

    /// Whether it may sign revocation lists; one of another PKI need not.
    pub fn signs_lists(&self) -> bool {
        self.certificate.crl_sign
    }

    pub fn is_root(&self) -> bool {
        self.certificate.is_self_issued()
    }

    /// Certifies that `key` is held by `identity`. The validity is cut to that of the CA itself.
    pub fn issue(&self, identity: &Identity, key: &PublicKey, validity: Range<SystemTime>) -> Result<Issued, Error> {
        if self.is_root() {
            return Err(Error::RootIssuesNoLeaves);
        }
        if *identity.trust_domain() != self.trust_domain {
            return Err(Error::ForeignIdentity {
                ca: self.trust_domain.clone(),
                identity: identity.to_string(),
            });
        }
        // The subject is empty, so the SAN is critical: there is no second name that anything could match on.
        let mut params = params(&identity.to_string(), DistinguishedName::new())?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity {
            Identity::Controller { .. } => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Identity::Agent { .. } | Identity::User { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let validity = self::validity(validity, Some(self))?;
        set_validity(&mut params, &validity);
        let serial = serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let der = params.signed_by(key, &self.issuer)?.der().clone();
        let serial = certificate::serial_text(&serial);
        Ok(Issued {
            der,
            serial,
            ca: self.id(),
            not_before: validity.start,
            not_after: validity.end,
        })
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Key::Own(key) => key.der_bytes(),
            Key::Foreign(key) => key.der_bytes(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Key::Own(key) => key.algorithm(),
            Key::Foreign(key) => key.algorithm(),
        }
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Key::Own(key) => key.sign(message),
            Key::Foreign(key) => key.sign(message),
        }
    }
}

/// From [`BACKDATE`] before `now` until `lifetime` after it.
pub fn backdated(now: SystemTime, lifetime: Duration) -> Range<SystemTime> {
    now - BACKDATE..now + lifetime
}

fn authority(
    trust_domain: &TrustDomain,
    role: &str,
    key: &KeyPair,
    path_len: Option<u8>,
) -> Result<CertificateParams, Error> {
    // Each CA has a subject of its own: two with one subject and different keys make chains ambiguous for other tools.
    let digest = fingerprint::sha256(key.public_key().der());
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Muster");
    name.push(
        DnType::CommonName,
        format!("Muster {role} CA {}", fingerprint::hex(&digest[..8])),
    );
    let mut params = params(&trust_domain.uri(), name)?;
    params.is_ca = IsCa::Ca(path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(uri: &str, subject: DistinguishedName) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// In whole seconds, and within the validity of the CA above.
fn validity(wanted: Range<SystemTime>, above: Option<&Ca>) -> Result<Range<SystemTime>, Error> {
    let mut validity = whole_seconds(wanted.start)?..whole_seconds(wanted.end)?;
    if let Some(above) = above {
        validity.start = validity.start.max(above.good.start);
        validity.end = validity.end.min(above.good.end);
    }
    if validity.is_empty() {
        Err(Error::Validity)
    } else {
        Ok(validity)
    }
}

fn whole_seconds(time: SystemTime) -> Result<SystemTime, Error> {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| Error::Validity)?
        .as_secs();
    if seconds > LAST_SECOND {
        return Err(Error::Validity);
    }
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn set_validity(params: &mut CertificateParams, validity: &Range<SystemTime>) {
    params.not_before = validity.start.into();
    params.not_after = validity.end.into();
}

/// 126 random bits, positive and always 16 bytes long.
fn serial() -> Result<[u8; 16], Error> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| Error::Random)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

#[cfg(test)]
mod tests;
