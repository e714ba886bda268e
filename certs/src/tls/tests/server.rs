//! What the listeners let in and keep out.

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use rustls::{CertificateError, HandshakeKind, NamedGroup, PeerIncompatible, ProtocolVersion};

use super::*;
use crate::ca::{self, AGENT_LIFETIME, Ca};
use crate::fixtures::{agent_id, forge, forge_of};
use crate::identity::Identity;

const AGENT: &str = "spiffe://example.muster/agent/7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";

/// The server's answer to a client that shows this.
fn shown(installation: &Installation, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Handshake {
    handshake(&showing(installation, chain, key), &listener(installation))
}

fn assert_unknown_issuer(handshake: &Handshake) {
    let expected = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_eq!(handshake.server_error(), &expected);
}

fn assert_refused(handshake: &Handshake, text: &str) {
    assert_eq!(describe(handshake.server_error()).unwrap(), text);
    assert!(
        handshake.client_text().contains("refused the certificate"),
        "{}",
        handshake.client_text()
    );
}

#[test]
fn an_agent_is_known_by_its_certificate() {
    let installation = Installation::new();
    let agent = installation.agent();
    let client = link(&installation.roots(), &trust_domain(), &agent).unwrap();
    let peer = handshake(&client, &listener(&installation)).peer().unwrap();
    assert_eq!(peer.identity, Identity::agent(&trust_domain(), agent_id()));
    assert_eq!(peer.serial, agent.serial());
    assert_eq!(
        (peer.not_before, peer.not_after),
        (agent.not_before(), agent.not_after())
    );
    assert_eq!(Standing::of(Some(&peer), now()), Standing::Valid);
}

#[test]
fn a_client_may_come_without_a_certificate() {
    let installation = Installation::new();
    let client = operator(&installation.roots(), &trust_domain(), None).unwrap();
    let peer = handshake(&client, &listener(&installation)).peer();
    assert_eq!(peer, None);
    assert_eq!(Standing::of(peer.as_ref(), now()), Standing::None);
}

#[test]
fn an_expired_certificate_still_proves_the_key() {
    let installation = Installation::new();
    let agent = installation.agent();
    let client = link(&installation.roots(), &trust_domain(), &agent).unwrap();
    for days in [2, 400] {
        // The client's clock is slow: only the server notices.
        let later = now() + DAY * days;
        let peer = handshake_at(&client, now(), &listener(&installation), later)
            .peer()
            .unwrap();
        assert_eq!(peer.serial, agent.serial());
        assert!(peer.is_expired(later));
        assert_eq!(Standing::of(Some(&peer), later), Standing::Expired);
    }
    let peer = handshake_at(&client, now(), &listener(&installation), agent.not_after())
        .peer()
        .unwrap();
    assert_eq!(
        Standing::of(Some(&peer), agent.not_after()),
        Standing::Valid,
        "valid in its last second"
    );
}

#[test]
fn an_expired_certificate_without_its_key_proves_nothing() {
    let installation = Installation::new();
    let agent = installation.agent();
    let thief = showing(&installation, agent.chain().to_vec(), &KeyPair::generate().unwrap());
    for at in [now(), now() + DAY * 2] {
        let handshake = handshake_at(&thief, now(), &listener(&installation), at);
        let expected = rustls::Error::InvalidCertificate(CertificateError::BadSignature);
        assert_eq!(handshake.server_error(), &expected);
    }
}

#[test]
fn a_certificate_that_is_not_good_yet_is_refused() {
    let installation = Installation::new();
    let agent = installation.agent();
    let client = showing(&installation, agent.chain().to_vec(), agent.key());
    let early = agent.not_before() - std::time::Duration::from_secs(1);
    let handshake = handshake_at(&client, now(), &listener(&installation), early);
    assert!(matches!(
        handshake.server_error(),
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })
    ));
}

#[test]
fn a_clock_one_hour_slow_is_no_hindrance() {
    let installation = Installation::new();
    let client = link(&installation.roots(), &trust_domain(), &installation.agent()).unwrap();
    let slow = now() - ca::BACKDATE;
    assert!(handshake_at(&client, slow, &listener(&installation), slow).is_complete());
}

#[test]
fn a_foreign_ca_with_the_same_subject_is_refused() {
    let (ours, foreign) = (Installation::new(), Installation::new());
    // The foreign CA takes our issuing CA's name; only the key tells them apart.
    let name_of_ours = forge_of(&ours.issuing);
    let foreign_key = KeyPair::generate().unwrap();
    let impostor = rcgen::Issuer::from_ca_cert_der(ours.issuing.certificate_der(), foreign_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let genuine = forge(&name_of_ours, &key, &[AGENT], |_| ());
    assert!(
        shown(&ours, vec![genuine], &key).is_complete(),
        "the forge makes what would be let in"
    );
    let forged = forge(&impostor, &key, &[AGENT], |_| ());
    let handshake = shown(&ours, vec![forged], &key);
    let expected = rustls::Error::InvalidCertificate(CertificateError::BadSignature);
    assert_eq!(handshake.server_error(), &expected);
    assert!(
        handshake.client_text().contains("refused the certificate"),
        "{}",
        handshake.client_text()
    );

    let stranger = foreign.agent();
    assert_unknown_issuer(&shown(&ours, stranger.chain().to_vec(), stranger.key()));
}

#[test]
fn a_common_root_is_not_enough() {
    let ours = Installation::new();
    let sister = Ca::create_issuing(&ours.root, now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let identity = Identity::agent(&trust_domain(), agent_id());
    let issued = sister
        .issue(&identity, &key.public_key(), ca::backdated(now(), AGENT_LIFETIME))
        .unwrap();
    let chain = vec![
        issued.der,
        sister.certificate_der().clone(),
        ours.root.certificate_der().clone(),
    ];
    assert_unknown_issuer(&shown(&ours, chain, &key));
    // Signed by the root itself: no better.
    let by_root = forge(&forge_of(&ours.root), &key, &[AGENT], |_| ());
    assert_unknown_issuer(&shown(&ours, vec![by_root, ours.root.certificate_der().clone()], &key));
}

#[test]
fn a_leaf_does_not_act_as_a_ca() {
    let installation = Installation::new();
    let agent = installation.agent();
    let key = KeyPair::from_pem(&agent.key().to_pem()).unwrap();
    let by_leaf = rcgen::Issuer::from_ca_cert_der(&agent.chain()[0], key).unwrap();
    let key = KeyPair::generate().unwrap();
    let user = forge(&by_leaf, &key, &["spiffe://example.muster/user/admin"], |_| ());
    let chain = [vec![user], agent.chain().to_vec()].concat();
    assert_unknown_issuer(&shown(&installation, chain, &key));
}

#[test]
fn not_even_a_ca_below_the_issuing_one_makes_clients() {
    let installation = Installation::new();
    let below_key = KeyPair::generate().unwrap();
    let below = forge(
        &forge_of(&installation.issuing),
        &below_key,
        &["spiffe://example.muster"],
        |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.distinguished_name.push(rcgen::DnType::CommonName, "below");
        },
    );
    let issuer = rcgen::Issuer::from_ca_cert_der(&below, below_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = forge(&issuer, &key, &[AGENT], |_| ());
    assert_unknown_issuer(&shown(&installation, vec![leaf, below], &key));
}

#[test]
fn a_certificate_for_another_use_is_refused() {
    let installation = Installation::new();
    let controller = installation.controller();
    let handshake = shown(&installation, controller.chain().to_vec(), controller.key());
    assert!(matches!(
        handshake.server_error(),
        rustls::Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })
    ));

    let issuer = forge_of(&installation.issuing);
    let key = KeyPair::generate().unwrap();
    let spoilt = |spoil: fn(&mut rcgen::CertificateParams)| {
        shown(&installation, vec![forge(&issuer, &key, &[AGENT], spoil)], &key)
    };
    assert!(spoilt(|_| ()).is_complete());
    assert_refused(
        &spoilt(|params| params.extended_key_usages.clear()),
        "the client's certificate is not one of a client",
    );
    assert_refused(
        &spoilt(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        "the peer's certificate may not be used for signatures",
    );
    assert_refused(
        &spoilt(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        "the peer shows the certificate of a CA as its own",
    );
    assert_refused(
        &spoilt(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)),
        "the peer shows the certificate of a CA as its own",
    );
    assert!(
        spoilt(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))
            .server_result
            .is_err()
    );
}

#[test]
fn a_certificate_without_exactly_one_identity_of_ours_is_refused() {
    let installation = Installation::new();
    let issuer = forge_of(&installation.issuing);
    let key = KeyPair::generate().unwrap();
    let of = |uris: &[&str]| {
        let leaf = forge(&issuer, &key, uris, |params| {
            // Without any SAN the subject may not be empty.
            params.distinguished_name.push(rcgen::DnType::CommonName, "x");
        });
        shown(&installation, vec![leaf], &key)
    };
    assert!(of(&[AGENT]).is_complete());
    let text = "failed to read the identity in the peer's certificate";
    assert_refused(&of(&[]), text);
    assert_refused(&of(&[AGENT, "spiffe://example.muster/user/admin"]), text);
    assert_refused(&of(&["https://example.com/user/admin"]), text);
    assert_refused(&of(&["spiffe://example.muster"]), text);
    assert_refused(
        &of(&["spiffe://other.muster/user/admin"]),
        "the client's certificate is of trust domain other.muster",
    );
}

#[test]
fn any_of_several_issuing_cas_will_do() {
    let old = Installation::new();
    let new = Installation {
        issuing: Ca::create_issuing(&old.root, now()).unwrap(),
        root: Installation::new().root,
    };
    let issuers = [old.issuers(), new.issuers()].concat();
    let server = agent_listener(&served(&old.controller()), &clients(&issuers), &trust_domain()).unwrap();
    for installation in [&old, &new] {
        let agent = installation.agent();
        assert!(handshake(&showing(&old, agent.chain().to_vec(), agent.key()), &server).is_complete());
    }
}

#[test]
fn tls_1_2_is_refused() {
    let installation = Installation::new();
    let roots = anchors(&installation.roots()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let served = served(&installation.controller());
    for server in [
        agent_listener(&served, &clients(&installation.issuers()), &trust_domain()).unwrap(),
        api_listener(&served, &clients(&installation.issuers()), &trust_domain()).unwrap(),
    ] {
        let handshake = handshake(&client, &server);
        let expected = PeerIncompatible::Tls12NotOfferedOrEnabled;
        assert_eq!(handshake.server_error(), &rustls::Error::PeerIncompatible(expected));
        assert_eq!(handshake.client_text(), "the other side does not speak TLS 1.3");
    }
}

#[test]
fn connections_are_tls_1_3_with_post_quantum_key_exchange_and_never_resumed() {
    let installation = Installation::new();
    let client = link(&installation.roots(), &trust_domain(), &installation.agent()).unwrap();
    let server = listener(&installation);
    for _ in 0..2 {
        let handshake = handshake(&client, &server);
        assert!(handshake.is_complete());
        assert_eq!(handshake.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let group = handshake.client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        assert_eq!(handshake.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(handshake.client.tls13_tickets_received(), 0);
        assert_eq!(handshake.client.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[test]
fn a_client_that_would_resume_gets_no_ticket() {
    let installation = Installation::new();
    let mut client = (*operator(&installation.roots(), &trust_domain(), None).unwrap()).clone();
    client.resumption = rustls::client::Resumption::in_memory_sessions(8);
    for _ in 0..2 {
        let handshake = handshake(&client, &listener(&installation));
        assert_eq!(handshake.client.tls13_tickets_received(), 0);
        assert_eq!(handshake.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn only_the_api_listener_speaks_http_1() {
    let installation = Installation::new();
    let mut client = (*operator(&installation.roots(), &trust_domain(), None).unwrap()).clone();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let api = api_listener(
        &served(&installation.controller()),
        &clients(&installation.issuers()),
        &trust_domain(),
    )
    .unwrap();
    assert_eq!(handshake(&client, &api).client.alpn_protocol(), Some(&b"http/1.1"[..]));
    let refused = handshake(&client, &listener(&installation));
    assert_eq!(refused.server_error(), &rustls::Error::NoApplicationProtocol);
    assert_eq!(
        refused.client_text(),
        "the other side speaks TLS, but not HTTP/2; is it the right port?"
    );
}

#[test]
fn the_whole_chain_up_to_the_root_is_served() {
    let installation = Installation::new();
    let controller = installation.controller();
    let server = agent_listener(&served(&controller), &clients(&installation.issuers()), &trust_domain()).unwrap();
    let client = operator(&installation.roots(), &trust_domain(), None).unwrap();
    assert_eq!(
        handshake(&client, &server).client.peer_certificates().unwrap(),
        controller.chain()
    );
}

#[test]
fn a_replaced_certificate_is_served_from_the_next_handshake_on() {
    let installation = Installation::new();
    let (first, second) = (installation.controller(), installation.controller());
    let certificate = served(&first);
    let server = agent_listener(&certificate, &clients(&installation.issuers()), &trust_domain()).unwrap();
    let client = operator(&installation.roots(), &trust_domain(), None).unwrap();
    let leaf = || handshake(&client, &server).client.peer_certificates().unwrap()[0].clone();
    assert_eq!(leaf(), first.chain()[0]);
    certificate.replace(second.chain().to_vec(), second.key()).unwrap();
    assert_eq!(leaf(), second.chain()[0]);
    // What cannot be served is refused, and what was served stays.
    assert!(certificate.replace(second.chain()[..1].to_vec(), second.key()).is_err());
    assert_eq!(leaf(), second.chain()[0]);
}

#[test]
fn an_incomplete_chain_is_not_served() {
    let installation = Installation::new();
    let controller = installation.controller();
    let [leaf, issuing, root] = [0, 1, 2].map(|i| controller.chain()[i].clone());
    let make = |chain: Vec<CertificateDer<'static>>| ServerCertificate::new(chain, controller.key());
    assert!(make(vec![leaf.clone(), issuing.clone(), root.clone()]).is_ok());
    for wrong in [
        vec![],
        vec![leaf.clone()],
        vec![leaf.clone(), issuing.clone()],
        vec![leaf.clone(), root.clone()],
        vec![leaf.clone(), root.clone(), issuing.clone()],
        vec![
            leaf.clone(),
            issuing.clone(),
            Installation::new().root.certificate_der().clone(),
        ],
    ] {
        assert!(matches!(make(wrong), Err(Error::IncompleteChain)));
    }
    let other = KeyPair::generate().unwrap();
    assert!(matches!(
        ServerCertificate::new(vec![leaf, issuing, root], &other),
        Err(Error::Tls(_))
    ));
}

#[test]
fn the_private_key_is_not_in_debug() {
    let installation = Installation::new();
    let controller = installation.controller();
    let pem = controller.key().to_pem();
    let bytes = crate::pem::private_key(&pem).unwrap();
    // The private scalar of a P-256 key in PKCS #8 as it would show in a debug print of bytes.
    let scalar = format!("{:?}", &bytes[36..68]);
    for debug in [
        format!("{:?}", served(&controller)),
        format!("{:?}", listener(&installation)),
    ] {
        assert!(!debug.contains(scalar.trim_matches(['[', ']'])), "{debug}");
    }
}
