//! Keys and certificates: whether they can be read, and when they end. The controller's own certificate is renewed by the
//! controller and lies in no file.

use std::{fs::File, io::Read as _, time::SystemTime};

use muster_certs::{file, pem, tls::NamedCertificate};

use super::{Finding, Report, causes};
use crate::{
    clock::{self, DAY, Micros},
    config::{ApiCertificate, Config},
    pki::{Phase, Pki},
};

/// A CA that ends within this time, and a certificate that somebody else renews.
const CA_SOON: Micros = 90 * DAY;
const API_SOON: Micros = 14 * DAY;

pub(super) fn look(config: &Config, now: SystemTime, report: &mut Report) -> Option<Pki> {
    let now_micros = clock::from_system(now);
    if let Some(files) = &config.api_certificate {
        api(files, now, report);
    }
    match Pki::load(&config.pki_dir()).and_then(|pki| pki.of_domain(&config.trust_domain)) {
        Ok(pki) => {
            for authority in pki.authorities().all() {
                if authority.phase() != Phase::Retired {
                    let id = authority.id();
                    let name: String = id.chars().take(12).collect();
                    ends(
                        &format!("the issuing CA {name}"),
                        authority.not_after(),
                        now_micros,
                        CA_SOON,
                        CA,
                        report,
                    );
                    ends(
                        &format!("its root ({name})"),
                        authority.root_not_after(),
                        now_micros,
                        CA_SOON,
                        CA,
                        report,
                    );
                }
            }
            Some(pki)
        }
        Err(error) => {
            let what = format!("the keys in {} cannot be used", config.pki_dir().display());
            let finding = Finding::problem("certificates", what, causes(&error));
            report
                .add(finding.hint("run this as the user that owns them; keys that are gone come from a backup alone"));
            None
        }
    }
}

const CA: &str = "make the next one: musterctl ca prepare --yes (docs/ca.md)";

fn ends(what: &str, not_after: Micros, now: Micros, soon: Micros, advice: &str, report: &mut Report) {
    let at = clock::to_text(not_after);
    report.add(if not_after <= now {
        Finding::problem(
            "certificates",
            format!("{what} has ended"),
            format!("it was good until {at}"),
        )
        .hint(advice)
    } else if not_after - now < soon {
        let days = (not_after - now) / DAY;
        Finding::warning(
            "certificates",
            format!("{what} ends in {days} days"),
            format!("it is good until {at}"),
        )
        .hint(advice)
    } else {
        Finding::ok("certificates", format!("{what} is good until {at}"))
    });
}

fn api(files: &ApiCertificate, now: SystemTime, report: &mut Report) {
    let read = || -> Result<NamedCertificate, Box<dyn std::error::Error>> {
        let mut text = String::new();
        File::open(&files.certificate)?
            .take(pem::MAX_BYTES as u64 + 1)
            .read_to_string(&mut text)?;
        let key = file::read_secret_text(&files.key, pem::MAX_BYTES)?;
        Ok(NamedCertificate::from_pem(&text, &key, now)?)
    };
    let what = format!("the certificate {}", files.certificate.display());
    match read() {
        Ok(certificate) => ends(
            &what,
            clock::from_system(certificate.not_after),
            clock::from_system(now),
            API_SOON,
            "renew it where it comes from; a running controller reads it again by itself",
            report,
        ),
        Err(error) => report.add(
            Finding::problem("certificates", format!("{what} cannot be used"), causes(&*error))
                .hint("until it can, operators' listener shows the controller's own certificate"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_ends_soon_is_a_warning_and_what_has_ended_a_problem() {
        let level = |days: i64| {
            let mut report = Report::default();
            ends("it", (100 + days) * DAY, 100 * DAY, 90 * DAY, "renew it", &mut report);
            report.findings[0].level
        };
        assert_eq!((level(91), level(89), level(1), level(0)), {
            (Level::Ok, Level::Warning, Level::Warning, Level::Problem)
        });
    }
}
