//! Requests that prove their key, and those that do not.

use proptest::prelude::*;
use rcgen::{DnType, IsCa, KeyUsagePurpose, PublicKeyData, SanType};

use super::*;

#[test]
fn a_request_proves_its_key() {
    let key = KeyPair::generate().unwrap();
    assert_eq!(verify(&create(&key).unwrap()).unwrap(), key.public_key());
}

#[test]
fn three_kinds_of_key_may_ask() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(verify(request.der()).unwrap().der(), key.subject_public_key_info());
    }
}

#[test]
fn other_kinds_of_key_may_not() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    assert!(matches!(verify(request.der()), Err(Error::Key(_))));
}

#[test]
fn names_and_extensions_in_a_request_are_of_no_account() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.subject_alt_names = vec![SanType::URI("spiffe://example.muster/user/admin".try_into().unwrap())];
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let request = params.serialize_request(&key).unwrap();
    assert_eq!(verify(request.der()).unwrap(), key.public_key());
}

#[test]
fn a_request_for_the_key_of_another_is_refused() {
    let (mine, yours) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let request = create(&mine).unwrap();
    let at = request
        .windows(91)
        .position(|window| window == mine.public_key().der())
        .unwrap();
    let mut stolen = request.clone();
    stolen[at..at + 91].copy_from_slice(yours.public_key().der());
    assert!(matches!(verify(&stolen), Err(Error::Signature)));
}

#[test]
fn a_giant_is_refused_unread_and_a_tail_too() {
    assert!(matches!(verify(&vec![0x30; MAX_BYTES + 1]), Err(Error::TooLong)));
    let mut request = create(&KeyPair::generate().unwrap()).unwrap();
    request.push(0);
    assert!(matches!(verify(&request), Err(Error::TrailingBytes)));
}

/// Extensions that a request may ask for are parsed with it, and what is in them is none of the outer shape.
fn asking(extension: &[u8], content: Vec<u8>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let oid: Vec<u64> = extension.iter().map(|part| u64::from(*part)).collect();
    params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&oid, content)];
    params
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .to_vec()
}

#[test]
fn depth_below_the_shape_overflows_no_stack() {
    let nested = |tag: u8| {
        (0..3000).fold(Vec::new(), |inner: Vec<u8>, _| {
            let length = inner.len();
            let head = match length {
                0..0x80 => vec![tag, length as u8],
                0x80..0x100 => vec![tag, 0x81, length as u8],
                _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
            };
            [head.as_slice(), &inner].concat()
        })
    };
    // A stack that is far smaller than that of any thread: what recurses with its input ends this process.
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let checked = small.spawn(move || {
        // Alternative names, constraints on names, usages, policies, and one that nobody knows.
        for id in [17, 30, 37, 32, 113] {
            for tag in [0x30, 0xa0, 0xa4] {
                let request = asking(&[2, 5, 29, id], nested(tag));
                assert!(request.len() <= MAX_BYTES);
                let _ = verify(&request);
            }
        }
        assert!(matches!(verify(&nested(0x30)), Err(Error::Shape)));
    });
    checked.unwrap().join().unwrap();
}

fn genuine() -> &'static [u8] {
    static DER: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| create(&KeyPair::generate().unwrap()).unwrap());
    &DER
}

#[test]
fn a_file_holds_a_request_in_pem_or_der() {
    let request = create(&KeyPair::generate().unwrap()).unwrap();
    let pem = crate::pem::encode_certificates([&rustls_pki_types::CertificateDer::from(request.clone())]);
    for name in ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"] {
        let file = format!("of alice\n{}", pem.replace("CERTIFICATE", name));
        assert_eq!(from_file(file.as_bytes()).unwrap(), request);
    }
    assert_eq!(from_file(&request).unwrap(), request);
    for other in [pem.as_bytes(), b"", b"\xff"] {
        assert!(matches!(from_file(other), Err(Error::NotAFile)));
    }
    assert!(matches!(from_file(&[b' '; 4 * MAX_BYTES + 1]), Err(Error::TooLong)));
}

proptest! {
    #[test]
    fn no_bytes_of_a_file_make_the_reader_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        cut in any::<prop::sample::Index>(),
    ) {
        let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
        bytes.splice(0..0, pem[..cut.index(pem.len())].bytes());
        let _ = from_file(&bytes);
    }

    #[test]
    fn no_bytes_are_a_request(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(verify(&bytes).is_err());
    }

    /// Outside of what is signed the parser may be lenient, for example about the very first byte.
    #[test]
    fn one_changed_bit_spoils_a_request_or_does_not_matter(at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut der = genuine().to_vec();
        let signed = X509CertificationRequest::from_der(genuine()).unwrap().1.certification_request_info.raw;
        let start = der.windows(signed.len()).position(|window| window == signed).unwrap();
        let key = verify(&der).unwrap();
        let at = at.index(der.len());
        der[at] ^= 1u8 << bit;
        match verify(&der) {
            Err(_) => (),
            Ok(other) => prop_assert!(other == key && !(start..start + signed.len()).contains(&at), "bit {bit} of byte {at}"),
        }
    }

    /// Whatever is in an extension of a request that is proved by its key.
    #[test]
    fn no_content_of_an_extension_makes_the_parser_panic(content in prop::collection::vec(any::<u8>(), 0..300), id in 0..64u8) {
        let request = asking(&[2, 5, 29, id], content);
        if let Ok(key) = verify(&request) {
            prop_assert_eq!(key.der().len(), 91);
        }
    }

    #[test]
    fn no_mutation_makes_the_parser_panic(
        at in any::<prop::sample::Index>(),
        removed in 0..40usize,
        inserted in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut der = genuine().to_vec();
        let at = at.index(der.len());
        let end = (at + removed).min(der.len());
        der.splice(at..end, inserted);
        if let Ok(key) = verify(&der) {
            prop_assert_eq!(key, verify(genuine()).unwrap());
        }
    }

    #[test]
    fn every_key_is_the_one_that_is_read(_ in 0..8u8) {
        let key = KeyPair::generate().unwrap();
        prop_assert_eq!(verify(&create(&key).unwrap()).unwrap(), key.public_key());
    }

    #[test]
    fn a_cut_request_is_refused(at in any::<prop::sample::Index>()) {
        prop_assert!(verify(&genuine()[..at.index(genuine().len())]).is_err());
    }
}
