//! The listener of operators with a certificate of the web PKI beside the controller's own.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as AnyKey,
    KeyUsagePurpose,
};

use super::*;
use crate::pem;

/// A web PKI with one server.
struct Web {
    root: CertificateDer<'static>,
    leaf: CertificateDer<'static>,
    chain: String,
    key: String,
}

fn web(hosts: &[&str], spoil: impl FnOnce(&mut CertificateParams)) -> Web {
    let key = AnyKey::generate().unwrap();
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "Web Root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_der = root.self_signed(&key).unwrap().der().clone();
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + DAY).into();
    spoil(&mut params);
    let leaf_key = AnyKey::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let leaf = params
        .signed_by(&leaf_key, &Issuer::new(root, key))
        .unwrap()
        .der()
        .clone();
    Web {
        chain: pem::encode_certificates([&leaf]),
        key: leaf_key.serialize_pem(),
        root: root_der,
        leaf,
    }
}

fn named(web: &Web) -> Result<NamedCertificate, NamedError> {
    NamedCertificate::from_pem(&web.chain, &web.key, now())
}

fn leaf_of(handshake: &Handshake) -> CertificateDer<'static> {
    assert!(handshake.is_complete(), "{handshake:?}");
    handshake.client.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn operators_of_either_trust_find_the_certificate_that_they_know() {
    let installation = Installation::new();
    let controller = installation.controller();
    let certificate = ApiCertificate::new(&served(&controller));
    let server = api_listener(&certificate, &clients(&installation.issuers()), &trust_domain()).unwrap();
    let user = installation.user("oncall");
    let own = operator(&installation.roots(), &trust_domain(), Some(&user)).unwrap();
    let web = web(&["203.0.113.7", "muster.example.com"], |_| ());
    let by_name = operator_by_name(std::slice::from_ref(&web.root), Some(&user)).unwrap();

    assert_eq!(leaf_of(&handshake(&own, &server)), controller.chain()[0]);
    assert!(handshake(&by_name, &server).client_result.is_err(), "not set yet");

    let certificate_named = named(&web).unwrap();
    assert_eq!(certificate_named.hosts, ["203.0.113.7", "muster.example.com"]);
    certificate.set_named(certificate_named);
    assert_eq!(leaf_of(&handshake(&own, &server)), controller.chain()[0]);
    let met = handshake(&by_name, &server);
    assert_eq!(leaf_of(&met), web.leaf);
    assert_eq!(met.peer().unwrap().serial, user.serial(), "the user is known there too");
    // Who says nothing of whom it knows, as browsers do, finds the one with host names.
    let roots = anchors(std::slice::from_ref(&web.root)).unwrap();
    let browser = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_eq!(leaf_of(&handshake(&browser, &server)), web.leaf);
}

#[test]
fn a_certificate_for_another_host_is_refused_by_name() {
    let installation = Installation::new();
    let certificate = ApiCertificate::new(&served(&installation.controller()));
    let web = web(&["other.example.com"], |_| ());
    certificate.set_named(named(&web).unwrap());
    let server = api_listener(&certificate, &clients(&installation.issuers()), &trust_domain()).unwrap();
    let client = operator_by_name(std::slice::from_ref(&web.root), None).unwrap();
    let text = handshake(&client, &server).client_text();
    assert!(text.contains("203.0.113.7"), "{text}");
    assert!(matches!(operator_by_name(&[], None), Err(Error::NoTrust)));
}

#[test]
fn agents_do_not_tell_the_network_which_cas_they_know() {
    let installation = Installation::new();
    let name = installation.root.certificate_der();
    let subject = certificate::Certificate::parse(name).unwrap().subject;
    let hello = |config: &Arc<ClientConfig>| {
        let mut client = ClientConnection::new(config.clone(), server_name("controller")).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes.windows(subject.len()).any(|window| window == subject)
    };
    let agent = link(&installation.roots(), &trust_domain(), &installation.agent()).unwrap();
    assert!(!hello(&agent));
    assert!(hello(&operator(&installation.roots(), &trust_domain(), None).unwrap()));
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let says = |web: &Web, word: &str| {
        let error = named(web).expect_err("it was taken").to_string();
        assert!(error.contains(word), "'{word}' is not in: {error}");
    };
    let good = || web(&["muster.example.com"], |_| ());
    says(&web(&[], |_| ()), "no host");
    says(
        &web(&["muster.example.com"], |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
        "that of a CA",
    );
    says(
        &web(&["muster.example.com"], |params| {
            params.not_after = (now() - std::time::Duration::from_secs(1)).into();
        }),
        "has ended",
    );
    let (one, other) = (good(), good());
    says(&Web { key: other.key, ..one }, "does not belong");
    let one = good();
    let twice = format!("{}{}", one.chain, one.chain);
    says(&Web { chain: twice, ..one }, "certificate 2");
    says(
        &Web {
            key: String::new(),
            ..good()
        },
        "key cannot be read",
    );
    says(
        &Web {
            chain: String::new(),
            ..good()
        },
        "certificate cannot be read",
    );
}
