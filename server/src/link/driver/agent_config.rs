//! What the inventory says of an agent, in the form that the agent gets.

use muster_proto::v1::AgentConfig;

use crate::{
    agents::Entry,
    clock::{MINUTE, Micros},
    pki::Pki,
};

/// After a change of the CA, within which all agents renew; a tenth of a certificate's life when that is less.
const RENEW_WITHIN: Micros = 10 * MINUTE;

/// `advertise`: where controllers are reached; empty: nothing is said of that.
pub(super) fn of(entry: &Entry, pki: &Pki, advertise: &[String]) -> AgentConfig {
    AgentConfig {
        name: entry.name.clone(),
        labels: entry.authoritative_labels(),
        revision: entry.revision,
        renew_after_unix_micros: renew_after(entry, pki),
        endpoints: advertise.to_vec(),
    }
}

/// When an agent shall renew that still has a certificate of the CA before: soon after the change, but not all at once.
fn renew_after(entry: &Entry, pki: &Pki) -> i64 {
    let authorities = pki.authorities();
    let active = &authorities.active().entry;
    let certificate = &entry.certificate;
    if certificate.ca == active.id || certificate.ca.is_empty() || active.activated_at == 0 {
        return 0;
    }
    let life = (certificate.not_after - certificate.issued_at).max(0);
    let spread = (life / 10).clamp(1, RENEW_WITHIN);
    let place = entry.id.uuid().as_u128() % spread.unsigned_abs() as u128;
    active.activated_at + i64::try_from(place).unwrap_or_default()
}
