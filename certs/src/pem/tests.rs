//! PEM texts with what belongs in them, and with what does not.

use proptest::prelude::*;

use super::*;
use crate::fixtures::Installation;
use crate::key::KeyPair;

#[test]
fn certificates_survive_being_written_and_read() {
    let chain = Installation::new().agent().chain().to_vec();
    let text = encode_certificates(&chain);
    assert_eq!(certificates(&text).unwrap(), chain);
    assert_eq!(text.matches("-----BEGIN CERTIFICATE-----\n").count(), 3);
    assert!(text.lines().all(|line| line.len() <= 64));
}

#[test]
fn text_around_certificates_is_passed_over() {
    let pem = Installation::new().root.certificate_pem();
    assert_eq!(
        certificates(&format!("# the root\n\n{pem}\nthat was it\n"))
            .unwrap()
            .len(),
        1
    );
    assert_eq!(certificates(&pem.replace('\n', "\r\n")).unwrap().len(), 1);
}

#[test]
fn a_private_key_among_ca_certificates_is_noticed() {
    let key = KeyPair::generate().unwrap().to_pem();
    let pem = Installation::new().root.certificate_pem();
    assert!(matches!(
        certificates(&format!("{pem}{}", *key)),
        Err(Error::Unexpected("private key"))
    ));
    assert!(matches!(
        private_key(&format!("{pem}{}", *key)),
        Err(Error::Unexpected("certificate"))
    ));
}

#[test]
fn what_is_missing_or_too_many_is_named() {
    let key = KeyPair::generate().unwrap().to_pem();
    let pem = Installation::new().root.certificate_pem();
    assert!(matches!(certificates("no pem at all"), Err(Error::NoCertificate)));
    assert!(matches!(private_key(""), Err(Error::NoPrivateKey)));
    assert!(matches!(
        private_key(&format!("{0}{0}", *key)),
        Err(Error::TooManyPrivateKeys)
    ));
    assert!(matches!(
        certificates(&pem.repeat(MAX_CERTIFICATES + 1)),
        Err(Error::TooManyCertificates)
    ));
    assert!(matches!(certificates(&" ".repeat(MAX_BYTES + 1)), Err(Error::TooLong)));
    let sec1 = key.replace("PRIVATE KEY", "EC PRIVATE KEY");
    assert!(matches!(private_key(&sec1), Err(Error::NoPrivateKey)));
    let request = pem.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    assert!(matches!(certificates(&request), Err(Error::Unexpected(_))));
    assert!(matches!(
        certificates(&pem.replace("-----END", "-----AND")),
        Err(Error::Malformed(_))
    ));
}

proptest! {
    #[test]
    fn every_length_of_key_survives_and_fills_its_buffer_exactly(der in prop::collection::vec(any::<u8>(), 1..400)) {
        let text = encode_private_key(&der);
        prop_assert_eq!(text.capacity(), text.len());
        prop_assert_eq!(&*private_key(&text).unwrap(), &der);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), tail in "[A-Za-z0-9+/=\n -]{0,200}") {
        let _ = sections(&text);
        let _ = sections(&format!("-----BEGIN CERTIFICATE-----\n{tail}\n-----END CERTIFICATE-----\n"));
        let _ = sections(&format!("-----BEGIN PRIVATE KEY-----\n{text}{tail}"));
    }
}
