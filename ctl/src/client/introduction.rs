//! The first meeting with a controller of which only a pin or a CA is known: one handshake, in which nothing of the operator is
//! shown. What the controller shows is what a context is made of.

use std::time::Duration;

use muster_certs::{
    CertificateDer,
    certificate::Certificate,
    identity::{Identity, TrustDomain},
    pin::Pin,
    tls,
};

use super::{LONGEST_CONNECT, dial, host};
use crate::problem::connection::ConnectError;

/// What is known of a controller that has proved to be the one that was meant.
#[derive(Debug)]
pub struct Introduction {
    pub trust_domain: TrustDomain,
    /// The CAs that it is known by from then on.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Fails as a connection does: a controller that has none of the pins, and stands on none of the CAs, is another one.
pub async fn meet(
    server: &str,
    pins: &[Pin],
    ca_certs: &[CertificateDer<'static>],
    limit: Duration,
) -> Result<Introduction, ConnectError> {
    let unusable = |error: &dyn std::fmt::Display| ConnectError::Tls(std::io::Error::other(error.to_string()));
    let config = tls::introduction(pins, ca_certs).map_err(|error| unusable(&error))?;
    let host = host(server)?;
    let name = tls::server_name(&host);
    let stream = dial(server, &host, name, config, limit.min(LONGEST_CONNECT)).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let (leaf, above) = chain
        .split_first()
        .ok_or_else(|| unusable(&"it shows no certificate"))?;
    let identity = Identity::from_certificate(leaf).map_err(|error| unusable(&error))?;
    let is_pinned = |der: &&CertificateDer<'_>| {
        Certificate::parse(der).is_ok_and(|ca| ca.is_authority())
            && Pin::of_certificate(der).is_ok_and(|pin| pins.contains(&pin))
    };
    let pinned = above.iter().filter(is_pinned).map(|der| der.clone().into_owned());
    let roots = ca_certs.iter().cloned().chain(pinned).collect();
    Ok(Introduction {
        trust_domain: identity.trust_domain().clone(),
        roots,
    })
}
