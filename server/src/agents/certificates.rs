//! Which certificates of an agent count: the newest that was used, and the one that was issued after it. The first accepted
//! call with the latter supersedes the former. All others are on file only, and whoever asks for them is refused anyway.

use std::time::SystemTime;

use muster_certs::tls::{PeerCertificate, Standing};
use muster_proto::{ids::AgentId, v1::AgentStatus};

use super::{Agents, Entry, Parts};
use crate::{
    clock::Micros,
    store::{CertificateRow, FirstUse},
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    pub serial: String,
    pub not_after: Micros,
    pub issued_at: Micros,
    /// Id of the CA that issued it.
    pub ca: String,
    /// Fingerprint.
    pub public_key: String,
    /// Somebody has shown it.
    pub is_used: bool,
}

impl From<&CertificateRow> for Certificate {
    fn from(row: &CertificateRow) -> Self {
        Self {
            serial: row.serial.clone(),
            not_after: row.not_after,
            issued_at: row.created_at,
            ca: row.ca.clone(),
            public_key: row.public_key.clone(),
            is_used: row.used_at > 0,
        }
    }
}

impl Entry {
    /// A live certificate from the database; they come in the order in which they were issued.
    pub(super) fn take_certificate(&mut self, row: &CertificateRow) {
        let certificate = Certificate::from(row);
        if self.certificate.serial.is_empty() || certificate.is_used {
            self.certificate = certificate;
            self.next = None;
        } else {
            self.next = Some(certificate);
        }
    }

    /// The one of its certificates that counts and has this serial.
    pub fn certificate_of(&self, serial: &str) -> Option<&Certificate> {
        [Some(&self.certificate), self.next.as_ref()]
            .into_iter()
            .flatten()
            .find(|certificate| certificate.serial == serial && !serial.is_empty())
    }

    /// Whether it may be given certificates.
    pub fn is_trusted(&self) -> bool {
        !matches!(self.status, AgentStatus::Revoked | AgentStatus::Expected)
    }
}

impl Agents {
    /// What a certificate is worth, as far as memory tells; none: the database has to be asked why it does not count.
    pub fn standing(&self, id: AgentId, peer: &PeerCertificate, now: SystemTime) -> Option<Standing> {
        self.with(id, |entry| {
            entry.is_trusted() && entry.certificate_of(&peer.serial).is_some()
        })
        .filter(|counts| *counts)
        .map(|_| Standing::of(Some(peer), now))
    }

    /// A call with this certificate was let in.
    pub fn certificate_used(&self, id: AgentId, serial: &str, now: Micros) {
        let is_new = |entry: &Entry| match &entry.next {
            Some(next) if next.serial == serial => true,
            _ => entry.certificate.serial == serial && !entry.certificate.is_used,
        };
        if !self.with(id, is_new).unwrap_or(false) {
            return;
        }
        let mut entries = self.write();
        let Some(entry) = entries.get_mut(&id) else { return };
        let superseded = match entry.next.take_if(|next| next.serial == serial) {
            Some(next) => std::mem::replace(&mut entry.certificate, next).serial,
            None if entry.certificate.serial == serial && !entry.certificate.is_used => String::new(),
            // Somebody else was first.
            None => return,
        };
        entry.certificate.is_used = true;
        drop(entries);
        self.lock_first_uses().push(FirstUse {
            serial: serial.to_owned(),
            superseded,
            at: now,
        });
        self.mark_dirty(id, Parts::SHOWN);
    }

    /// A certificate was issued and is on file.
    pub fn certificate_issued(&self, id: AgentId, certificate: Certificate) {
        if let Some(entry) = self.write().get_mut(&id) {
            entry.next = Some(certificate);
            // As on file: whoever was readmitted has come.
            entry.readmit_until = 0;
        }
        self.mark_dirty(id, Parts::SHOWN);
    }

    pub(super) fn lock_first_uses(&self) -> std::sync::MutexGuard<'_, Vec<FirstUse>> {
        self.first_uses.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewAgent;

    fn entry() -> Entry {
        Entry::from(&NewAgent {
            id: AgentId::random(),
            name: "db-01",
            agent_labels: "{}",
            token_labels: "{}",
            version: "",
            now: 1,
            revision: 1,
        })
    }

    fn row(serial: &str, used_at: Micros) -> CertificateRow {
        CertificateRow {
            serial: serial.into(),
            agent_id: String::new(),
            not_after: 100,
            created_at: 1,
            public_key: format!("key of {serial}"),
            ca: "ca".into(),
            predecessor: String::new(),
            used_at,
            superseded_at: 0,
            revoked_at: 0,
            revoke_reason: String::new(),
        }
    }

    #[test]
    fn of_the_live_certificates_on_file_the_newest_that_was_used_counts_and_the_one_after_it() {
        // Serials with the times of their first use, in the order in which they were issued; what counts, and what waits.
        type Case = (&'static [(&'static str, Micros)], &'static str, Option<&'static str>);
        let cases: [Case; 6] = [
            (&[("a", 0)], "a", None),
            (&[("a", 5)], "a", None),
            (&[("a", 5), ("b", 0)], "a", Some("b")),
            // A crash before the end of the older one was written.
            (&[("a", 5), ("b", 6)], "b", None),
            // An agent that asked twice, and used neither.
            (&[("a", 5), ("b", 0), ("c", 0)], "a", Some("c")),
            (&[("a", 0), ("b", 0)], "a", Some("b")),
        ];
        for (rows, current, next) in cases {
            let mut entry = entry();
            for (serial, used_at) in rows {
                entry.take_certificate(&row(serial, *used_at));
            }
            assert_eq!(entry.certificate.serial, current, "{rows:?}");
            assert_eq!(entry.next.as_ref().map(|next| next.serial.as_str()), next, "{rows:?}");
        }
    }

    #[test]
    fn a_certificate_is_found_by_its_serial_and_none_by_an_empty_one() {
        let mut entry = entry();
        assert!(entry.certificate_of("").is_none(), "it has none");
        entry.take_certificate(&row("a", 5));
        entry.take_certificate(&row("b", 0));
        for (serial, key) in [
            ("a", Some("key of a")),
            ("b", Some("key of b")),
            ("c", None),
            ("", None),
        ] {
            let found = entry.certificate_of(serial).map(|it| it.public_key.as_str());
            assert_eq!(found, key, "{serial:?}");
        }
    }

    #[test]
    fn neither_an_expected_nor_a_revoked_agent_is_trusted() {
        for (status, is_trusted) in [
            (AgentStatus::Pending, true),
            (AgentStatus::Online, true),
            (AgentStatus::Late, true),
            (AgentStatus::Offline, true),
            (AgentStatus::Expected, false),
            (AgentStatus::Revoked, false),
        ] {
            let entry = Entry { status, ..entry() };
            assert_eq!(entry.is_trusted(), is_trusted, "{status:?}");
        }
    }
}
