//! The connecting side: how an agent or an operator knows a controller. By a pin or a given CA while enrolling, by the roots
//! of its trust bundle afterwards; in each case by the identity in the certificate, never by host name.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::peer::{PeerCertificate, PeerError};
use super::{Error, anchors, provider};
use crate::certificate::Certificate;
use crate::identity::{Identity, TrustDomain};
use crate::identity_file::IdentityFile;
use crate::pin::Pin;

/// Longer chains are refused unread; ours are leaf, issuing CA, root, and what a rotation adds.
const MAX_CHAIN: usize = 16;

/// Why a server was refused, beyond what rustls itself finds. Found in an error by [`super::describe`].
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "no CA that the server shows has a pin that was given (given: {}; shown: {}); {seen}",
        list(wanted),
        list(served)
    )]
    PinMismatch {
        wanted: Vec<Pin>,
        served: Vec<Pin>,
        seen: Seen,
    },
    #[error("the server's certificate does not come from a CA that is trusted here; {0}")]
    UnknownIssuer(Seen),
    #[error("the server shows a chain of more than {MAX_CHAIN} certificates")]
    ChainTooLong,
    #[error("the server's certificate is not one of a server")]
    NotAServer,
    #[error("the server is {0}, which is not a controller")]
    NotAController(Identity),
    #[error("the server is {found}, and trust domain {wanted} was expected")]
    TrustDomain { wanted: TrustDomain, found: Identity },
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// The top of a chain that is not trusted, as the server showed it; nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Plain text of bounded length, as `issuer`.
    pub subject: String,
    pub issuer: String,
    /// Whether the server calls itself somebody of a Muster installation. What does not is something else altogether.
    pub is_muster: bool,
}

impl Seen {
    fn of(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Seen {
        let unreadable = || "what cannot be read".to_owned();
        let leaf = Certificate::try_from(end_entity).ok();
        let readable = intermediates
            .iter()
            .rev()
            .find_map(|der| Certificate::try_from(der).ok());
        let top = readable.as_ref().or(leaf.as_ref());
        Seen {
            subject: top.map_or_else(unreadable, Certificate::subject_text),
            issuer: top.map_or_else(unreadable, Certificate::issuer_text),
            is_muster: leaf.is_some_and(|leaf| PeerCertificate::of(&leaf).is_ok()),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its chain ends at \"{}\", issued by \"{}\"",
            self.subject, self.issuer
        )
    }
}

/// For a machine that has no identity yet. It trusts a controller whose chain ends at a CA that is shown in the chain and has
/// one of `pins`, or at one of `ca_certs`; at least one of both must be given. Shows no certificate of its own.
pub fn enrolling(pins: &[Pin], ca_certs: &[CertificateDer<'_>]) -> Result<Arc<ClientConfig>, Error> {
    config(
        Trust {
            roots: anchors(ca_certs)?,
            pins: pins.to_vec(),
            trust_domain: None,
        },
        None,
        Vec::new(),
    )
}

/// For an operator who has a pin or a CA of the controller, and nothing else yet. As [`enrolling`], but that it says which roots it
/// knows, as [`operator`] does.
pub fn introduction(pins: &[Pin], ca_certs: &[CertificateDer<'_>]) -> Result<Arc<ClientConfig>, Error> {
    let roots = anchors(ca_certs)?;
    let known_roots = roots.subjects();
    let trust = Trust {
        roots,
        pins: pins.to_vec(),
        trust_domain: None,
    };
    config(trust, None, known_roots)
}

/// For an enrolled agent.
pub fn link(
    roots: &[CertificateDer<'_>],
    trust_domain: &TrustDomain,
    identity: &IdentityFile,
) -> Result<Arc<ClientConfig>, Error> {
    config(known(anchors(roots)?, trust_domain), Some(identity), Vec::new())
}

/// For an operator, with a user's certificate or without one. It says which roots it knows, since the listener of operators
/// may have another certificate for those that know others.
pub fn operator(
    roots: &[CertificateDer<'_>],
    trust_domain: &TrustDomain,
    identity: Option<&IdentityFile>,
) -> Result<Arc<ClientConfig>, Error> {
    let roots = anchors(roots)?;
    let known_roots = roots.subjects();
    config(known(roots, trust_domain), identity, known_roots)
}

fn known(roots: RootCertStore, trust_domain: &TrustDomain) -> Trust {
    Trust {
        roots,
        pins: Vec::new(),
        trust_domain: Some(trust_domain.clone()),
    }
}

fn config(
    trust: Trust,
    identity: Option<&IdentityFile>,
    known_roots: Vec<DistinguishedName>,
) -> Result<Arc<ClientConfig>, Error> {
    if trust.roots.is_empty() && trust.pins.is_empty() {
        return Err(Error::NoTrust);
    }
    let algorithms = provider().signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier {
            trust,
            algorithms,
            known_roots,
        }));
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain().to_vec(), identity.key().private_key_der())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Trust {
    roots: RootCertStore,
    pins: Vec<Pin>,
    /// Not known while enrolling.
    trust_domain: Option<TrustDomain>,
}

#[derive(Debug)]
struct ServerVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
    /// What the server is told of `trust`.
    known_roots: Vec<DistinguishedName>,
}

impl ServerVerifier {
    /// The trust anchors for this chain: the given roots, and each CA of the chain that has one of the pins. A pinned key
    /// becomes an anchor like any other, so the chain must be signed up to it; that its certificate was shown proves nothing.
    /// Beside them, when pins were given and none of them was shown, those that were.
    fn anchors(
        &self,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(RootCertStore, Option<Vec<Pin>>), rustls::Error> {
        let mut store = self.trust.roots.clone();
        let wanted = &self.trust.pins;
        let mut served = Vec::new();
        for der in intermediates {
            // What cannot be read cannot be pinned; whether the chain holds without it, the verification will show.
            let Ok(certificate) = Certificate::try_from(der) else {
                continue;
            };
            if !certificate.is_authority() {
                continue;
            }
            let pin = Pin::of(&certificate);
            if wanted.contains(&pin) {
                store.add(der.clone())?;
            }
            if !served.contains(&pin) {
                served.push(pin);
            }
        }
        let mismatch = !wanted.is_empty() && !served.iter().any(|pin| wanted.contains(pin));
        Ok((store, mismatch.then_some(served)))
    }

    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (anchors, mismatch) = self.anchors(intermediates)?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let result =
            verify_server_cert_signed_by_trust_anchor(&leaf, &anchors, intermediates, now, self.algorithms.all);
        match result {
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                let seen = Seen::of(end_entity, intermediates);
                Err(refused(match mismatch {
                    Some(served) => ServerError::PinMismatch {
                        wanted: self.trust.pins.clone(),
                        served,
                        seen,
                    },
                    None => ServerError::UnknownIssuer(seen),
                }))
            }
            result => result,
        }
    }

    fn check_leaf(&self, leaf: &Certificate) -> Result<(), ServerError> {
        // webpki lets a certificate without extended key usage pass.
        if !leaf.server_auth {
            return Err(ServerError::NotAServer);
        }
        let peer = PeerCertificate::of(leaf)?;
        if !matches!(peer.identity, Identity::Controller { .. }) {
            return Err(ServerError::NotAController(peer.identity));
        }
        match &self.trust.trust_domain {
            Some(wanted) if wanted != peer.identity.trust_domain() => Err(ServerError::TrustDomain {
                wanted: wanted.clone(),
                found: peer.identity,
            }),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(refused(ServerError::ChainTooLong));
        }
        self.verify_chain(end_entity, intermediates, now)?;
        let leaf = Certificate::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        self.check_leaf(&leaf).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        (!self.known_roots.is_empty()).then_some(&self.known_roots)
    }
}

fn refused(error: ServerError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn list(pins: &[Pin]) -> String {
    match pins {
        [] => "none".to_owned(),
        pins => pins.iter().map(Pin::to_string).collect::<Vec<_>>().join(", "),
    }
}
