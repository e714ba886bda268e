//! Revocation lists: which certificates of a CA no longer count, for programs that verify them without asking the controller.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use crate::ca::Ca;

/// How long a list is good: whoever has one looks for the next within that time.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not a serial")]
    Serial(String),
    #[error("failed to make a revocation list")]
    Create(#[from] rcgen::Error),
}

/// A list in DER, signed by the CA. `revoked` are serials as they are written here, with the time of each; `number` grows with
/// every list.
pub fn create(ca: &Ca, revoked: &[(String, SystemTime)], number: u64, now: SystemTime) -> Result<Vec<u8>, Error> {
    let revoked_certs = revoked.iter().map(|(serial, at)| {
        Ok(RevokedCertParams {
            serial_number: SerialNumber::from(bytes(serial)?),
            revocation_time: (*at).into(),
            reason_code: None,
            invalidity_date: None,
        })
    });
    let params = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + LIFETIME).into(),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect::<Result<_, Error>>()?,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(ca.issuer())?.der().to_vec())
}

fn bytes(serial: &str) -> Result<Vec<u8>, Error> {
    let wrong = || Error::Serial(serial.to_owned());
    if serial.is_empty() || !serial.len().is_multiple_of(2) || !serial.is_ascii() {
        return Err(wrong());
    }
    (0..serial.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&serial[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

    use super::*;
    use crate::ca::Ca;

    #[test]
    fn a_list_names_what_is_revoked_and_is_signed_by_its_ca() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let root = Ca::create_root(&"example.muster".parse().unwrap(), now).unwrap();
        let ca = Ca::create_issuing(&root, now).unwrap();
        let serial = "4f8feb8efd2bfc1f6c5277835f511c00".to_owned();
        let der = create(&ca, &[(serial.clone(), now - Duration::from_secs(60))], 7, now).unwrap();
        let (rest, list) = CertificateRevocationList::from_der(&der).unwrap();
        assert!(rest.is_empty());
        let revoked: Vec<String> = list
            .iter_revoked_certificates()
            .map(|it| it.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        assert_eq!(revoked, [serial]);
        assert_eq!(list.last_update().timestamp(), 1_800_000_000);
        let (_, issuer) = x509_parser::parse_x509_certificate(ca.certificate_der()).unwrap();
        list.verify_signature(issuer.public_key()).unwrap();
        assert!(
            list.verify_signature(
                x509_parser::parse_x509_certificate(root.certificate_der())
                    .unwrap()
                    .1
                    .public_key()
            )
            .is_err()
        );
    }

    #[test]
    fn an_empty_list_is_a_list_and_what_is_no_serial_is_refused() {
        let now = SystemTime::now();
        let root = Ca::create_root(&"example.muster".parse().unwrap(), now).unwrap();
        let ca = Ca::create_issuing(&root, now).unwrap();
        create(&ca, &[], 1, now).unwrap();
        for wrong in ["", "0", "zz", "\u{e9}\u{e9}"] {
            assert!(create(&ca, &[(wrong.to_owned(), now)], 1, now).is_err(), "{wrong:?}");
        }
    }
}
