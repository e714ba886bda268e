//! Keys and the kinds of key that are accepted.

use super::*;

#[test]
fn a_key_survives_being_written_and_read() {
    let key = KeyPair::generate().unwrap();
    let again = KeyPair::from_pem(&key.to_pem()).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert_eq!(again.to_pem(), key.to_pem());
}

#[test]
fn the_private_key_is_not_in_debug() {
    let key = KeyPair::generate().unwrap();
    let debug = format!("{key:?}");
    assert!(
        debug.starts_with("KeyPair { public_key: PublicKey(P256, sha256:"),
        "{debug}"
    );
    assert!(debug.len() < 200, "{debug}");
}

#[test]
fn two_keys_are_never_the_same() {
    assert_ne!(
        KeyPair::generate().unwrap().public_key(),
        KeyPair::generate().unwrap().public_key()
    );
}

#[test]
fn three_kinds_of_public_key_are_taken() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let spki = rcgen::KeyPair::generate_for(algorithm)
            .unwrap()
            .subject_public_key_info();
        let key = PublicKey::from_der(&spki).unwrap();
        assert_eq!(key.der(), spki);
        assert_eq!(key.subject_public_key_info(), spki);
        assert_eq!(key.algorithm(), algorithm);
    }
}

#[test]
fn other_keys_and_other_encodings_are_refused() {
    let p521 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512)
        .unwrap()
        .subject_public_key_info();
    assert!(PublicKey::from_der(&p521).is_err());

    let good = KeyPair::generate().unwrap().public_key().der().to_vec();
    assert!(PublicKey::from_der(&good[..good.len() - 1]).is_err());
    assert!(PublicKey::from_der(&[good.as_slice(), &[0]].concat()).is_err());
    let mut compressed = good.clone();
    compressed[Kind::P256.prefix().len()] = 2;
    assert!(PublicKey::from_der(&compressed).is_err());
    assert!(PublicKey::from_der(&[]).is_err());
    assert!(PublicKey::from_der(Kind::Ed25519.prefix()).is_err());
}

#[test]
fn a_key_of_another_kind_is_not_an_identity_key() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        assert!(matches!(KeyPair::from_pem(&pem), Err(Error::PrivateKey)));
    }
    assert!(matches!(
        KeyPair::from_pem(""),
        Err(Error::Pem(pem::Error::NoPrivateKey))
    ));
}
