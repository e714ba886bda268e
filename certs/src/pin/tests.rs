//! Pins as they are written and computed.

use proptest::prelude::*;

use super::*;
use crate::fixtures::Installation;

#[test]
fn a_pin_is_of_the_key_not_of_the_certificate() {
    let root = Installation::new().root;
    let key = crate::key::KeyPair::from_pem(&root.key_pem()).unwrap();
    assert_eq!(
        Pin::of_certificate(root.certificate_der()).unwrap().to_string(),
        key.public_key().fingerprint()
    );
}

/// Made with: openssl req -x509 -newkey ed25519 -nodes -subj /CN=x -days 1; the pin with: openssl x509 -pubkey -noout |
/// openssl pkey -pubin -outform der | sha256sum
#[test]
fn a_pin_is_what_openssl_makes_of_it() {
    let pem = "\
-----BEGIN CERTIFICATE-----
MIIBLDCB36ADAgECAhQa8Hm5h4MC3PGabnpM/OK4avkaTjAFBgMrZXAwDDEKMAgG
A1UEAwwBeDAeFw0yNjExMjAyMzMyMTRaFw0yNjExMjEyMzMyMTRaMAwxCjAIBgNV
BAMMAXgwKjAFBgMrZXADIQDru0V54PsGejwdjmH5/sXVoIPMs26SuTxHdybxfQwx
rqNTMFEwHQYDVR0OBBYEFEhINWStYYMo9FS3e3J+41GqOQH7MB8GA1UdIwQYMBaA
FEhINWStYYMo9FS3e3J+41GqOQH7MA8GA1UdEwEB/wQFMAMBAf8wBQYDK2VwA0EA
dZzGLn/v/qGcCJ+N8obHPVQjWJBzO4bIS34GWTTrutlJhC/In7mYe5k/lFoNEN5/
p5N4Wa7wxNn5oC+n7t2JCA==
-----END CERTIFICATE-----
";
    let der = crate::pem::certificates(pem).unwrap().remove(0);
    assert_eq!(
        Pin::of_certificate(&der).unwrap().to_string(),
        "sha256:7eb3e0ba68d3be93c6c50623058bb73a906292158b58edd19c32daffb0308c26"
    );
}

#[test]
fn only_sha256_and_64_digits_is_a_pin() {
    let digits = "0123456789abcdef".repeat(4);
    assert_eq!(
        format!("sha256:{digits}").parse::<Pin>().unwrap().to_string(),
        format!("sha256:{digits}")
    );
    let upper = format!("sha256:{}", digits.to_uppercase());
    assert_eq!(upper.parse::<Pin>().unwrap().to_string(), format!("sha256:{digits}"));
    for wrong in [
        String::new(),
        "sha256:".to_owned(),
        digits.clone(),
        format!("sha1:{digits}"),
        format!("SHA256:{digits}"),
        format!("sha256:{digits}0"),
        format!("sha256:{}", &digits[1..]),
        format!("sha256: {digits}"),
        format!("sha256:{digits}\n"),
        format!("sha256:{}", digits.replace('a', "g")),
    ] {
        assert!(wrong.parse::<Pin>().is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn every_pin_survives_being_written_and_read(bytes in any::<[u8; 32]>()) {
        prop_assert_eq!(Pin(bytes).to_string().parse::<Pin>().unwrap(), Pin(bytes));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        prop_assert!(text.parse::<Pin>().is_err());
        let _ = format!("sha256:{text}").parse::<Pin>();
    }
}
