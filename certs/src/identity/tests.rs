//! The one strict form of an identity, and what else it might be taken for.

mod svid;

use proptest::prelude::*;

use super::*;
use crate::fixtures::{self, Installation, agent_id, forge, forge_of, trust_domain};
use crate::key::KeyPair;

const AGENT: &str = "spiffe://example.muster/agent/7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";

#[test]
fn an_identity_is_written_as_its_uri() {
    let td = trust_domain();
    assert_eq!(Identity::agent(&td, agent_id()).to_string(), AGENT);
    assert_eq!(
        Identity::controller(&td, "c-1.fra_A").unwrap().to_string(),
        "spiffe://example.muster/controller/c-1.fra_A"
    );
    assert_eq!(
        Identity::user(&td, "oncall").unwrap().to_string(),
        "spiffe://example.muster/user/oncall"
    );
}

#[test]
fn only_the_one_strict_form_of_an_identity_is_read() {
    let wrong = [
        "",
        "spiffe://",
        "SPIFFE://example.muster/user/a",
        "https://example.muster/user/a",
        "spiffe://Example.muster/user/a",
        "spiffe:///user/a",
        "spiffe://example.muster",
        "spiffe://example.muster/",
        "spiffe://example.muster/user",
        "spiffe://example.muster/user/",
        "spiffe://example.muster/user/a/",
        "spiffe://example.muster/user/a/b",
        "spiffe://example.muster//user/a",
        "spiffe://example.muster/user/.",
        "spiffe://example.muster/user/..",
        "spiffe://example.muster/user/a b",
        "spiffe://example.muster/user/a%20b",
        "spiffe://example.muster/user/ä",
        "spiffe://example.muster/user/a?x",
        "spiffe://example.muster/user/a#x",
        "spiffe://example.muster:8443/user/a",
        "spiffe://someone@example.muster/user/a",
        "spiffe://example.muster/User/a",
        "spiffe://example.muster/node/a",
        " spiffe://example.muster/user/a",
        "spiffe://example.muster/user/a\n",
        "spiffe://example.muster/agent/web-01",
        "spiffe://example.muster/agent/7D0C51C2-9F0E-4B57-A3A1-5E1F0C7B8D21",
        "spiffe://example.muster/agent/7d0c51c29f0e4b57a3a15e1f0c7b8d21",
        "spiffe://example.muster/agent/{7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21}",
        "spiffe://example.muster/agent/urn:uuid:7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21",
    ];
    for text in wrong {
        assert!(text.parse::<Identity>().is_err(), "{text:?} was read");
    }
}

#[test]
fn lengths_are_bounded() {
    let td = |n| format!("spiffe://{}/user/a", "d".repeat(n)).parse::<Identity>();
    assert!(td(255).is_ok() && matches!(td(256), Err(Error::TrustDomain)));
    let name = |n| format!("spiffe://example.muster/user/{}", "n".repeat(n)).parse::<Identity>();
    assert!(name(253).is_ok() && matches!(name(254), Err(Error::Name)));
    assert!(matches!(name(MAX_BYTES), Err(Error::TooLong)));
}

#[test]
fn a_certificate_states_its_identity_by_exactly_one_uri() {
    let installation = Installation::new();
    assert_eq!(
        Identity::from_certificate(&installation.agent().chain()[0])
            .unwrap()
            .to_string(),
        AGENT
    );

    let issuer = forge_of(&installation.issuing);
    let key = KeyPair::generate().unwrap();
    let of = |uris: &[&str]| Identity::from_certificate(&forge(&issuer, &key, uris, |_| ()));
    assert!(matches!(of(&[]), Err(Error::UriCount(0))));
    assert!(matches!(of(&[AGENT, AGENT]), Err(Error::UriCount(2))));
    assert!(matches!(of(&[AGENT, "https://example.com/"]), Err(Error::UriCount(2))));
    assert!(matches!(of(&["https://example.com/"]), Err(Error::NotSpiffe)));
    let with_dns = forge(&issuer, &key, &[AGENT], |params| {
        params
            .subject_alt_names
            .push(rcgen::SanType::DnsName("host.example.com".try_into().unwrap()));
    });
    assert_eq!(Identity::from_certificate(&with_dns).unwrap().to_string(), AGENT);
}

#[test]
fn a_ca_certificate_has_no_identity() {
    let root = fixtures::Installation::new().root;
    assert!(matches!(
        Identity::from_certificate(root.certificate_der()),
        Err(Error::Kind)
    ));
}

fn identities() -> impl Strategy<Value = Identity> {
    let td = "[a-z0-9._-]{1,40}".prop_map(|text| text.parse::<TrustDomain>().unwrap());
    let name = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,40}";
    prop_oneof![
        (td.clone(), any::<u128>()).prop_map(|(td, id)| Identity::agent(&td, Uuid::from_u128(id))),
        (td.clone(), name).prop_map(|(td, name)| Identity::controller(&td, &name).unwrap()),
        (td, name).prop_map(|(td, name)| Identity::user(&td, &name).unwrap()),
    ]
}

proptest! {
    #[test]
    fn every_identity_survives_being_written_and_read(identity in identities()) {
        prop_assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
    }

    #[test]
    fn what_is_read_is_written_back_the_same(text in "(spiffe://)?[a-zA-Z./:{}-]{0,12}/(agent|user|controller)?/?\\PC{0,40}") {
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = text.parse::<Identity>();
        let _ = format!("spiffe://{text}").parse::<Identity>();
        let _ = format!("spiffe://a/agent/{text}").parse::<Identity>();
    }
}
