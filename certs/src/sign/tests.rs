//! Signatures, and each way to spoil one.

use proptest::prelude::*;

use super::*;
use crate::key::KeyPair;

const TYPE: &str = "muster.v1/Check";

#[test]
fn the_encoding_is_that_of_the_standard() {
    // The example of the DSSE protocol text.
    assert_eq!(
        pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn a_signature_holds_for_exactly_these_bytes_of_this_type() {
    let key = SigningKey::generate().unwrap();
    let public = key.public_key_der();
    let signature = key.sign(TYPE, b"payload");
    assert!(verify(&public, TYPE, b"payload", &signature).is_ok());
    assert!(matches!(
        verify(&public, TYPE, b"payloae", &signature),
        Err(Error::Signature)
    ));
    assert!(matches!(
        verify(&public, "muster.v1/Job", b"payload", &signature),
        Err(Error::Signature)
    ));
    // The border between type and payload cannot be moved.
    assert!(matches!(
        verify(&public, "muster.v1/Chec", b"kpayload", &signature),
        Err(Error::Signature)
    ));
    assert!(matches!(
        verify(&public, TYPE, b"payload", &signature[..63]),
        Err(Error::Signature)
    ));
    assert!(matches!(verify(&public, TYPE, b"payload", &[]), Err(Error::Signature)));
    let other = SigningKey::generate().unwrap().public_key_der();
    assert!(matches!(
        verify(&other, TYPE, b"payload", &signature),
        Err(Error::Signature)
    ));
}

#[test]
fn only_an_ed25519_key_verifies() {
    let p256 = KeyPair::generate().unwrap().public_key();
    assert!(matches!(verify(p256.der(), TYPE, b"", &[0; 64]), Err(Error::PublicKey)));
    assert!(matches!(verify(&[], TYPE, b"", &[0; 64]), Err(Error::PublicKey)));
}

#[test]
fn a_signing_key_survives_being_written_and_read() {
    let key = SigningKey::generate().unwrap();
    let again = SigningKey::from_pem(&key.to_pem()).unwrap();
    assert_eq!(again.key_id(), key.key_id());
    // Ed25519 is deterministic.
    assert_eq!(again.sign(TYPE, b"x"), key.sign(TYPE, b"x"));
    let p256 = KeyPair::generate().unwrap().to_pem();
    assert!(matches!(SigningKey::from_pem(&p256), Err(Error::PrivateKey)));
}

#[test]
fn the_private_key_is_not_in_debug() {
    let key = SigningKey::generate().unwrap();
    assert_eq!(
        format!("{key:?}"),
        format!("SigningKey {{ key_id: {:?}, .. }}", key.key_id())
    );
}

/// RFC 8032, section 7.1, test 1 gives the key pair; the signature was made with: openssl pkeyutl -sign -rawin.
#[test]
fn keys_and_signatures_are_those_of_other_tools() {
    let pem = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    let key = SigningKey::from_pem(pem).unwrap();
    assert_eq!(
        fingerprint::hex(&key.public_key_der()),
        "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
    assert_eq!(*key.to_pem(), pem);
    assert_eq!(
        fingerprint::hex(&key.sign("http://example.com/HelloWorld", b"hello world")),
        "e031d7dd99f8aa904abc48fb99a13c3bdbbd6e35c49cf2cb9f25d5509d8f5c947c0d22dc2f7403a45bdf24e8f7a41fd23c7b25e898386e8c6c31be8abee60007"
    );
}

proptest! {
    #[test]
    fn one_changed_bit_spoils_a_signature(
        payload in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let key = SigningKey::generate().unwrap();
        let signature = key.sign(TYPE, &payload);
        let public = key.public_key_der();
        prop_assert!(verify(&public, TYPE, &payload, &signature).is_ok());
        let mut tampered = payload.clone();
        tampered[at.index(payload.len())] ^= 1u8 << bit;
        prop_assert!(verify(&public, TYPE, &tampered, &signature).is_err());
        let mut tampered = signature.clone();
        tampered[at.index(signature.len())] ^= 1u8 << bit;
        prop_assert!(verify(&public, TYPE, &payload, &tampered).is_err());
    }

    #[test]
    fn two_different_envelopes_never_have_one_encoding(
        a in ("[ a-z0-9]{0,6}", prop::collection::vec(any::<u8>(), 0..6)),
        b in ("[ a-z0-9]{0,6}", prop::collection::vec(any::<u8>(), 0..6)),
    ) {
        let same = pre_authentication_encoding(&a.0, &a.1) == pre_authentication_encoding(&b.0, &b.1);
        prop_assert_eq!(same, a == b);
    }
}
