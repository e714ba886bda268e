//! Reading certificates, whole, damaged and cut.

use proptest::prelude::*;

use super::*;
use crate::fixtures::{Installation, now};

#[test]
fn what_stands_in_a_certificate_is_read() {
    let installation = Installation::new();
    let leaf = Certificate::parse(&installation.agent().chain()[0]).unwrap();
    assert!(!leaf.is_authority() && !leaf.is_ca && !leaf.is_self_issued());
    assert!(leaf.digital_signature && leaf.client_auth && !leaf.server_auth);
    assert!(leaf.is_valid_at(now()));
    assert!(leaf.is_valid_at(leaf.not_before) && leaf.is_valid_at(leaf.not_after));
    assert!(!leaf.is_valid_at(leaf.not_before - Duration::from_secs(1)));
    assert!(!leaf.is_valid_at(leaf.not_after + Duration::from_secs(1)));

    let root = Certificate::parse(installation.root.certificate_der()).unwrap();
    assert!(root.is_authority() && root.is_self_issued());
    assert!(
        !Certificate::parse(installation.issuing.certificate_der())
            .unwrap()
            .is_self_issued()
    );
}

#[test]
fn bytes_after_a_certificate_are_refused() {
    let mut der = Installation::new().root.certificate_der().to_vec();
    der.push(0);
    assert!(matches!(Certificate::parse(&der), Err(Error::TrailingBytes)));
}

#[test]
fn a_giant_is_refused_unread() {
    assert!(matches!(
        Certificate::parse(&vec![0x30; MAX_BYTES + 1]),
        Err(Error::TooLong)
    ));
}

#[test]
fn serials_are_written_without_leading_zeros() {
    assert_eq!(serial_text(&[0, 0xab, 0]), "ab00");
    assert_eq!(serial_text(&[0]), "");
}

fn genuine() -> &'static [u8] {
    static DER: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| Installation::new().agent().chain()[0].to_vec());
    &DER
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Certificate::parse(&bytes);
    }

    #[test]
    fn no_damage_to_a_certificate_makes_the_parser_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut der = genuine().to_vec();
        for (at, byte) in damage {
            let at = at.index(der.len());
            der[at] = byte;
        }
        let _ = Certificate::parse(&der);
        der.truncate(cut.index(der.len()));
        prop_assert!(Certificate::parse(&der).is_err());
    }
}
