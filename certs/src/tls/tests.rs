//! Handshakes in memory, between our configurations and with peers that do not play by the rules.

mod client;
mod named;
mod server;

use std::fmt;
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SignatureScheme};
use rustls_pki_types::UnixTime;

use super::*;
use crate::fixtures::{DAY, Installation, now, trust_domain};
use crate::identity_file::IdentityFile;
use crate::key::KeyPair;
use crate::pin::Pin;

/// Both ends after all that they had to say to each other was said.
struct Handshake {
    client: ClientConnection,
    server: ServerConnection,
    client_result: Result<(), rustls::Error>,
    server_result: Result<(), rustls::Error>,
}

#[derive(Debug)]
struct Clock(SystemTime);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap(),
        ))
    }
}

fn handshake(client: &ClientConfig, server: &ServerConfig) -> Handshake {
    handshake_at(client, now(), server, now())
}

fn handshake_at(
    client: &ClientConfig,
    client_now: SystemTime,
    server: &ServerConfig,
    server_now: SystemTime,
) -> Handshake {
    let (mut client, mut server) = (client.clone(), server.clone());
    client.time_provider = Arc::new(Clock(client_now));
    server.time_provider = Arc::new(Clock(server_now));
    let name = server_name("203.0.113.7");
    let mut handshake = Handshake {
        client: ClientConnection::new(Arc::new(client), name).unwrap(),
        server: ServerConnection::new(Arc::new(server)).unwrap(),
        client_result: Ok(()),
        server_result: Ok(()),
    };
    while handshake.client.wants_write() || handshake.server.wants_write() {
        let mut bytes = Vec::new();
        while handshake.client.wants_write() {
            handshake.client.write_tls(&mut bytes).unwrap();
        }
        deliver(&bytes, &mut handshake.server, &mut handshake.server_result);
        bytes.clear();
        while handshake.server.wants_write() {
            handshake.server.write_tls(&mut bytes).unwrap();
        }
        deliver(&bytes, &mut handshake.client, &mut handshake.client_result);
    }
    handshake
}

/// What comes after the first error is not looked at.
fn deliver<S>(
    mut bytes: &[u8],
    to: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    result: &mut Result<(), rustls::Error>,
) where
    S: rustls::SideData,
{
    while !bytes.is_empty() && result.is_ok() {
        to.read_tls(&mut bytes).unwrap();
        *result = to.process_new_packets().map(|_| ());
    }
}

impl Handshake {
    /// Whether both ends are content.
    fn is_complete(&self) -> bool {
        self.client_result.is_ok()
            && self.server_result.is_ok()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }

    fn client_text(&self) -> String {
        describe(self.client_result.as_ref().expect_err("the client is content")).unwrap()
    }

    fn server_error(&self) -> &rustls::Error {
        self.server_result.as_ref().expect_err("the server is content")
    }

    /// What the server knows of the client.
    fn peer(&self) -> Option<PeerCertificate> {
        assert!(self.is_complete(), "{self:?}");
        peer_certificate(self.server.peer_certificates()).unwrap()
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client: {:?}, server: {:?}", self.client_result, self.server_result)
    }
}

fn served(identity: &IdentityFile) -> ServerCertificate {
    ServerCertificate::new(identity.chain().to_vec(), identity.key()).unwrap()
}

fn clients(issuing: &[CertificateDer<'static>]) -> ClientAuthorities {
    ClientAuthorities::new(issuing).unwrap()
}

/// The agent listener of this installation.
fn listener(installation: &Installation) -> Arc<ServerConfig> {
    agent_listener(
        &served(&installation.controller()),
        &clients(&installation.issuers()),
        &trust_domain(),
    )
    .unwrap()
}

fn root_pin(installation: &Installation) -> Pin {
    Pin::of_certificate(installation.root.certificate_der()).unwrap()
}

/// Shows a chain and signs with a key, whether they belong together or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl Shows {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<Shows> {
        let key = provider().key_provider.load_private_key(key.private_key_der()).unwrap();
        Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key))))
    }
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A client that trusts the installation and shows this chain.
fn showing(installation: &Installation, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> ClientConfig {
    let mut config = (*operator(&installation.roots(), &trust_domain(), None).unwrap()).clone();
    config.client_auth_cert_resolver = Shows::new(chain, key);
    config
}

/// A server that serves this chain.
fn serving(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Shows::new(chain, key));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[test]
fn standings_are_written_in_lower_case() {
    let all = [
        Standing::None,
        Standing::Valid,
        Standing::Expired,
        Standing::Superseded,
        Standing::Revoked,
        Standing::Unknown,
    ];
    assert_eq!(
        all.map(|standing| standing.to_string()),
        ["none", "valid", "expired", "superseded", "revoked", "unknown"]
    );
}

#[test]
fn a_host_of_any_name_can_be_connected_to() {
    for (host, expected) in [
        ("muster.example.com", "muster.example.com"),
        ("muster_1.local", "muster_1.local"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("not a name", "controller.invalid"),
        ("", "controller.invalid"),
    ] {
        assert_eq!(server_name(host).to_str(), expected, "{host:?}");
    }
}

#[test]
fn nothing_is_trusted_by_default() {
    let installation = Installation::new();
    let agent = installation.agent();
    assert!(matches!(enrolling(&[], &[]), Err(Error::NoTrust)));
    assert!(matches!(link(&[], &trust_domain(), &agent), Err(Error::NoTrust)));
    assert!(matches!(operator(&[], &trust_domain(), None), Err(Error::NoTrust)));
    assert!(matches!(ClientAuthorities::new(&[]), Err(Error::NoTrust)));
}

#[test]
fn a_leaf_is_never_a_trust_anchor() {
    let installation = Installation::new();
    let agent = installation.agent();
    let leaf = &agent.chain()[..1];
    assert!(matches!(enrolling(&[], leaf), Err(Error::NotAnAuthority)));
    assert!(matches!(
        link(leaf, &trust_domain(), &agent),
        Err(Error::NotAnAuthority)
    ));
    assert!(matches!(ClientAuthorities::new(leaf), Err(Error::NotAnAuthority)));
}

#[test]
fn no_process_wide_provider_is_installed() {
    let installation = Installation::new();
    let client = link(&installation.roots(), &trust_domain(), &installation.agent()).unwrap();
    assert!(handshake(&client, &listener(&installation)).is_complete());
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}
