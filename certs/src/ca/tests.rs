//! What stands in the certificates that the CA makes, and what it refuses to make.

use rcgen::PublicKeyData;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::*;
use crate::fixtures::{Installation, agent_id, forge, forge_of, now, trust_domain};

const SECOND: Duration = Duration::from_secs(1);

fn parsed(der: &CertificateDer<'static>) -> X509Certificate<'static> {
    X509Certificate::from_der(der.to_vec().leak()).unwrap().1
}

fn agent() -> Identity {
    Identity::agent(&trust_domain(), agent_id())
}

fn issue(ca: &Ca, validity: Range<SystemTime>) -> Result<Issued, Error> {
    ca.issue(&agent(), &KeyPair::generate().unwrap().public_key(), validity)
}

#[test]
fn a_leaf_is_a_spiffe_svid_and_nothing_more() {
    let Installation { issuing, .. } = Installation::new();
    let key = KeyPair::generate().unwrap();
    let issued = issuing
        .issue(&agent(), &key.public_key(), backdated(now(), AGENT_LIFETIME))
        .unwrap();
    let leaf = parsed(&issued.der);
    assert_eq!(leaf.version(), X509Version::V3);
    assert_eq!(leaf.issuer(), parsed(issuing.certificate_der()).subject());
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.public_key().raw, key.public_key().der());
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical, "the only name must be understood");
    assert_eq!(san.value.general_names.len(), 1);
    assert_eq!(Identity::from_certificate(&issued.der).unwrap(), agent());
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let mut oids = leaf
        .extensions()
        .iter()
        .map(|ext| ext.oid.to_id_string())
        .collect::<Vec<_>>();
    oids.sort();
    // Subject key id, key usage, SAN, basic constraints, authority key id, extended key usage.
    assert_eq!(
        oids,
        [
            "2.5.29.14",
            "2.5.29.15",
            "2.5.29.17",
            "2.5.29.19",
            "2.5.29.35",
            "2.5.29.37"
        ]
    );
    leaf.verify_signature(Some(parsed(issuing.certificate_der()).public_key()))
        .unwrap();
}

#[test]
fn controllers_serve_and_agents_and_users_connect() {
    let installation = Installation::new();
    let usage = |der: &[u8]| {
        let certificate = Certificate::parse(der).unwrap();
        (certificate.server_auth, certificate.client_auth)
    };
    assert_eq!(usage(&installation.controller().chain()[0]), (true, false));
    assert_eq!(usage(&installation.agent().chain()[0]), (false, true));
    assert_eq!(usage(&installation.user("oncall").chain()[0]), (false, true));
}

#[test]
fn a_ca_may_sign_certificates_and_names_its_trust_domain_only() {
    let Installation { root, issuing } = Installation::new();
    for (ca, path_len) in [(&root, None), (&issuing, Some(0))] {
        let certificate = parsed(ca.certificate_der());
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, path_len);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 1 << 5 | 1 << 6, "keyCertSign and cRLSign");
        assert!(certificate.extended_key_usage().unwrap().is_none());
        assert_eq!(
            Certificate::parse(ca.certificate_der()).unwrap().uris,
            ["spiffe://example.muster"]
        );
        certificate
            .verify_signature(Some(parsed(root.certificate_der()).public_key()))
            .unwrap();
    }
    assert!(root.is_root() && !issuing.is_root());
    assert_ne!(
        parsed(root.certificate_der()).subject(),
        parsed(issuing.certificate_der()).subject()
    );
}

#[test]
fn lifetimes_start_in_the_past_and_end_as_planned() {
    let Installation { root, issuing } = Installation::new();
    assert_eq!(root.certificate.not_before, now() - BACKDATE);
    assert_eq!(root.not_after(), now() + ROOT_LIFETIME);
    assert_eq!(issuing.certificate.not_before, now() - BACKDATE);
    assert_eq!(issuing.not_after(), now() + ISSUING_LIFETIME);
    let issued = issue(&issuing, backdated(now(), AGENT_LIFETIME)).unwrap();
    assert_eq!(
        (issued.not_before, issued.not_after),
        (now() - BACKDATE, now() + AGENT_LIFETIME)
    );
}

#[test]
fn what_is_reported_of_a_certificate_is_what_stands_in_it() {
    let Installation { issuing, .. } = Installation::new();
    let half = Duration::from_millis(500);
    let issued = issue(&issuing, now() + half..now() + AGENT_LIFETIME + half).unwrap();
    let leaf = Certificate::parse(&issued.der).unwrap();
    assert_eq!(
        (leaf.serial, leaf.not_before, leaf.not_after),
        (issued.serial.clone(), issued.not_before, issued.not_after)
    );
    assert_eq!(issued.not_before, now());
    assert_eq!(issued.serial.len(), 32);
}

#[test]
fn serials_differ_even_for_one_key() {
    let Installation { issuing, .. } = Installation::new();
    let key = KeyPair::generate().unwrap().public_key();
    let serial = || {
        issuing
            .issue(&agent(), &key, backdated(now(), AGENT_LIFETIME))
            .unwrap()
            .serial
    };
    let serials = (0..50).map(|_| serial()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(serials.len(), 50);
    assert!(
        serials
            .iter()
            .all(|serial| serial.len() == 32 && serial.starts_with(['4', '5', '6', '7'])),
        "{serials:?}"
    );
}

#[test]
fn nothing_outlives_the_ca_above_it() {
    let Installation { root, issuing } = Installation::new();
    let issued = issue(&issuing, now()..now() + ROOT_LIFETIME).unwrap();
    assert_eq!(issued.not_after, issuing.not_after());
    let issued = issue(&issuing, now() - ROOT_LIFETIME..now() + SECOND).unwrap();
    assert_eq!(issued.not_before, issuing.certificate.not_before);
    let late = Ca::create_issuing(&root, root.not_after() - AGENT_LIFETIME).unwrap();
    assert_eq!(late.not_after(), root.not_after());
}

#[test]
fn a_ca_that_has_run_out_issues_nothing() {
    let Installation { root, issuing } = Installation::new();
    let after = issuing.not_after() + BACKDATE + SECOND;
    assert!(matches!(
        issue(&issuing, backdated(after, AGENT_LIFETIME)),
        Err(Error::Validity)
    ));
    let after = root.not_after() + BACKDATE + SECOND;
    assert!(matches!(Ca::create_issuing(&root, after), Err(Error::Validity)));
}

#[test]
fn an_empty_or_unwritable_validity_is_refused() {
    let Installation { issuing, .. } = Installation::new();
    assert!(matches!(issue(&issuing, now()..now()), Err(Error::Validity)));
    assert!(matches!(issue(&issuing, now() + SECOND..now()), Err(Error::Validity)));
    let never = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 1);
    assert!(matches!(issue(&issuing, now()..never), Err(Error::Validity)));
    assert!(matches!(
        issue(&issuing, SystemTime::UNIX_EPOCH - SECOND..now()),
        Err(Error::Validity)
    ));
    assert!(Ca::create_root(&trust_domain(), never).is_err());
}

#[test]
fn a_ca_issues_for_its_own_trust_domain_only() {
    let Installation { issuing, .. } = Installation::new();
    let foreign = Identity::agent(&"other.muster".parse().unwrap(), Uuid::nil());
    let key = KeyPair::generate().unwrap().public_key();
    let error = issuing
        .issue(&foreign, &key, backdated(now(), AGENT_LIFETIME))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the CA of trust domain example.muster does not issue for {foreign}")
    );
}

#[test]
fn the_root_issues_cas_and_the_issuing_ca_leaves() {
    let Installation { root, issuing } = Installation::new();
    assert!(matches!(
        issue(&root, backdated(now(), AGENT_LIFETIME)),
        Err(Error::RootIssuesNoLeaves)
    ));
    assert!(matches!(Ca::create_issuing(&issuing, now()), Err(Error::NotARoot)));
}

#[test]
fn a_loaded_ca_issues_like_the_one_that_was_saved() {
    let Installation { root, issuing } = Installation::new();
    let again = Ca::load(&issuing.certificate_pem(), &issuing.key_pem()).unwrap();
    assert_eq!(again.certificate_der(), issuing.certificate_der());
    assert_eq!(again.trust_domain(), &trust_domain());
    let issued = issue(&again, backdated(now(), AGENT_LIFETIME)).unwrap();
    parsed(&issued.der)
        .verify_signature(Some(parsed(issuing.certificate_der()).public_key()))
        .unwrap();
    assert_eq!(
        parsed(&issued.der).issuer(),
        parsed(issuing.certificate_der()).subject()
    );
    assert!(Ca::load(&root.certificate_pem(), &root.key_pem()).unwrap().is_root());
}

#[test]
fn a_ca_is_not_loaded_with_the_key_of_another() {
    let Installation { root, issuing } = Installation::new();
    assert!(matches!(
        Ca::load(&issuing.certificate_pem(), &root.key_pem()),
        Err(Error::KeyMismatch)
    ));
}

#[test]
fn a_leaf_or_a_chain_is_not_loaded_as_a_ca() {
    let installation = Installation::new();
    let agent = installation.agent();
    let leaf = pem::encode_certificates(&agent.chain()[..1]);
    assert!(matches!(
        Ca::load(&leaf, &agent.key().to_pem()),
        Err(Error::NotAnAuthority)
    ));
    let chain = pem::encode_certificates(&agent.chain()[1..]);
    assert!(matches!(
        Ca::load(&chain, &installation.issuing.key_pem()),
        Err(Error::Pem(_))
    ));
    // CA:TRUE alone does not make one.
    let key = KeyPair::generate().unwrap();
    let half = forge(
        &forge_of(&installation.root),
        &key,
        &["spiffe://example.muster"],
        |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        },
    );
    let half = pem::encode_certificates([&half]);
    assert!(matches!(Ca::load(&half, &key.to_pem()), Err(Error::NotAnAuthority)));
}

#[test]
fn a_ca_without_a_trust_domain_is_not_loaded() {
    let root = forge_of(&Installation::new().root);
    let key = KeyPair::generate().unwrap();
    let load = |uris: &[&str]| {
        let der = forge(&root, &key, uris, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        });
        Ca::load(&pem::encode_certificates([&der]), &key.to_pem())
    };
    assert!(load(&["spiffe://example.muster"]).is_ok());
    for uris in [
        &[] as &[_],
        &["https://example.com"],
        &["spiffe://example.muster/path"],
        &["spiffe://a", "spiffe://b"],
    ] {
        assert!(matches!(load(uris), Err(Error::TrustDomain(_))), "{uris:?}");
    }
}

#[test]
fn keys_of_every_accepted_kind_are_certified() {
    let Installation { issuing, .. } = Installation::new();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let spki = rcgen::KeyPair::generate_for(algorithm)
            .unwrap()
            .subject_public_key_info();
        let key = PublicKey::from_der(&spki).unwrap();
        let issued = issuing.issue(&agent(), &key, backdated(now(), AGENT_LIFETIME)).unwrap();
        assert_eq!(Certificate::parse(&issued.der).unwrap().public_key_der, spki);
    }
}

#[test]
fn the_ca_key_is_not_in_debug() {
    let root = Installation::new().root;
    let pem = root.key_pem();
    let body = pem.lines().nth(1).unwrap();
    let debug = format!("{root:?}");
    assert!(!debug.contains(body) && !debug.contains("pkcs8"), "{debug}");
}
