//! TLS: what both ends of every connection agree on. TLS 1.3 only, aws-lc-rs with post-quantum key exchange preferred, no
//! session tickets and no resumption, so that every connection proves its key anew. Among peers of ours host names are never
//! checked: a peer is the one URI in its certificate. Opens no sockets, and installs no process-wide provider.

mod client;
mod describe;
mod named;
mod peer;
mod server;

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{CipherSuite, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

pub use client::{Seen, ServerError, enrolling, introduction, link, operator};
pub use describe::{describe, is_refusal, seen};
pub use named::{ApiCertificate, NamedCertificate, NamedError, operator_by_name};
pub use peer::{PeerCertificate, PeerError, Standing, peer_certificate};
pub use server::{ClientAuthorities, ServerCertificate, agent_listener, api_listener};

use crate::certificate;

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is nothing to know the peer by: no CA certificate and no pin")]
    NoTrust,
    #[error("failed to read a certificate")]
    Certificate(#[from] certificate::Error),
    #[error("a certificate that should be trusted is not one of a CA")]
    NotAnAuthority,
    #[error("a served chain goes from the leaf by its issuers up to a root, and this one does not")]
    IncompleteChain,
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
    #[error("failed to set up the verification of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The cryptography of all our connections: all of rustls', and those suites first whose hash processors compute by
/// themselves. A handshake is mostly that and the signatures, and machines connect by the thousand.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// What to give a connector for `host`. The name is only sent to the server, never checked; one that cannot be a DNS name
/// is replaced, so that a machine with a peculiar name can be reached all the same.
pub fn server_name(host: &str) -> ServerName<'static> {
    let host = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(host.to_owned())
        .unwrap_or_else(|_| ServerName::try_from("controller.invalid").expect("a valid DNS name"))
}

/// Whether a certificate of a server stands on this root by these CAs.
pub(crate) fn verify_server(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    root: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<(), Error> {
    let leaf = ParsedCertificate::try_from(leaf)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider().signature_verification_algorithms.all;
    let anchors = anchors(std::slice::from_ref(root))?;
    Ok(verify_server_cert_signed_by_trust_anchor(
        &leaf,
        &anchors,
        intermediates,
        now,
        algorithms,
    )?)
}

/// Trust anchors: subject and key are taken from the certificates, so a chain ends at exactly these keys.
fn anchors(certificates: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for der in certificates {
        if !certificate::Certificate::parse(der)?.is_authority() {
            return Err(Error::NotAnAuthority);
        }
        store.add(der.clone())?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests;
