//! The SPIFFE standards rule by rule: SPIFFE-ID sections 2.1 to 2.3 on names; X509-SVID sections 2 to 5 on the certificates
//! that we issue, read by a parser that is not ours, and on those that we take from a peer.

use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::*;
use crate::ca::Ca;
use crate::fixtures::DAY;
use crate::tls::peer_certificate;

fn read(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

/// The URIs and the number of other names.
fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, usize) {
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    let uris: Vec<_> = names
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect();
    let others = names.general_names.len() - uris.len();
    (uris, others)
}

fn leaves() -> Vec<(IdentityOf, Vec<u8>)> {
    let installation = Installation::new();
    vec![
        (IdentityOf::Client, installation.agent().chain()[0].to_vec()),
        (IdentityOf::Client, installation.user("oncall").chain()[0].to_vec()),
        (IdentityOf::Server, installation.controller().chain()[0].to_vec()),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum IdentityOf {
    Client,
    Server,
}

/// X509-SVID 2 and 4.1, SPIFFE-ID 2.
#[test]
fn a_leaf_has_exactly_one_uri_and_it_is_an_identity_with_a_path() {
    for (_, der) in leaves() {
        let (uris, others) = names(&read(&der));
        assert_eq!((uris.len(), others), (1, 0), "{uris:?}");
        let identity: Identity = uris[0].parse().unwrap();
        assert_eq!(identity.to_string(), uris[0]);
        assert!(uris[0].starts_with("spiffe://example.muster/"), "{}", uris[0]);
    }
}

/// RFC 5280, 4.2.1.6: with an empty subject the alternative name is critical.
#[test]
fn a_leaf_has_no_other_name_and_says_that_its_uri_counts() {
    for (_, der) in leaves() {
        let certificate = read(&der);
        assert_eq!(certificate.subject().iter().count(), 0);
        assert!(certificate.subject_alternative_name().unwrap().unwrap().critical);
    }
}

/// X509-SVID 4.1 and 4.3: not a CA; digitalSignature, and neither keyCertSign nor cRLSign; key usage is critical. 4.4: with an
/// extended key usage, that of its side.
#[test]
fn a_leaf_signs_for_itself_and_for_nobody_else() {
    for (side, der) in leaves() {
        let certificate = read(&der);
        let constraints = certificate.basic_constraints().unwrap();
        assert!(constraints.is_none_or(|constraints| !constraints.value.ca));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        // Bit 0 is digitalSignature, and nothing else is set.
        assert_eq!(usage.value.flags, 1, "{:?}", usage.value);
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!(extended.client_auth, side == IdentityOf::Client);
        assert_eq!(extended.server_auth, side == IdentityOf::Server);
        assert!(!extended.any && !extended.code_signing && extended.other.is_empty());
    }
}

/// X509-SVID 3.1 and 4.3 on signing certificates: CA:TRUE, keyCertSign, a name of the trust domain without a path, and no
/// digitalSignature.
#[test]
fn a_signing_certificate_is_a_ca_of_the_trust_domain_and_no_identity() {
    let installation = Installation::new();
    for (ca, path_len) in [(&installation.root, None), (&installation.issuing, Some(0))] {
        let certificate = read(ca.certificate_der());
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, path_len);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
        assert_eq!(names(&certificate), (vec!["spiffe://example.muster".to_owned()], 0));
        assert!(certificate.extended_key_usage().unwrap().is_none());
        assert!(
            peer_certificate(Some(&[ca.certificate_der().clone()])).is_err(),
            "a CA is no peer"
        );
    }
}

/// Extensions that other tools would have to understand, and may not.
#[test]
fn no_certificate_has_a_critical_extension_that_the_standard_does_not_name() {
    let installation = Installation::new();
    let authorities = [&installation.root, &installation.issuing].map(|ca| ca.certificate_der().to_vec());
    for der in leaves().into_iter().map(|(_, der)| der).chain(authorities) {
        for extension in read(&der).extensions().iter().filter(|extension| extension.critical) {
            assert!(
                matches!(
                    extension.parsed_extension(),
                    ParsedExtension::BasicConstraints(_)
                        | ParsedExtension::KeyUsage(_)
                        | ParsedExtension::SubjectAlternativeName(_)
                ),
                "{:?}",
                extension.oid
            );
        }
    }
}

/// Sections 2.1 and 2.2 of the SPIFFE ID, with what the standard gives as examples.
#[test]
fn a_trust_domain_is_lower_case_without_port_user_or_escapes() {
    for good in ["a", "example.muster", "1.2.3.4", "a-b_c.d", &"d".repeat(255)] {
        assert_eq!(good.parse::<TrustDomain>().unwrap().as_str(), good);
    }
    let wrong = [
        "",
        "Example",
        "EXAMPLE",
        "example.muster:443",
        "user@example",
        "user:pass@example",
        "ex%41mple",
        "ex ample",
        "example/",
        "example?",
        "example#",
        "[::1]",
        "exämple",
        "xn--exmple-cua!",
        "example.muster\0",
        "a\nb",
        "ex\u{200b}ample",
        &"d".repeat(256),
    ];
    for text in wrong {
        assert!(text.parse::<TrustDomain>().is_err(), "{text:?}");
    }
}

#[test]
fn a_path_has_no_empty_or_relative_segment_no_escape_and_no_end_in_a_slash() {
    for tail in [
        "", "/", "//", "/.", "/..", "/./a", "/../a", "/a/", "/a//b", "/a/../b", "/%61", "/a%2fb", "/a?b", "/a#b",
        "/a:b", "/a@b", "/a;b", "/a b", "/\u{e4}", "/a\0", "/~a", "/a+b", "/a=b",
    ] {
        for kind in ["user", "controller", "agent"] {
            let text = format!("spiffe://example.muster/{kind}{tail}");
            assert!(text.parse::<Identity>().is_err(), "{text:?}");
        }
    }
}

/// What is taken from a peer, after its chain is good: sections 2 to 5, each rule broken on its own.
#[test]
fn a_certificate_that_breaks_one_rule_is_no_peer() {
    type Spoil = fn(&mut CertificateParams);
    let issuer = forge_of(&Installation::new().issuing);
    let key = KeyPair::generate().unwrap();
    let peer = |uris: &[&str], spoil: Spoil| peer_certificate(Some(&[forge(&issuer, &key, uris, spoil)]));
    assert_eq!(peer(&[AGENT], |_| ()).unwrap().unwrap().identity.to_string(), AGENT);

    let rules: [(&str, Spoil); 5] = [
        ("CA:TRUE", |params| {
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)
        }),
        ("keyCertSign", |params| {
            params.key_usages.push(KeyUsagePurpose::KeyCertSign)
        }),
        ("cRLSign", |params| params.key_usages.push(KeyUsagePurpose::CrlSign)),
        ("no digitalSignature", |params| {
            params.key_usages = vec![KeyUsagePurpose::KeyAgreement]
        }),
        ("no key usage", |params| params.key_usages.clear()),
    ];
    for (rule, spoil) in rules {
        assert!(peer(&[AGENT], spoil).is_err(), "{rule}");
    }
    let twice: [&[&str]; 4] = [
        &[],
        &[AGENT, AGENT],
        &[AGENT, "spiffe://example.muster/user/a"],
        &["https://a/"],
    ];
    for uris in twice {
        assert!(peer(uris, |_| ()).is_err(), "{uris:?}");
    }
    let others: [Spoil; 2] = [
        |params| params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())],
        |params| {
            params.subject_alt_names = vec![SanType::Rfc822Name(
                "spiffe://example.muster/user/a".try_into().unwrap(),
            )]
        },
    ];
    for spoil in others {
        assert!(peer(&[AGENT], spoil).is_err());
    }
    // Extended key usage is optional there (4.4), and asked for by the listeners of ours.
    let without: Spoil = |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    assert!(peer(&[AGENT], without).is_ok());
}

/// The longest identity there is fits into what the standard lets one count on.
#[test]
fn the_longest_identity_is_issued_and_read() {
    let domain: TrustDomain = "d".repeat(255).parse().unwrap();
    let root = Ca::create_root(&domain, fixtures::now()).unwrap();
    let issuing = Ca::create_issuing(&root, fixtures::now()).unwrap();
    let identity = Identity::user(&domain, &"n".repeat(253)).unwrap();
    assert!(identity.to_string().len() <= MAX_BYTES);
    let validity = fixtures::now()..fixtures::now() + DAY + Duration::from_secs(1);
    let issued = issuing
        .issue(&identity, &KeyPair::generate().unwrap().public_key(), validity)
        .unwrap();
    assert_eq!(Identity::from_certificate(&issued.der).unwrap(), identity);
}

proptest! {
    /// Bytes where a certificate should be, and a certificate with one part changed.
    #[test]
    fn no_bytes_make_the_reader_of_a_certificate_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Identity::from_certificate(&bytes).is_err());
    }

    #[test]
    fn no_mutation_of_a_certificate_makes_its_reader_panic(
        at in any::<prop::sample::Index>(),
        removed in 0..30usize,
        inserted in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        static LEAF: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| Installation::new().agent().chain()[0].to_vec());
        let mut der = LEAF.clone();
        let at = at.index(der.len());
        let end = (at + removed).min(der.len());
        der.splice(at..end, inserted);
        if let Ok(identity) = Identity::from_certificate(&der) {
            prop_assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        }
    }

    /// One other character is another identity or none.
    #[test]
    fn one_changed_character_makes_another_identity_or_none(at in any::<prop::sample::Index>(), other in any::<char>()) {
        let mut text: Vec<char> = AGENT.chars().collect();
        let at = at.index(text.len());
        prop_assume!(text[at] != other);
        text[at] = other;
        let text: String = text.into_iter().collect();
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
            prop_assert_ne!(identity.to_string(), AGENT);
        }
    }

    #[test]
    fn longer_texts_are_refused_unread(name in MAX_BYTES..8 * MAX_BYTES) {
        let text = format!("spiffe://example.muster/user/{}", "n".repeat(name));
        prop_assert!(matches!(text.parse::<Identity>(), Err(Error::TooLong)));
    }
}
