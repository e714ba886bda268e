//! What the tests of this crate are about: a small installation with its CA, and a forge for certificates that the CA would
//! never make.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType, SerialNumber};
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use crate::ca::{self, Ca};
use crate::identity::{Identity, TrustDomain};
use crate::identity_file::IdentityFile;
use crate::key::KeyPair;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn trust_domain() -> TrustDomain {
    "example.muster".parse().unwrap()
}

pub(crate) fn agent_id() -> Uuid {
    Uuid::from_u128(0x7d0c_51c2_9f0e_4b57_a3a1_5e1f_0c7b_8d21)
}

pub(crate) struct Installation {
    pub root: Ca,
    pub issuing: Ca,
}

impl Installation {
    pub(crate) fn new() -> Installation {
        Installation::of(&trust_domain())
    }

    pub(crate) fn of(trust_domain: &TrustDomain) -> Installation {
        let root = Ca::create_root(trust_domain, now()).unwrap();
        Installation {
            issuing: Ca::create_issuing(&root, now()).unwrap(),
            root,
        }
    }

    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.certificate_der().clone()]
    }

    pub(crate) fn issuers(&self) -> Vec<CertificateDer<'static>> {
        vec![self.issuing.certificate_der().clone()]
    }

    /// `leaf` with the CAs above it, as a controller serves it.
    pub(crate) fn chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        vec![
            leaf,
            self.issuing.certificate_der().clone(),
            self.root.certificate_der().clone(),
        ]
    }

    pub(crate) fn issue(&self, identity: &Identity, validity: Range<SystemTime>) -> IdentityFile {
        let key = KeyPair::generate().unwrap();
        let issued = self.issuing.issue(identity, &key.public_key(), validity).unwrap();
        IdentityFile::new(key, self.chain(issued.der)).unwrap()
    }

    pub(crate) fn controller(&self) -> IdentityFile {
        let identity = Identity::controller(self.root.trust_domain(), "controller1").unwrap();
        self.issue(&identity, ca::backdated(now(), ca::CONTROLLER_LIFETIME))
    }

    pub(crate) fn agent(&self) -> IdentityFile {
        let identity = Identity::agent(self.root.trust_domain(), agent_id());
        self.issue(&identity, ca::backdated(now(), ca::AGENT_LIFETIME))
    }

    pub(crate) fn user(&self, name: &str) -> IdentityFile {
        let identity = Identity::user(self.root.trust_domain(), name).unwrap();
        self.issue(&identity, ca::backdated(now(), ca::USER_LIFETIME))
    }
}

/// The issuer that holds this CA's key, without the CA's scruples.
pub(crate) fn forge_of(ca: &Ca) -> Issuer<'static, KeyPair> {
    Issuer::from_ca_cert_der(ca.certificate_der(), KeyPair::from_pem(&ca.key_pem()).unwrap()).unwrap()
}

/// A proper leaf for these URIs, to be spoilt by `spoil`, signed by `issuer`.
pub(crate) fn forge(
    issuer: &Issuer<'_, KeyPair>,
    key: &KeyPair,
    uris: &[&str],
    spoil: impl FnOnce(&mut CertificateParams),
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(SerialNumber::from_slice(&[7; 16]));
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + DAY).into();
    params.use_authority_key_identifier_extension = true;
    spoil(&mut params);
    params.signed_by(&key.public_key(), issuer).unwrap().der().clone()
}
