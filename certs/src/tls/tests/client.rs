//! Whom agents and operators take for a controller.

use std::io;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::*;
use crate::certificate::Certificate;
use crate::fixtures::{forge, forge_of};

const CONTROLLER: &str = "spiffe://example.muster/controller/controller1";

fn pin(der: &[u8]) -> Pin {
    Pin::of_certificate(der).unwrap()
}

fn untrusted() -> &'static str {
    "the server's certificate does not come from a CA that is trusted here"
}

#[test]
fn a_pin_of_any_ca_in_the_chain_is_enough() {
    let installation = Installation::new();
    let other: Pin = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    for ca in [&installation.root, &installation.issuing] {
        for pins in [vec![pin(ca.certificate_der())], vec![other, pin(ca.certificate_der())]] {
            let client = enrolling(&pins, &[]).unwrap();
            assert_eq!(handshake(&client, &listener(&installation)).peer(), None);
        }
    }
}

#[test]
fn a_given_ca_is_as_good_as_a_pin() {
    let installation = Installation::new();
    for given in [installation.roots(), installation.issuers()] {
        assert!(handshake(&enrolling(&[], &given).unwrap(), &listener(&installation)).is_complete());
    }
    let other = [pin(Installation::new().root.certificate_der())];
    let either = enrolling(&other, &installation.roots()).unwrap();
    assert!(handshake(&either, &listener(&installation)).is_complete());
    let neither = enrolling(&other, &Installation::new().roots()).unwrap();
    assert!(
        handshake(&neither, &listener(&installation))
            .client_text()
            .contains("pin")
    );
    let no_pin = enrolling(&[], &Installation::new().roots()).unwrap();
    let text = handshake(&no_pin, &listener(&installation)).client_text();
    assert!(text.starts_with(untrusted()), "{text}");
}

#[test]
fn a_pin_mismatch_names_the_pins_that_were_served() {
    let installation = Installation::new();
    let wanted = root_pin(&Installation::new());
    let handshake = handshake(&enrolling(&[wanted], &[]).unwrap(), &listener(&installation));
    let (issuing, root) = (pin(installation.issuing.certificate_der()), root_pin(&installation));
    let subject = Certificate::try_from(installation.root.certificate_der())
        .unwrap()
        .subject_text();
    assert_eq!(
        handshake.client_text(),
        format!(
            "no CA that the server shows has a pin that was given (given: {wanted}; shown: {issuing}, {root}); its chain \
             ends at \"{subject}\", issued by \"{subject}\""
        )
    );
    assert!(handshake.server_result.is_err(), "the client says why it leaves");
}

#[test]
fn a_pin_of_the_leaf_is_refused() {
    let installation = Installation::new();
    let controller = installation.controller();
    let server = agent_listener(&served(&controller), &clients(&installation.issuers()), &trust_domain()).unwrap();
    let leaf = pin(&controller.chain()[0]);
    let text = handshake(&enrolling(&[leaf], &[]).unwrap(), &server).client_text();
    assert!(text.starts_with("no CA that the server shows has a pin"), "{text}");
    assert!(
        !text.rsplit("shown").next().unwrap().contains(&leaf.to_string()),
        "{text}"
    );
    // The same leaf once more among the CAs is no CA either.
    let chain = [controller.chain(), &controller.chain()[..1]].concat();
    let text = handshake(&enrolling(&[leaf], &[]).unwrap(), &serving(chain, controller.key())).client_text();
    assert!(text.starts_with("no CA that the server shows has a pin"), "{text}");
}

#[test]
fn a_pinned_ca_that_is_merely_shown_proves_nothing() {
    let (ours, attacker) = (Installation::new(), Installation::new());
    // A genuine root, which anybody can copy, below a chain of the attacker's own.
    let controller = attacker.controller();
    let chain = [controller.chain(), &ours.roots(), &ours.issuers()].concat();
    let server = serving(chain, controller.key());
    for ca in [&ours.root, &ours.issuing] {
        let client = enrolling(&[pin(ca.certificate_der())], &[]).unwrap();
        let text = handshake(&client, &server).client_text();
        assert!(text.starts_with(untrusted()), "{text}");
    }
}

#[test]
fn the_pinned_key_under_the_attackers_name_proves_nothing() {
    let (ours, attacker) = (Installation::new(), Installation::new());
    let controller = attacker.controller();
    // A CA certificate with our root's public key and the name of the attacker's issuing CA.
    let root_key = KeyPair::from_pem(&ours.root.key_pem()).unwrap().public_key();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = {
        let (_, issuing) = x509_parser::parse_x509_certificate(&controller.chain()[1]).unwrap();
        let name = issuing.subject().iter_common_name().next().unwrap().as_str().unwrap();
        let mut subject = rcgen::DistinguishedName::new();
        subject.push(rcgen::DnType::OrganizationName, "Muster");
        subject.push(rcgen::DnType::CommonName, name);
        subject
    };
    let bait = params
        .signed_by(&root_key, &forge_of(&attacker.root))
        .unwrap()
        .der()
        .clone();
    assert_eq!(pin(&bait), root_pin(&ours));
    let chain = vec![controller.chain()[0].clone(), bait];
    let text = handshake(
        &enrolling(&[root_pin(&ours)], &[]).unwrap(),
        &serving(chain, controller.key()),
    )
    .client_text();
    assert!(text.contains("BadSignature"), "{text}");
}

#[test]
fn a_controllers_certificate_without_its_key_is_refused() {
    let installation = Installation::new();
    let thief = serving(
        installation.controller().chain().to_vec(),
        &KeyPair::generate().unwrap(),
    );
    let agent = installation.agent();
    for client in [
        enrolling(&[root_pin(&installation)], &[]).unwrap(),
        enrolling(&[], &installation.roots()).unwrap(),
        link(&installation.roots(), &trust_domain(), &agent).unwrap(),
        operator(&installation.roots(), &trust_domain(), None).unwrap(),
    ] {
        let text = handshake(&client, &thief).client_text();
        assert!(text.contains("BadSignature"), "{text}");
    }
}

#[test]
fn a_box_that_inspects_tls_is_told_from_a_controller_by_the_issuer_that_is_seen() {
    let ours = Installation::new();
    // What such a box does: a CA of its own, and a leaf for every host that somebody connects to.
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = rcgen::CertificateParams::default();
    ca.distinguished_name = rcgen::DistinguishedName::new();
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "Example\u{1b}[2J \u{202e}Inspection CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = ca.self_signed(&ca_key).unwrap().der().clone();
    let leaf = forge(&rcgen::Issuer::new(ca, ca_key), &key, &[], |params| {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "muster.example.com");
    });
    for (chain, top) in [
        (vec![leaf.clone(), root], "CN=Example[2J Inspection CA"),
        (vec![leaf], "CN=muster.example.com"),
    ] {
        let server = serving(chain, &key);
        for client in [
            enrolling(&[root_pin(&ours)], &[]).unwrap(),
            enrolling(&[], &ours.roots()).unwrap(),
            link(&ours.roots(), &trust_domain(), &ours.agent()).unwrap(),
            operator(&ours.roots(), &trust_domain(), None).unwrap(),
        ] {
            let handshake = handshake(&client, &server);
            let seen = seen(handshake.client_result.as_ref().unwrap_err()).unwrap();
            assert!(!seen.is_muster);
            assert_eq!((&*seen.subject, &*seen.issuer), (top, "CN=Example[2J Inspection CA"));
            let text = handshake.client_text();
            let told = format!("its chain ends at \"{top}\", issued by \"CN=Example[2J Inspection CA\"");
            assert!(text.ends_with(&told), "{text}");
        }
    }
}

#[test]
fn a_foreign_controller_is_refused() {
    let (ours, foreign) = (Installation::new(), Installation::new());
    let client = link(&ours.roots(), &trust_domain(), &ours.agent()).unwrap();
    let handshake = handshake(&client, &listener(&foreign));
    assert!(handshake.client_text().starts_with(untrusted()), "{handshake:?}");
    let seen = seen(handshake.client_result.as_ref().unwrap_err()).unwrap();
    assert!(seen.is_muster, "{seen}");
}

#[test]
fn a_controller_of_another_trust_domain_is_refused() {
    let other = Installation::of(&"other.muster".parse().unwrap());
    let controller = other.controller();
    let server = serving(controller.chain().to_vec(), controller.key());
    // The roots are right, and yet.
    let client = operator(&other.roots(), &trust_domain(), None).unwrap();
    assert_eq!(
        handshake(&client, &server).client_text(),
        "the server is spiffe://other.muster/controller/controller1, and trust domain example.muster was expected"
    );
    assert!(handshake(&enrolling(&[root_pin(&other)], &[]).unwrap(), &server).is_complete());
}

#[test]
fn only_a_controller_is_taken_for_one() {
    let installation = Installation::new();
    let issuer = forge_of(&installation.issuing);
    let key = KeyPair::generate().unwrap();
    let clients = [
        enrolling(&[root_pin(&installation)], &[]).unwrap(),
        link(&installation.roots(), &trust_domain(), &installation.agent()).unwrap(),
    ];
    let assert_text = |uris: &[&str], spoil: fn(&mut rcgen::CertificateParams), text: &str| {
        let server = serving(installation.chain(forge(&issuer, &key, uris, spoil)), &key);
        for client in &clients {
            assert_eq!(handshake(client, &server).client_text(), text);
        }
    };
    let agent = "spiffe://example.muster/agent/7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    assert_text(
        &[agent],
        |_| (),
        &format!("the server is {agent}, which is not a controller"),
    );
    let user = "spiffe://example.muster/user/controller";
    assert_text(
        &[user],
        |_| (),
        &format!("the server is {user}, which is not a controller"),
    );
    let unreadable = "failed to read the identity in the peer's certificate";
    assert_text(&[CONTROLLER, user], |_| (), unreadable);
    assert_text(&["spiffe://example.muster/controller"], |_| (), unreadable);
    assert_text(
        &[CONTROLLER],
        |params| params.extended_key_usages.clear(),
        "the server's certificate is not one of a server",
    );
    assert_text(
        &[CONTROLLER],
        |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign),
        "the peer shows the certificate of a CA as its own",
    );
    // And without a spoilt spot it is one.
    let server = serving(installation.chain(forge(&issuer, &key, &[CONTROLLER], |_| ())), &key);
    assert!(
        clients
            .iter()
            .all(|client| handshake(client, &server).client_result.is_ok())
    );
}

#[test]
fn an_agents_certificate_does_not_serve() {
    let installation = Installation::new();
    let agent = installation.agent();
    let server = serving(agent.chain().to_vec(), agent.key());
    let client = link(&installation.roots(), &trust_domain(), &agent).unwrap();
    let handshake = handshake(&client, &server);
    assert!(matches!(
        handshake.client_result,
        Err(rustls::Error::InvalidCertificate(
            rustls::CertificateError::InvalidPurposeContext { .. }
        ))
    ));
    let key = KeyPair::generate().unwrap();
    let only_client = forge(&forge_of(&installation.issuing), &key, &[CONTROLLER], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let server = serving(installation.chain(only_client), &key);
    assert!(super::handshake(&client, &server).client_result.is_err());
}

#[test]
fn a_leaf_does_not_act_as_a_ca() {
    let installation = Installation::new();
    let agent = installation.agent();
    let agent_key = KeyPair::from_pem(&agent.key().to_pem()).unwrap();
    let by_leaf = rcgen::Issuer::from_ca_cert_der(&agent.chain()[0], agent_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let forged = forge(&by_leaf, &key, &[CONTROLLER], |_| ());
    let server = serving([vec![forged], agent.chain().to_vec()].concat(), &key);
    for client in [
        enrolling(&[root_pin(&installation)], &[]).unwrap(),
        operator(&installation.roots(), &trust_domain(), None).unwrap(),
    ] {
        assert!(handshake(&client, &server).client_result.is_err());
    }
}

#[test]
fn an_expired_controller_is_refused_with_the_time() {
    let installation = Installation::new();
    let client = operator(&installation.roots(), &trust_domain(), None).unwrap();
    let late = now() + DAY * 31;
    assert_eq!(
        handshake_at(&client, late, &listener(&installation), late).client_text(),
        "the server's certificate was good until 2027-02-14T08:00:00Z, and the clock of this machine says 2027-02-15T08:00:00Z"
    );
    let early = now() - DAY;
    assert_eq!(
        handshake_at(&client, early, &listener(&installation), now()).client_text(),
        "the server's certificate is good from 2027-01-15T06:00:00Z, and the clock of this machine says 2027-01-14T08:00:00Z"
    );
}

#[test]
fn an_overlong_chain_is_refused_unread() {
    let installation = Installation::new();
    let controller = installation.controller();
    let mut chain = controller.chain().to_vec();
    chain.extend(std::iter::repeat_n(installation.root.certificate_der().clone(), 14));
    let client = operator(&installation.roots(), &trust_domain(), None).unwrap();
    assert_eq!(
        handshake(&client, &serving(chain, controller.key())).client_text(),
        "the server shows a chain of more than 16 certificates"
    );
}

#[test]
fn a_server_of_tls_1_2_is_refused() {
    let installation = Installation::new();
    let controller = installation.controller();
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Shows::new(controller.chain().to_vec(), controller.key()));
    let client = operator(&installation.roots(), &trust_domain(), None).unwrap();
    assert_eq!(
        handshake(&client, &server).client_text(),
        "the other side does not speak TLS 1.3"
    );
}

#[test]
fn a_ticket_is_never_used_again() {
    let installation = Installation::new();
    let mut server = (*listener(&installation)).clone();
    server.send_tls13_tickets = 2;
    server.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    let agent = installation.agent();
    for client in [
        enrolling(&[root_pin(&installation)], &[]).unwrap(),
        link(&installation.roots(), &trust_domain(), &agent).unwrap(),
    ] {
        for _ in 0..2 {
            let handshake = handshake(&client, &server);
            assert!(
                handshake.client.tls13_tickets_received() > 0,
                "the server offers to resume"
            );
            assert_eq!(handshake.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
}

#[test]
fn a_plain_text_server_is_recognized() {
    let client = enrolling(&[root_pin(&Installation::new())], &[]).unwrap();
    let mut client = ClientConnection::new(client, server_name("localhost")).unwrap();
    client.read_tls(&mut &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]).unwrap();
    let error = client.process_new_packets().unwrap_err();
    assert_eq!(
        describe(&error).unwrap(),
        "the other side does not speak TLS; is it the right port?"
    );
}

#[test]
fn the_cause_is_found_however_deep_it_lies() {
    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Transport(#[source] io::Error);

    let cause = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    let wrapped = Transport(io::Error::other(io::Error::new(io::ErrorKind::InvalidData, cause)));
    assert_eq!(describe(&wrapped).unwrap(), untrusted());
    assert_eq!(describe(&Transport(io::Error::other("reset"))), None);
    let broken_off = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/";
    let text = describe(&Transport(io::Error::new(io::ErrorKind::UnexpectedEof, broken_off))).unwrap();
    assert!(text.contains("broke off") && !text.contains("docs.rs"), "{text}");
    assert_eq!(describe(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);

    let told = |alert| Transport(io::Error::other(rustls::Error::AlertReceived(alert)));
    assert!(is_refusal(&told(rustls::AlertDescription::UnknownCA)));
    assert!(!is_refusal(&told(rustls::AlertDescription::InternalError)));
    assert!(!is_refusal(&wrapped), "it is this side that refuses");
    let as_text = |text| Transport(io::Error::new(io::ErrorKind::InvalidData, text));
    assert!(
        is_refusal(&as_text("received fatal alert: UnknownCA")),
        "as HTTP/2 tells it"
    );
    assert!(!is_refusal(&as_text("received fatal alert: InternalError")));
}
