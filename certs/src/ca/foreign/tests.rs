use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as AnyKey,
    KeyUsagePurpose,
};

use super::*;
use crate::fixtures::{DAY, agent_id, now, trust_domain};

/// A CA of somebody else's, by a tool that knows nothing of ours.
struct Theirs {
    der: CertificateDer<'static>,
    params: CertificateParams,
    key: AnyKey,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + DAY * 900).into();
    params.use_authority_key_identifier_extension = true;
    params
}

impl Theirs {
    fn root(name: &str) -> Theirs {
        let (params, key) = (params(name), AnyKey::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Theirs { der, params, key }
    }

    fn below(&self, name: &str, key: AnyKey, spoil: impl FnOnce(&mut CertificateParams)) -> Theirs {
        let mut params = params(name);
        spoil(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        Theirs { der, params, key }
    }
}

fn read(chain: &[&CertificateDer<'static>], key: &str) -> Result<Chain, Error> {
    let text = pem::encode_certificates(chain.iter().copied());
    Chain::read(&trust_domain(), &text, key, now())
}

/// What a person reads of it.
fn refusal(chain: &[&CertificateDer<'static>], key: &str) -> String {
    let error = read(chain, key).expect_err("it was taken");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn with(spoil: impl FnOnce(&mut CertificateParams)) -> (Theirs, Theirs) {
    let root = Theirs::root("Example Root CA");
    let issuing = root.below("Example Fleet CA", AnyKey::generate().unwrap(), spoil);
    (root, issuing)
}

#[test]
fn a_ca_of_another_pki_issues_identities_whatever_its_key_is() {
    let root = Theirs::root("Example Root CA");
    let middle = root.below("Example Middle CA", AnyKey::generate().unwrap(), |_| ());
    let id = Identity::agent(&trust_domain(), agent_id());
    for (kind, key) in [
        ("P-256", AnyKey::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)),
        ("P-384", AnyKey::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)),
        ("Ed25519", AnyKey::generate_for(&rcgen::PKCS_ED25519)),
        (
            "RSA",
            AnyKey::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
        ),
    ] {
        let issuing = middle.below("Example Fleet CA", key.unwrap(), |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        });
        // In any order behind the issuing one.
        let chain = read(&[&issuing.der, &root.der, &middle.der], &issuing.key.serialize_pem())
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(chain.intermediates, std::slice::from_ref(&middle.der), "{kind}");
        assert_eq!(chain.root, root.der, "{kind}");
        assert!(chain.cross.is_empty(), "{kind}");
        let key = KeyPair::generate().unwrap().public_key();
        let issued = chain.issuing.issue(&id, &key, backdated(now(), DAY)).unwrap();
        assert_eq!(Identity::from_certificate(&issued.der).unwrap(), id, "{kind}");
        assert!(is_signed_by(&issued.der, &issuing.der), "{kind}");
        // As it lies on disk afterwards.
        let all = [issuing.der.clone(), middle.der.clone(), root.der.clone()];
        let again = Ca::load_foreign(&all, &chain.issuing.key_pem(), &trust_domain()).unwrap();
        assert_eq!(again.id(), chain.issuing.id(), "{kind}");
    }
}

#[test]
fn what_a_ca_issues_ends_with_the_first_that_ends_above_it() {
    let root = Theirs::root("Example Root CA");
    let middle = root.below("Example Middle CA", AnyKey::generate().unwrap(), |params| {
        params.not_after = (now() + DAY * 10).into();
    });
    let issuing = middle.below("Example Fleet CA", AnyKey::generate().unwrap(), |_| ());
    let chain = read(&[&issuing.der, &middle.der, &root.der], &issuing.key.serialize_pem()).unwrap();
    assert_eq!(chain.issuing.not_after(), now() + DAY * 10);
    let key = KeyPair::generate().unwrap().public_key();
    let id = Identity::agent(&trust_domain(), agent_id());
    let issued = chain.issuing.issue(&id, &key, now()..now() + DAY * 365).unwrap();
    assert_eq!(issued.not_after, now() + DAY * 10);
}

#[test]
fn other_certificates_of_the_root_are_taken_along_and_strangers_are_not() {
    let (root, issuing) = with(|_| ());
    let older = Theirs::root("Example Older Root CA");
    let cross = Issuer::from_params(&older.params, &older.key);
    let cross = root.params.signed_by(&root.key, &cross).unwrap().der().clone();
    let key = issuing.key.serialize_pem();
    let chain = read(&[&issuing.der, &cross, &root.der], &key).unwrap();
    assert_eq!((chain.root, chain.cross), (root.der.clone(), vec![cross]));
    let text = refusal(&[&issuing.der, &root.der, &older.der], &key);
    assert!(text.contains("Older Root") && text.contains("no place"), "{text}");
}

#[test]
fn our_root_can_speak_for_one_of_another_pki() {
    let (root, issuing) = with(|_| ());
    let ours = Ca::create_root(&trust_domain(), now()).unwrap();
    let cross = ours.cross_sign_foreign(&root.der, now()).unwrap();
    let chain = read(&[&issuing.der, &root.der, &cross], &issuing.key.serialize_pem()).unwrap();
    assert_eq!(chain.cross, std::slice::from_ref(&cross));
    let key = KeyPair::generate().unwrap().public_key();
    let identity = Identity::controller(&trust_domain(), "controller1").unwrap();
    let leaf = chain.issuing.issue(&identity, &key, backdated(now(), DAY)).unwrap();
    let way = [issuing.der.clone(), cross];
    tls::verify_server(&leaf.der, &way, ours.certificate_der(), now()).unwrap();
    assert!(tls::verify_server(&leaf.der, &way[..1], ours.certificate_der(), now()).is_err());
    // Only roots are spoken for.
    assert!(ours.cross_sign_foreign(&issuing.der, now()).is_err());
}

#[test]
fn each_mistake_is_told_with_the_certificate_that_has_it() {
    let says = |spoil: fn(&mut CertificateParams), words: &[&str]| {
        let (root, issuing) = with(spoil);
        let text = refusal(&[&issuing.der, &root.der], &issuing.key.serialize_pem());
        for word in words {
            assert!(text.contains(word), "'{word}' is not in: {text}");
        }
    };
    says(
        |params| params.is_ca = IsCa::ExplicitNoCa,
        &["Example Fleet CA", "CA:TRUE"],
    );
    says(
        |params| params.key_usages = vec![KeyUsagePurpose::CrlSign],
        &["Example Fleet CA", "keyCertSign"],
    );
    says(
        |params| params.not_after = (now() + DAY * 6).into(),
        &["Example Fleet CA", "7 days"],
    );
    says(
        |params| {
            params.not_before = (now() + DAY).into();
        },
        &["Example Fleet CA", "clock"],
    );
    says(
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
        &["would not be accepted"],
    );

    let (root, issuing) = with(|_| ());
    let (key, root_key) = (issuing.key.serialize_pem(), root.key.serialize_pem());
    let text = refusal(&[&issuing.der], &key);
    assert!(
        text.contains("CN=Example Root CA") && text.contains("missing"),
        "{text}"
    );
    let text = refusal(&[&issuing.der, &root.der], &root_key);
    assert!(text.contains("Fleet CA") && text.contains("does not belong"), "{text}");
    let text = refusal(&[&root.der], &root_key);
    assert!(text.contains("is a root"), "{text}");
    let namesake = Theirs::root("Example Root CA");
    let text = refusal(&[&issuing.der, &namesake.der], &key);
    assert!(text.contains("not signed"), "{text}");

    let narrow = root.below("Example Narrow CA", AnyKey::generate().unwrap(), |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let deep = narrow.below("Example Fleet CA", AnyKey::generate().unwrap(), |_| ());
    let text = refusal(&[&deep.der, &narrow.der, &root.der], &deep.key.serialize_pem());
    assert!(text.contains("Narrow CA") && text.contains("pathlen"), "{text}");
}

#[test]
fn keys_are_read_as_other_tools_write_them_and_never_shown() {
    let (root, issuing) = with(|_| ());
    let secret = issuing.key.serialize_pem();
    let chain = read(&[&issuing.der, &root.der], &secret).unwrap();
    let line = secret.lines().nth(1).unwrap();
    assert!(!format!("{chain:?}").contains(line));

    let text = refusal(&[&issuing.der, &root.der], "");
    assert!(text.contains("no private key"), "{text}");
    let text = refusal(
        &[&issuing.der, &root.der],
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    assert!(text.contains("openssl pkey"), "{text}");
    let text = refusal(&[&issuing.der, &root.der], &format!("{secret}{secret}"));
    assert!(text.contains("more than one"), "{text}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(chain in ".*", key in ".*", noise in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        let _ = Chain::read(&trust_domain(), &chain, &key, now());
        let der = CertificateDer::from(noise);
        let _ = Chain::read(&trust_domain(), &pem::encode_certificates([&der]), &key, now());
    }
}
