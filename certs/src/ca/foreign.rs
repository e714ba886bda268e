//! An issuing CA of the operator's own PKI: its certificate with those above it, and its key, checked before anything is
//! built on them. Afterwards it is a [`Ca`] like any other. Reads texts, no files.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyIdMethod, KeyUsagePurpose,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::{BACKDATE, Ca, backdated};
use crate::certificate::{self, Certificate, is_signed_by};
use crate::identity::{Identity, TrustDomain};
use crate::key::KeyPair;
use crate::{key, pem, tls};

/// A CA that ends sooner is not taken: there must be time to bring the next one.
pub const LEAST_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What a file with a CA's certificates and one with its key hold.
#[derive(Debug)]
pub struct Chain {
    pub issuing: Ca,
    /// Between the issuing CA and the root, from below.
    pub intermediates: Vec<CertificateDer<'static>>,
    pub root: CertificateDer<'static>,
    /// Certificates of the root by other roots: whoever trusts those trusts what is below this one too.
    pub cross: Vec<CertificateDer<'static>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the certificates cannot be read")]
    Pem(#[from] pem::Error),
    #[error("certificate {0} cannot be read")]
    Certificate(usize, #[source] certificate::Error),
    #[error("the key cannot be read")]
    Key(#[source] key::Error),
    #[error(
        "the key does not belong to the first certificate, that of {subject}; the certificate of the issuing CA comes first"
    )]
    KeyMismatch { subject: String },
    #[error(
        "{subject} is a root; bring a CA below it that issues for this controller, and keep the root's key away from here"
    )]
    IsRoot { subject: String },
    #[error("{subject} is not a CA: its certificate lacks basicConstraints CA:TRUE")]
    NotAnAuthority { subject: String },
    #[error("{subject} may not issue certificates: its certificate lacks keyUsage keyCertSign")]
    MayNotSign { subject: String },
    #[error("{subject} allows {allowed} CAs below it (pathlen), and here it has {found}")]
    PathLength {
        subject: String,
        allowed: u32,
        found: usize,
    },
    #[error("the certificate of {subject} is not good yet; is this machine's clock right?")]
    NotYet { subject: String },
    #[error("the certificate of {subject} ends within {} days; a CA that is brought must last longer", LEAST_LIFE.as_secs() / 86_400)]
    EndsSoon { subject: String },
    #[error(
        "the certificate of {issuer}, which issued {subject}, is missing; the file holds the issuing CA and all above it up to the root"
    )]
    NoRoot { subject: String, issuer: String },
    #[error("the certificate of {subject} is not signed by the {issuer} of this file")]
    Signature { subject: String, issuer: String },
    #[error(
        "{subject} has no place in this chain: it is neither above the first certificate nor another certificate of the root"
    )]
    Stray { subject: String },
    #[error(
        "the name of {subject} cannot be repeated in certificates: it has two parts of one kind (as in DC=example, DC=com)"
    )]
    Name { subject: String },
    #[error("what this CA issues would not be accepted")]
    Unusable(#[from] tls::Error),
    #[error("failed to issue a certificate for a trial")]
    Trial(#[from] super::Error),
}

impl Chain {
    /// `chain_pem`: the issuing CA, those above it and the root, with other certificates of the root or without.
    pub fn read(trust_domain: &TrustDomain, chain_pem: &str, key_pem: &str, now: SystemTime) -> Result<Chain, Error> {
        let mut all = Vec::new();
        for (index, der) in pem::certificates(chain_pem)?.into_iter().enumerate() {
            let certificate = Certificate::parse(&der).map_err(|error| Error::Certificate(index + 1, error))?;
            all.push(Link { der, certificate });
        }
        let issuing = all.remove(0);
        if issuing.certificate.is_self_issued() {
            return Err(Error::IsRoot {
                subject: issuing.subject(),
            });
        }
        let (way, rest) = way_up(issuing, all)?;
        check(&way, now)?;
        let root = &way[way.len() - 1];
        if let Some(stray) = rest
            .iter()
            .find(|it| !it.certificate.is_same_authority(&root.certificate))
        {
            return Err(Error::Stray {
                subject: stray.subject(),
            });
        }
        let ders: Vec<CertificateDer<'static>> = way.iter().map(|it| it.der.clone()).collect();
        let issuing = Ca::load_foreign(&ders, key_pem, trust_domain).map_err(|error| match error {
            super::Error::Key(error) => Error::Key(error),
            super::Error::KeyMismatch => Error::KeyMismatch {
                subject: way[0].subject(),
            },
            other => Error::Trial(other),
        })?;
        let chain = Chain {
            issuing,
            intermediates: ders[1..ders.len() - 1].to_vec(),
            root: ders[ders.len() - 1].clone(),
            cross: rest.into_iter().map(|it| it.der).collect(),
        };
        chain.try_out(now)?;
        Ok(chain)
    }

    /// Finds out by doing it what else may be in the way: constraints of names and usages, weak keys and hashes.
    fn try_out(&self, now: SystemTime) -> Result<(), Error> {
        let identity = Identity::controller(self.issuing.trust_domain(), "trial").map_err(super::Error::TrustDomain)?;
        let key = KeyPair::generate().map_err(Error::Key)?;
        let leaf = self.issuing.issue(&identity, &key.public_key(), backdated(now, HOUR))?;
        let issuing = std::iter::once(self.issuing.certificate_der());
        let named = |der: &CertificateDer<'_>| Certificate::parse(der).map_err(|error| Error::Certificate(1, error));
        let issuing_certificate = named(self.issuing.certificate_der())?;
        if !named(&leaf.der)?.is_below(&issuing_certificate) {
            return Err(Error::Name {
                subject: issuing_certificate.subject_text(),
            });
        }
        let above: Vec<CertificateDer<'_>> = issuing.chain(&self.intermediates).cloned().collect();
        Ok(tls::verify_server(&leaf.der, &above, &self.root, now)?)
    }
}

impl Ca {
    /// As [`Ca::cross_sign`] for a root of another PKI, of which only the certificate is here.
    pub fn cross_sign_foreign(
        &self,
        root: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, Error> {
        let failed = |error: rcgen::Error| Error::Trial(error.into());
        let other = Certificate::parse(root).map_err(|error| Error::Certificate(1, error))?;
        if !self.is_root() || !other.is_self_issued() {
            return Err(Error::Trial(super::Error::NotARoot));
        }
        let name = || Error::Name {
            subject: other.subject_text(),
        };
        let (_, x509) = X509Certificate::from_der(root).map_err(|_| name())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = repeated(x509.subject()).ok_or_else(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        // What is below the root names its key by this.
        for extension in x509.extensions() {
            if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
                params.key_identifier_method = KeyIdMethod::PreSpecified(id.0.to_vec());
            }
        }
        let validity = super::validity(now - BACKDATE..other.not_after, Some(self))?;
        super::set_validity(&mut params, &validity);
        params.serial_number = Some(SerialNumber::from_slice(&super::serial()?));
        let key = SubjectPublicKeyInfo::from_der(&other.public_key_der).map_err(failed)?;
        let cross = params.signed_by(&key, &self.issuer).map_err(failed)?.der().clone();
        match Certificate::parse(&cross) {
            Ok(cross) if cross.is_same_authority(&other) => {}
            _ => return Err(name()),
        }
        Ok(cross)
    }
}

/// A name as it can be written again. None: it has parts that cannot.
fn repeated(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut repeated = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let kind = DnType::from_oid(&attribute.attr_type().iter()?.collect::<Vec<_>>());
        let text = attribute.as_str().ok()?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
            _ => return None,
        };
        repeated.push(kind, value);
    }
    Some(repeated)
}

struct Link {
    der: CertificateDer<'static>,
    certificate: Certificate,
}

impl Link {
    fn subject(&self) -> String {
        self.certificate.subject_text()
    }
}

/// From the issuing CA to the root, and what is left.
fn way_up(issuing: Link, mut rest: Vec<Link>) -> Result<(Vec<Link>, Vec<Link>), Error> {
    let mut way = vec![issuing];
    loop {
        let last = &way[way.len() - 1];
        if last.certificate.is_self_issued() {
            return Ok((way, rest));
        }
        let named = |it: &Link| last.certificate.is_below(&it.certificate);
        let signed = |it: &Link| named(it) && is_signed_by(&last.der, &it.der);
        // A root by itself before what other roots say of it: what is cross-signed leads elsewhere.
        let root = rest.iter().position(|it| signed(it) && it.certificate.is_self_issued());
        let Some(next) = root.or_else(|| rest.iter().position(signed)) else {
            let (subject, issuer) = (last.subject(), last.certificate.issuer_text());
            return Err(match rest.iter().any(named) {
                true => Error::Signature { subject, issuer },
                false => Error::NoRoot { subject, issuer },
            });
        };
        let next = rest.remove(next);
        way.push(next);
    }
}

fn check(way: &[Link], now: SystemTime) -> Result<(), Error> {
    for (below, Link { certificate, .. }) in way.iter().enumerate() {
        let subject = certificate.subject_text();
        if !certificate.is_ca {
            return Err(Error::NotAnAuthority { subject });
        }
        if !certificate.key_cert_sign {
            return Err(Error::MayNotSign { subject });
        }
        if let Some(allowed) = certificate.path_len
            && below > allowed as usize
        {
            return Err(Error::PathLength {
                subject,
                allowed,
                found: below,
            });
        }
        if certificate.not_before > now {
            return Err(Error::NotYet { subject });
        }
        if certificate.not_after < now + LEAST_LIFE {
            return Err(Error::EndsSoon { subject });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
