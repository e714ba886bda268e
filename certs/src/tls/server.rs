//! The listeners' side: the served certificate, which can be replaced while connections come in, and the verifier of client
//! certificates. A client may show none; what a connection without one may call, is decided elsewhere.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::peer::{PeerCertificate, PeerError};
use super::{Error, anchors, provider};
use crate::certificate::Certificate;
use crate::identity::TrustDomain;
use crate::key::KeyPair;

/// The controller's certificate. Clones share it: what [`ServerCertificate::replace`] sets, the next handshake serves.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    current: Arc<RwLock<Arc<CertifiedKey>>>,
}

impl ServerCertificate {
    /// `chain` is leaf, issuing CA, root, with older roots and what they have cross-signed. Roots are served too, because a
    /// joining machine may know nothing but a pin.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<ServerCertificate, Error> {
        Ok(ServerCertificate {
            current: Arc::new(RwLock::new(certified(chain, key)?)),
        })
    }

    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<(), Error> {
        let next = certified(chain, key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ServerCertificate {
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// The CAs whose certificates are accepted from clients, by key: being below the same root is not enough. Clones share them:
/// what [`ClientAuthorities::replace`] sets, the next handshake goes by.
#[derive(Clone, Debug)]
pub struct ClientAuthorities {
    current: Arc<RwLock<Arc<dyn ClientCertVerifier>>>,
}

impl ClientAuthorities {
    pub fn new(issuing: &[CertificateDer<'_>]) -> Result<ClientAuthorities, Error> {
        Ok(ClientAuthorities {
            current: Arc::new(RwLock::new(chain_verifier(issuing)?)),
        })
    }

    pub fn replace(&self, issuing: &[CertificateDer<'_>]) -> Result<(), Error> {
        let next = chain_verifier(issuing)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn get(&self) -> Arc<dyn ClientCertVerifier> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn chain_verifier(issuing: &[CertificateDer<'_>]) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    if issuing.is_empty() {
        return Err(Error::NoTrust);
    }
    Ok(
        WebPkiClientVerifier::builder_with_provider(Arc::new(anchors(issuing)?), provider())
            .allow_unauthenticated()
            .build()?,
    )
}

/// For agents: HTTP/2 only.
pub fn agent_listener(
    certificate: &ServerCertificate,
    issuing: &ClientAuthorities,
    trust_domain: &TrustDomain,
) -> Result<Arc<ServerConfig>, Error> {
    listener(certificate, issuing, trust_domain, &[b"h2"])
}

/// For operators: HTTP/2, and HTTP/1.1 for REST. Client certificates are verified as by [`agent_listener`].
/// `certificate` is a [`ServerCertificate`] or a [`super::ApiCertificate`].
pub fn api_listener(
    certificate: &(impl ResolvesServerCert + Clone + 'static),
    issuing: &ClientAuthorities,
    trust_domain: &TrustDomain,
) -> Result<Arc<ServerConfig>, Error> {
    listener(certificate, issuing, trust_domain, &[b"h2", b"http/1.1"])
}

fn listener(
    certificate: &(impl ResolvesServerCert + Clone + 'static),
    issuing: &ClientAuthorities,
    trust_domain: &TrustDomain,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = ClientVerifier {
        chain: issuing.clone(),
        schemes: issuing.get().supported_verify_schemes(),
        trust_domain: trust_domain.clone(),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(certificate.clone()));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // A resumed session would not pass the verifier.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Arc<CertifiedKey>, Error> {
    let parsed = chain.iter().map(Certificate::try_from).collect::<Result<Vec<_>, _>>()?;
    // Each comes from one of those behind it; beside the one way up there may be others, by cross-signatures, to older roots.
    let linked = parsed.iter().enumerate().all(|(index, certificate)| {
        let is_below = |above: &Certificate| above.is_authority() && certificate.issuer == above.subject;
        certificate.is_self_issued() || parsed[index + 1..].iter().any(is_below)
    });
    let rooted = parsed.len() > 1 && parsed.iter().skip(1).all(Certificate::is_authority) && {
        parsed.last().is_some_and(Certificate::is_self_issued)
    };
    if !linked || !rooted {
        return Err(Error::IncompleteChain);
    }
    Ok(Arc::new(CertifiedKey::from_der(
        chain,
        key.private_key_der(),
        &provider(),
    )?))
}

/// Adds to rustls' own verifier what is particular here: an expired leaf still proves that its holder has the key, and a
/// leaf is an identity of our trust domain.
#[derive(Debug)]
struct ClientVerifier {
    chain: ClientAuthorities,
    schemes: Vec<SignatureScheme>,
    trust_domain: TrustDomain,
}

#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error("the client's certificate is not one of a client")]
    NotAClient,
    #[error("the client's certificate is of trust domain {0}")]
    TrustDomain(TrustDomain),
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: clients have one certificate, and hints would tell strangers the names of our CAs.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let leaf = Certificate::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let not_after = leaf.not_after.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at = now.min(UnixTime::since_unix_epoch(not_after));
        // Without intermediates: a leaf comes straight from one of the issuing CAs or not at all.
        let verified = self.chain.get().verify_client_cert(end_entity, &[], at)?;
        // webpki lets a certificate without extended key usage pass.
        if !leaf.client_auth {
            return Err(refused(ClientError::NotAClient));
        }
        let peer = PeerCertificate::of(&leaf).map_err(refused::<PeerError>)?;
        if *peer.identity.trust_domain() != self.trust_domain {
            return Err(refused(ClientError::TrustDomain(peer.identity.trust_domain().clone())));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.get().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.get().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

fn refused<E: std::error::Error + Send + Sync + 'static>(error: E) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}
