//! What the agent says of itself on its own host: gathered on a board by its parts, written to `status.json`, shown by
//! `muster-agent status`. Nothing decides by it.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use jiff::{Timestamp, Unit};
use muster_proto::{ids::AgentId, v1};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    clock::unix_micros,
    config::{Config, Endpoint},
    endpoints::Candidate,
    link::queue::{self, Depth, Lanes},
};

/// The content of `status.json`. Times are RFC 3339, in UTC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started: String,
    pub written: String,
    pub agent: Agent,
    pub connection: Connection,
    /// Where controllers may be, in the order in which they are tried.
    #[serde(default)]
    pub endpoints: Vec<Place>,
    pub certificate: Option<Certificate>,
    pub queues: Vec<Queue>,
    pub policies: Policies,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Empty: not enrolled yet.
    pub id: String,
    /// As the controller calls it.
    pub name: String,
    pub trust_domain: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Starting,
    Enrolling,
    Connecting,
    Connected,
    Stopped,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    pub state: State,
    pub since: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The proxy that leads to the endpoint; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proxy: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub controller: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// When the controller last acknowledged records.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_ack: String,
    /// Why it is not connected, or was not the last time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
}

/// One place where a controller may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub endpoint: String,
    /// How the agent knows of it.
    pub source: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    pub serial: String,
    pub issued: String,
    pub expires: String,
    /// When the next renewal is due.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub renews: String,
    /// Since when it should have been renewed; empty: it is in time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub behind_since: String,
    /// Why the last renewal came to nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// Since the start of the agent.
    pub renewals: u64,
}

/// One lane, as users know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    pub name: String,
    pub records: u64,
    pub bytes: usize,
    /// Since the start, as all below.
    pub dropped: u64,
    pub rejected: u64,
    pub acknowledged: u64,
    pub oldest_age_seconds: u64,
    /// Why the records are in memory and not on disk; empty: they are on disk.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub in_memory: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    pub digest: String,
    pub applied: usize,
    /// Those that do not run, and why.
    pub not_applied: Vec<NotApplied>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotApplied {
    pub kind: String,
    pub name: String,
    pub version: i64,
    pub outcome: String,
    pub reason: String,
}

/// Where the parts of the agent note what changed.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    notes: Mutex<Notes>,
    changed: Notify,
}

/// What only the parts themselves know; the rest is looked up when the status is written.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    pub agent: Agent,
    pub connection: Connection,
    pub endpoints: Vec<Place>,
    pub certificate: Option<Certificate>,
}

impl Board {
    /// Enters a new state of the connection and clears what belonged to the old one, save the last error.
    pub fn enter(&self, state: State, now: SystemTime, change: impl FnOnce(&mut Connection)) {
        self.note(|notes| {
            let old = std::mem::take(&mut notes.connection);
            let since = if old.state == state { old.since } else { time(now) };
            notes.connection = Connection {
                state,
                since,
                last_error: old.last_error,
                last_ack: old.last_ack,
                ..Default::default()
            };
            change(&mut notes.connection);
        });
    }

    /// All that are known, in their order.
    pub fn endpoints(&self, known: &[Candidate]) {
        let places = known.iter().map(|candidate| Place {
            endpoint: candidate.endpoint.to_string(),
            source: candidate.source.name().to_owned(),
        });
        self.lock(|notes| notes.endpoints = places.collect());
    }

    pub fn acknowledged(&self, now: SystemTime) {
        self.lock(|notes| notes.connection.last_ack = time(now));
    }

    pub fn enrolled(&self, id: AgentId, trust_domain: &str, serial: &str, expires: SystemTime) {
        self.note(|notes| {
            notes.agent.id = id.to_string();
            trust_domain.clone_into(&mut notes.agent.trust_domain);
            notes.certificate = Some(Certificate {
                serial: serial.to_owned(),
                expires: time(expires),
                ..Default::default()
            });
        });
    }

    /// How the certificate stands; what is known of renewals stays.
    pub fn certificate(&self, certificate: Certificate) {
        self.note(|notes| {
            let old = notes.certificate.take().unwrap_or_default();
            notes.certificate = Some(Certificate {
                renews: old.renews,
                renewals: old.renewals,
                ..certificate
            });
        });
    }

    pub fn renews_at(&self, at: SystemTime) {
        let at = time(at);
        self.lock(|notes| {
            if let Some(certificate) = &mut notes.certificate {
                certificate.renews = at;
            }
        });
    }

    pub fn renewed(&self) {
        self.lock(|notes| {
            if let Some(certificate) = &mut notes.certificate {
                certificate.renewals += 1;
            }
        });
    }

    pub fn named(&self, name: &str) {
        self.note(|notes| name.clone_into(&mut notes.agent.name));
    }

    pub fn notes(&self) -> Notes {
        self.lock(|notes| notes.clone())
    }

    /// Returns when something was noted since the last call.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn note(&self, change: impl FnOnce(&mut Notes)) {
        self.lock(change);
        self.0.changed.notify_one();
    }

    fn lock<T>(&self, with: impl FnOnce(&mut Notes) -> T) -> T {
        with(&mut self.0.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connection {
    pub fn lead_to(&mut self, endpoint: &Endpoint, config: &Config) {
        self.endpoint = endpoint.to_string();
        let proxy = config.server.proxying.of(endpoint);
        self.proxy = proxy.map(ToString::to_string).unwrap_or_default();
    }
}

impl Queue {
    pub fn of(lane: v1::Lane, depth: Depth) -> Queue {
        Queue {
            name: queue::lane_name(lane).to_owned(),
            records: depth.records,
            bytes: depth.bytes,
            dropped: depth.dropped,
            rejected: depth.rejected,
            acknowledged: depth.acknowledged,
            oldest_age_seconds: u64::try_from(depth.oldest_age / 1_000_000).unwrap_or(0),
            in_memory: depth.broken.unwrap_or_default(),
        }
    }

    pub fn all(lanes: &Lanes, now: SystemTime) -> Vec<Queue> {
        let now = unix_micros(now);
        Lanes::ALL
            .iter()
            .map(|lane| Queue::of(*lane, lanes.lane(*lane).depth(now)))
            .collect()
    }
}

impl Policies {
    pub fn of(status: &v1::PolicyStatus) -> Policies {
        let applied = |report: &&v1::PolicyReport| report.outcome() == v1::PolicyOutcome::Applied;
        let not_applied = status
            .policies
            .iter()
            .filter(|report| !applied(report))
            .map(|report| NotApplied {
                kind: report.kind.clone(),
                name: report.name.clone(),
                version: report.version,
                outcome: match report.outcome() {
                    v1::PolicyOutcome::NotSupported => "not supported".to_owned(),
                    _ => "refused".to_owned(),
                },
                reason: report.reason.clone(),
            });
        Policies {
            digest: status.policy_set_digest.clone(),
            applied: status.policies.iter().filter(applied).count(),
            not_applied: not_applied.collect(),
        }
    }
}

/// Replaces the file in one step. Not synced to disk: after a crash of the machine it is wrong in any case.
pub fn write(status: &Status, path: &Path) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    serde_json::to_writer_pretty(&mut file, status)?;
    fs::rename(&temporary, path)
}

/// Where the status is written before it is put in its place.
pub fn temporary(path: &Path) -> PathBuf {
    path.with_extension("json.tmp")
}

pub fn read(path: &Path) -> io::Result<Status> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// RFC 3339 in UTC, to the second.
pub fn time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    time.round(Unit::Second).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_state_that_is_entered_again_keeps_its_since_and_the_last_error() {
        let board = Board::default();
        board.enter(State::Connecting, at(10), |connection| {
            connection.last_error = "no route".into()
        });
        board.enter(State::Connecting, at(20), |connection| {
            connection.endpoint = "a:1".into()
        });
        let connection = board.notes().connection;
        assert_eq!(connection.since, "1970-01-01T00:00:10Z");
        assert_eq!((&*connection.last_error, &*connection.endpoint), ("no route", "a:1"));
        board.enter(State::Connected, at(30), |connection| connection.last_error.clear());
        let connection = board.notes().connection;
        assert_eq!(
            (&*connection.since, &*connection.endpoint),
            ("1970-01-01T00:00:30Z", "")
        );
    }

    #[tokio::test]
    async fn a_note_that_was_taken_before_the_writer_waited_is_not_missed() {
        let board = Board::default();
        board.named("db-01");
        board.changed().await;
        assert_eq!(board.notes().agent.name, "db-01");
    }

    #[test]
    fn a_status_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let status = Status {
            version: "0.1.0".into(),
            pid: 1,
            started: time(at(1)),
            written: time(at(2)),
            agent: Agent {
                name: "db-01".into(),
                ..Default::default()
            },
            connection: Connection {
                state: State::Connected,
                ..Default::default()
            },
            endpoints: Vec::new(),
            certificate: None,
            queues: Queue::all(&Lanes::in_memory("1-a", Default::default()), SystemTime::now()),
            policies: Policies::default(),
            warnings: vec!["odd".into()],
        };
        write(&status, &path).unwrap();
        let again = read(&path).unwrap();
        assert_eq!(again.connection.state, State::Connected);
        assert_eq!(
            again.queues.iter().map(|queue| &*queue.name).collect::<Vec<_>>(),
            ["results", "metrics", "logs"]
        );
        assert_eq!((again.agent, again.warnings), (status.agent, status.warnings));
    }
}
