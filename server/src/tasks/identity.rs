//! Looks after identities: ephemeral agents that stayed away are deleted, certificates that are not renewed in time, clocks that
//! are wrong and CAs that near their end become events, and what has ended long ago is forgotten.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use muster_proto::{
    ids::AgentId,
    v1::{AgentStatus, EventSeverity},
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    agents::{Ending, Entry},
    api_keys::ApiKeys,
    clock::{self, DAY, Micros, SECOND},
    events::{self, Event},
    fleet::Fleet,
    idempotency,
    pki::{Phase, Pki},
    store::Db,
    telemetry::Telemetry,
    users::Users,
};

const EVERY: Duration = Duration::from_secs(20);
/// Agents that are deleted in one round; the next goes on.
const DELETIONS: usize = 100;
/// A certificate that has lived this part of its life, in percent, should have been renewed long ago.
const LATE: i64 = 75;
/// A clock that is further off than this is worth a word, and one that is nearer than half of it is right again.
const SKEW: Micros = 5 * SECOND;
/// A CA that ends within this time.
const CA_SOON: Micros = 90 * DAY;
/// How long certificates and tokens stay on file after their end, beside the grace.
const KEEP: Micros = 90 * DAY;

/// What the task works with.
#[derive(Clone, Debug)]
pub struct Deps {
    pub db: Db,
    pub fleet: Fleet,
    pub pki: Arc<Pki>,
    pub telemetry: Telemetry,
    pub users: Arc<Users>,
    pub api_keys: Arc<ApiKeys>,
    pub grace: Micros,
    /// How long the ids of deleted agents stay taken.
    pub keep_deleted: Micros,
}

/// What was told already.
#[derive(Debug, Default)]
struct Told {
    /// Serials of certificates that are late.
    late: BTreeSet<String>,
    skewed: BTreeSet<AgentId>,
    /// Ids of CAs, and the day on which it was told.
    cas: BTreeSet<(String, i64)>,
}

pub async fn run(deps: Deps, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        round(&deps, &mut told, clock::now()).await;
    }
}

async fn round(deps: &Deps, told: &mut Told, now: Micros) {
    let mut notices = Vec::new();
    let (mut late, mut skewed, mut gone) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    deps.fleet.agents.each(|entry| {
        if is_late(entry, now) {
            late.insert(entry.certificate.serial.clone());
            if !told.late.contains(&entry.certificate.serial) {
                notices.push(late_event(entry, now));
            }
        }
        if let Some(skew) = skew(entry, told.skewed.contains(&entry.id)) {
            skewed.insert(entry.id);
            if !told.skewed.contains(&entry.id) {
                notices.push(skew_event(entry, skew, now));
            }
        }
        if is_gone(entry, now) && gone.len() < DELETIONS {
            gone.push(entry.id);
        }
    });
    deps.telemetry.identity(late.len(), skewed.len());
    (told.late, told.skewed) = (late, skewed);
    notices.extend(cas(deps, told, now));
    if !notices.is_empty() {
        events::record(&deps.db, notices).await;
    }
    for id in gone {
        let ending = Ending {
            by: "the controller",
            reason: "ephemeral, and away for too long",
        };
        match deps.fleet.delete(id, 0, ending, now).await {
            Ok(()) => info!(agent.id = %id, "an ephemeral agent was away for too long and is deleted"),
            Err(error) => warn!(agent.id = %id, error = &error as &dyn std::error::Error, "failed to delete an agent"),
        }
    }
    let trimmed = async {
        deps.db.agent_certificate_trim(now - deps.grace - KEEP).await?;
        deps.users.trim(now - KEEP, now).await?;
        deps.api_keys.keep(now).await?;
        idempotency::trim(&deps.db, now).await?;
        deps.fleet
            .agents
            .forget_deleted(now.saturating_sub(deps.keep_deleted))
            .await?;
        deps.db.token_trim(now - KEEP).await
    };
    if let Err(error) = trimmed.await {
        warn!(
            error = &error as &dyn std::error::Error,
            "failed to forget what has ended"
        );
    }
}

/// Only of agents that could renew: one that is away has to come back first.
fn is_late(entry: &Entry, now: Micros) -> bool {
    let certificate = &entry.certificate;
    let life = certificate.not_after - certificate.issued_at;
    entry.connection.is_some()
        && entry.next.is_none()
        && life > 0
        && certificate.issued_at > 0
        && (now - certificate.issued_at).saturating_mul(100) >= life.saturating_mul(LATE)
}

fn late_event(entry: &Entry, now: Micros) -> Event {
    let certificate = &entry.certificate;
    let text = format!(
        "{} has not renewed its certificate, which ends at {}",
        entry.name,
        clock::to_text(certificate.not_after)
    );
    Event::new("AGENT_CERTIFICATE_LATE", Some(entry.id), text, now)
        .severity(EventSeverity::Warning)
        .with("serial", &certificate.serial)
        .with("not_after", clock::to_text(certificate.not_after))
}

/// How far its clock is off, when that is too far.
fn skew(entry: &Entry, was_skewed: bool) -> Option<Micros> {
    let skew = entry.connection.as_ref().and(entry.clock_skew)?;
    let limit = if was_skewed { SKEW / 2 } else { SKEW };
    (skew.abs() > limit).then_some(skew)
}

fn skew_event(entry: &Entry, skew: Micros, now: Micros) -> Event {
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    let text = format!(
        "the clock of {} is {} {direction} that of the controller",
        entry.name,
        clock::to_span(skew.abs())
    );
    Event::new("AGENT_CLOCK_SKEW", Some(entry.id), text, now)
        .severity(EventSeverity::Warning)
        .with("skew_micros", skew)
        .with("controller_time", clock::to_text(now))
}

/// An ephemeral agent that was offline, or never came, for as long as its token allows.
fn is_gone(entry: &Entry, now: Micros) -> bool {
    let since = match entry.status {
        AgentStatus::Offline => entry.status_since.max(entry.last_seen),
        AgentStatus::Pending => entry.enrolled_at,
        _ => return false,
    };
    entry.ephemeral > 0 && entry.connection.is_none() && now - since >= entry.ephemeral
}

fn cas(deps: &Deps, told: &mut Told, now: Micros) -> Vec<Event> {
    let mut events = Vec::new();
    for authority in deps.pki.authorities().all() {
        let ends = authority.not_after().min(authority.root_not_after());
        if authority.phase() != Phase::Active {
            continue;
        }
        deps.telemetry.ca_expiry(ends);
        if ends - now >= CA_SOON {
            continue;
        }
        // Once a day.
        if told.cas.insert((authority.id(), now / DAY)) {
            let text = format!("the CA {} ends at {}", authority.id(), clock::to_text(ends));
            events.push(
                Event::new("CA_EXPIRES_SOON", None, text, now)
                    .severity(EventSeverity::Warning)
                    .with("ca", authority.id())
                    .with("not_after", clock::to_text(ends)),
            );
        }
    }
    told.cas.retain(|(_, day)| *day >= now / DAY - 1);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::{Certificate, Connection},
        clock::HOUR,
        store::NewAgent,
    };

    const NOW: Micros = 20_000 * DAY;

    fn entry() -> Entry {
        let mut entry = Entry::from(&NewAgent {
            id: AgentId::random(),
            name: "db-01",
            agent_labels: "{}",
            token_labels: "{}",
            version: "",
            now: NOW,
            revision: 1,
        });
        entry.certificate = Certificate {
            serial: "01".into(),
            issued_at: NOW,
            not_after: NOW + DAY,
            ..Certificate::default()
        };
        entry.connection = Some(Connection::new("s", "", NOW));
        entry
    }

    #[test]
    fn a_certificate_is_late_from_three_quarters_of_its_life_and_only_of_an_agent_that_is_there() {
        let mut entry = entry();
        assert!(!is_late(&entry, NOW + 18 * HOUR - 1));
        assert!(is_late(&entry, NOW + 18 * HOUR));
        entry.connection = None;
        assert!(!is_late(&entry, NOW + 18 * HOUR));
    }

    #[test]
    fn a_clock_is_wrong_beyond_five_seconds_and_right_again_below_half_of_that() {
        let mut entry = entry();
        let mut with = |seconds: i64, was| {
            entry.clock_skew = Some(seconds * SECOND);
            skew(&entry, was).is_some()
        };
        assert!(!with(5, false));
        assert!(with(6, false) && with(-6, false));
        assert!(with(3, true) && !with(2, true));
    }

    #[test]
    fn an_ephemeral_agent_is_gone_when_it_was_away_as_long_as_its_token_says() {
        let mut entry = entry();
        entry.ephemeral = HOUR;
        (entry.status, entry.status_since) = (AgentStatus::Offline, NOW);
        assert!(!is_gone(&entry, NOW + HOUR), "it is connected");
        entry.connection = None;
        assert!(!is_gone(&entry, NOW + HOUR - 1));
        assert!(is_gone(&entry, NOW + HOUR));
        entry.ephemeral = 0;
        assert!(!is_gone(&entry, NOW + 1_000 * DAY));
        (entry.ephemeral, entry.status) = (HOUR, AgentStatus::Pending);
        assert!(is_gone(&entry, NOW + HOUR), "it never came");
        entry.status = AgentStatus::Revoked;
        assert!(!is_gone(&entry, NOW + HOUR), "somebody may want to know of it");
    }
}
