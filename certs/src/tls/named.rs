//! A certificate with host names, of the ordinary web PKI or the operator's own, for the listener of operators: browsers and
//! tools find what they know there. Whoever says in the handshake that it knows the controller's own CA gets the controller's
//! own certificate all the same. Reads texts, no files.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DistinguishedName};
use rustls_pki_types::CertificateDer;

use super::server::ServerCertificate;
use super::{anchors, provider};
use crate::certificate::{self, Certificate};
use crate::identity_file::IdentityFile;
use crate::pem;

/// A certificate with host names and its key, ready to be served.
#[derive(Debug)]
pub struct NamedCertificate {
    key: Arc<CertifiedKey>,
    /// DNS names and IP addresses that it is for.
    pub hosts: Vec<String>,
    pub not_after: SystemTime,
}

#[derive(Debug, thiserror::Error)]
pub enum NamedError {
    #[error("the certificate cannot be read")]
    Certificates(#[source] pem::Error),
    #[error("the key cannot be read")]
    Key(#[source] pem::Error),
    #[error("certificate {0} cannot be read")]
    Certificate(usize, #[source] certificate::Error),
    #[error("the first certificate is that of a CA; the server's own comes first")]
    Authority,
    #[error("the certificate is for no host: it lacks a subjectAltName with a DNS name or an IP address")]
    NoHost,
    #[error("the certificate has ended")]
    Expired,
    #[error(
        "certificate {0} did not issue the one before it; the file holds the server's certificate, then the CA that issued it, and so on"
    )]
    Order(usize),
    #[error("the key cannot be used, or does not belong to the certificate")]
    Unusable(#[source] rustls::Error),
}

impl NamedCertificate {
    /// `chain` is the server's certificate and those above it, `key` its key in PKCS #8, SEC 1 or PKCS #1.
    pub fn from_pem(chain: &str, key: &str, now: SystemTime) -> Result<NamedCertificate, NamedError> {
        let chain = pem::certificates(chain).map_err(NamedError::Certificates)?;
        let parsed = chain
            .iter()
            .enumerate()
            .map(|(index, der)| Certificate::parse(der).map_err(|error| NamedError::Certificate(index + 1, error)))
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = &parsed[0];
        // A certificate that a tool has signed with its own key often says that it is a CA; it is a server's all the same.
        if leaf.is_ca && !leaf.is_self_issued() {
            return Err(NamedError::Authority);
        }
        if leaf.hosts.is_empty() {
            return Err(NamedError::NoHost);
        }
        if leaf.not_after < now {
            return Err(NamedError::Expired);
        }
        if let Some(wrong) = parsed.windows(2).position(|pair| !pair[0].is_below(&pair[1])) {
            return Err(NamedError::Order(wrong + 2));
        }
        let (hosts, not_after) = (leaf.hosts.clone(), leaf.not_after);
        let key = pem::any_private_key(key).map_err(NamedError::Key)?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(NamedError::Unusable)?;
        Ok(NamedCertificate {
            key: Arc::new(key),
            hosts,
            not_after,
        })
    }
}

/// What the listener of operators serves. Clones share it: what is set, the next handshake serves.
#[derive(Clone, Debug)]
pub struct ApiCertificate {
    own: ServerCertificate,
    named: Arc<RwLock<Option<Arc<CertifiedKey>>>>,
}

impl ApiCertificate {
    /// The controller's own, until another is set.
    pub fn new(own: &ServerCertificate) -> ApiCertificate {
        ApiCertificate {
            own: own.clone(),
            named: Arc::default(),
        }
    }

    pub fn set_named(&self, named: NamedCertificate) {
        *self.named.write().unwrap_or_else(PoisonError::into_inner) = Some(named.key);
    }
}

impl ResolvesServerCert for ApiCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner).clone();
        let own = self.own.current();
        match named {
            Some(named) if !knows(hello.certificate_authorities(), &own) => Some(named),
            _ => Some(own),
        }
    }
}

/// Whether one of the CAs that a client knows (RFC 8446, section 4.2.4) is above this certificate.
fn knows(known: Option<&[DistinguishedName]>, served: &CertifiedKey) -> bool {
    let above = |name: &DistinguishedName| {
        let is_named = |der: &CertificateDer<'_>| Certificate::parse(der).is_ok_and(|it| it.subject == name.as_ref());
        served.cert.iter().skip(1).any(is_named)
    };
    known.is_some_and(|known| known.iter().any(above))
}

/// For an operator whose controller has such a certificate: the chain must end at one of `roots`, and the certificate must be
/// for the name that the connection is made to.
pub fn operator_by_name(
    roots: &[CertificateDer<'_>],
    identity: Option<&IdentityFile>,
) -> Result<Arc<ClientConfig>, super::Error> {
    if roots.is_empty() {
        return Err(super::Error::NoTrust);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors(roots)?), provider()).build()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain().to_vec(), identity.key().private_key_der())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
