//! The inventory: every agent, its labels, its status and what it last said of itself. Kept in memory as a whole, so that a
//! connecting fleet asks the database nothing, and written through in batches. Knows no transport.

mod assignments;
mod certificates;
mod connection;
mod ending;
mod entry;
mod links;
pub mod liveness;
mod machines;
mod new_series;
mod parts;
mod persist;
mod preregister;
mod throttling;
mod transitions;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Mutex, RwLock},
};

use muster_proto::{
    ids::AgentId,
    label,
    v1::{AgentStatus, PolicyStatus},
};
use tokio::sync::{Notify, watch};

use assignments::Assignments;
pub use certificates::Certificate;
pub use connection::{Connection, Report};
pub use ending::Ending;
pub use entry::{Entry, Labels, OnClone};
pub use links::{Links, Queue};
use parts::Parts;
pub use preregister::Preregistration;
use transitions::{Transition, Transitions};

use crate::{
    access::{labels, scope::Scopes},
    changes::Changes,
    clock::{self, Micros},
    store::{self, ChangeKind, Db, Op},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no agent {0}")]
    NotFound(String),
    #[error("the name {name} belongs to {} agents", ids.len())]
    Ambiguous { name: String, ids: Vec<AgentId> },
    #[error("agent {0} is revoked")]
    Revoked(AgentId),
    #[error("agent {0} has enrolled without being pre-registered")]
    AlreadyEnrolled(AgentId),
    #[error("agent {0} was deleted")]
    Deleted(AgentId),
    /// The id of an agent that is not there for the caller.
    #[error("the id {0} is taken")]
    Taken(AgentId),
    #[error("the revision is {is} and not {seen}")]
    Conflict { seen: i64, is: i64 },
    #[error("the labels cannot become these")]
    Labels(#[source] labels::Refusal),
    #[error("that would make {0} labels of the agent")]
    TooManyLabels(usize),
    #[error("agent {0} has never enrolled")]
    NeverEnrolled(AgentId),
    #[error("failed to store the agent")]
    Store(#[from] store::Error),
}

/// What an agent says of itself when it connects.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: String,
    pub labels: Labels,
    pub warnings: Vec<String>,
}

/// A version of the trust bundle, and who says that it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub version: i64,
    pub by: AgentId,
}

impl Told {
    fn of(entry: &Entry) -> Self {
        Self {
            version: entry.bundle_version,
            by: entry.id,
        }
    }

    /// Versions are the times at which they were made.
    fn is_credible(&self, now: Micros) -> bool {
        self.version <= now.saturating_add(clock::DAY)
    }
}

#[derive(Debug)]
pub struct Agents {
    db: Db,
    changes: Changes,
    entries: RwLock<BTreeMap<AgentId, Entry>>,
    /// Ids of agents that are gone; nobody else gets them.
    deleted: Mutex<BTreeSet<AgentId>>,
    /// Entries that differ from their rows, and in what.
    dirty: Mutex<BTreeMap<AgentId, Parts>>,
    /// Transitions of status that become events.
    transitions: Mutex<Transitions>,
    /// First uses of certificates that wait to be written.
    first_uses: Mutex<Vec<store::FirstUse>>,
    /// Events that wait to be written.
    notices: Mutex<Vec<store::EventRow>>,
    unsure: Mutex<Option<persist::Unsure>>,
    newest_bundle: watch::Sender<Option<Told>>,
    persist: Notify,
    pub assignments: Assignments,
    /// Held over a write of the inventory.
    pub(crate) writing: tokio::sync::Mutex<()>,
    started_at: Micros,
}

impl Agents {
    pub async fn load(db: Db, changes: Changes, now: Micros) -> Result<Self, Error> {
        let mut entries = BTreeMap::new();
        for row in db.agent_list().await? {
            let entry = Entry::from_row(row)?;
            entries.insert(entry.id, entry);
        }
        for row in db.agent_certificate_list_live().await? {
            if let Some(entry) = row.agent_id.parse().ok().and_then(|id: AgentId| entries.get_mut(&id)) {
                entry.take_certificate(&row);
            }
        }
        let deleted = db.agent_list_deleted().await?;
        let deleted = deleted.iter().filter_map(|id| id.parse().ok()).collect();
        let trusted = entries.values().filter(|entry| entry.is_trusted());
        let newest_bundle = trusted.map(Told::of).filter(|told| told.is_credible(now)).max();
        Ok(Self {
            db,
            changes,
            newest_bundle: watch::Sender::new(newest_bundle),
            entries: RwLock::new(entries),
            deleted: Mutex::new(deleted),
            dirty: Mutex::default(),
            transitions: Mutex::default(),
            first_uses: Mutex::default(),
            notices: Mutex::default(),
            unsure: Mutex::default(),
            persist: Notify::new(),
            assignments: Assignments::default(),
            writing: tokio::sync::Mutex::new(()),
            started_at: now,
        })
    }

    pub fn started_at(&self) -> Micros {
        self.started_at
    }

    pub fn count(&self) -> usize {
        self.read().len()
    }

    /// How many agents have each status.
    pub fn count_by_status(&self) -> BTreeMap<&'static str, i64> {
        let mut counts = BTreeMap::from(entry::STATUS_NAMES.map(|(_, name)| (name, 0)));
        self.each(|entry| *counts.entry(entry::status_name(entry.status)).or_default() += 1);
        counts
    }

    /// The newest version of the trust bundle that any of them has told of since it was loaded, or is on file for any.
    pub fn newest_bundle(&self) -> watch::Receiver<Option<Told>> {
        self.newest_bundle.subscribe()
    }

    pub fn has(&self, id: AgentId) -> bool {
        self.read().contains_key(&id)
    }

    pub fn get(&self, id: AgentId) -> Option<Entry> {
        self.read().get(&id).cloned()
    }

    /// Calls `look` with the entry, which is cheaper than a copy.
    pub fn with<T>(&self, id: AgentId, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.read().get(&id).map(look)
    }

    /// Calls `look` with every entry, in order of id.
    pub fn each(&self, mut look: impl FnMut(&Entry)) {
        self.read().values().for_each(&mut look);
    }

    /// As `each`, from `first` on, until `look` says no.
    pub fn each_from(&self, first: Bound<AgentId>, look: impl FnMut(&Entry) -> bool) {
        let _ = self
            .read()
            .range((first, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .all(look);
    }

    /// The agent with that UUID or, when exactly one has it, that name; of those that are there for the caller.
    pub fn find(&self, text: &str, scopes: &Scopes) -> Result<AgentId, Error> {
        let entries = self.read();
        if let Ok(id) = text.parse::<AgentId>()
            && entries.get(&id).is_some_and(|entry| entry.is_in(scopes))
        {
            return Ok(id);
        }
        let ids: Vec<AgentId> = entries
            .values()
            .filter(|entry| entry.name == text && entry.is_in(scopes))
            .map(|entry| entry.id)
            .collect();
        match ids[..] {
            [] => Err(Error::NotFound(text.to_owned())),
            [id] => Ok(id),
            _ => Err(Error::Ambiguous {
                name: text.to_owned(),
                ids,
            }),
        }
    }

    /// Whether an agent with this id was deleted.
    pub fn is_deleted(&self, id: AgentId) -> bool {
        self.lock_deleted().contains(&id)
    }

    /// As `inserted`, among others: the caller tells those who follow.
    pub(crate) fn insert(&self, entry: Entry) {
        let id = entry.id;
        self.lock_deleted().remove(&id);
        let is_on_file = self.write().insert(id, entry).is_some();
        if is_on_file {
            // The row has kept some of what was known of the machine before.
            self.mark_dirty(id, Parts::ALL);
        }
    }

    /// Takes up an agent whose row has just been committed.
    pub fn inserted(&self, entry: Entry) {
        let id = entry.id;
        self.insert(entry);
        self.assignments.changed([id]);
        self.changes.committed();
    }

    /// A link is active. A newer session of the same agent replaces the older.
    pub fn connected(&self, id: AgentId, connection: Connection, hello: Hello, now: Micros) {
        self.update(id, |entry| {
            let changed = Parts::HELLO.when(entry.set_hello(hello));
            entry.connection = Some(connection);
            entry.last_seen = now;
            entry.heard = true;
            changed | Parts::STATUS.when(entry.status != AgentStatus::Online)
        });
        self.assignments.changed([id]);
        self.set_status(id, now, |_| Some((AgentStatus::Online, liveness::CONNECTED)));
    }

    /// A frame came.
    pub fn seen(&self, id: AgentId, now: Micros) {
        if let Some(entry) = self.write().get_mut(&id) {
            entry.last_seen = now;
        }
    }

    pub fn heartbeat(&self, id: AgentId, session: &str, report: Report, now: Micros) {
        self.of_session(id, session, |connection, skew| {
            *skew = report.skew.or(*skew);
            connection.reported(report, now);
        });
    }

    /// It was told to leave.
    pub fn leaving(&self, id: AgentId, session: &str) {
        self.of_session(id, session, |connection, _| connection.leaving = true);
    }

    /// With what is known of its clock; nothing when a newer session has taken over.
    fn of_session(&self, id: AgentId, session: &str, change: impl FnOnce(&mut Connection, &mut Option<Micros>)) {
        if let Some(entry) = self.write().get_mut(&id)
            && let Some(connection) = &mut entry.connection
            && connection.session_id == session
        {
            change(connection, &mut entry.clock_skew);
        }
    }

    /// The link of `session` has ended; nothing when a newer one has taken over.
    pub fn disconnected(&self, id: AgentId, session: &str, reason: &'static str, now: Micros) {
        let current = self
            .write()
            .get_mut(&id)
            .and_then(|entry| {
                entry
                    .connection
                    .take_if(|connection| connection.session_id == session)?;
                entry.leave_reason = reason;
                Some(())
            })
            .is_some();
        if current && reason == liveness::GOODBYE {
            self.set_status(id, now, |_| Some((AgentStatus::Offline, reason)));
        }
    }

    pub fn set_facts(&self, id: AgentId, facts: BTreeMap<String, String>, digest: String) {
        self.update(id, |entry| {
            entry.facts_digest = digest;
            let changed = entry.facts != facts;
            entry.facts = facts;
            Parts::FACTS.when(changed)
        });
        self.assignments.changed([id]);
    }

    /// The agent has taken over a trust bundle.
    pub fn set_bundle_version(&self, id: AgentId, version: i64) {
        self.update(id, |entry| {
            let before = std::mem::replace(&mut entry.bundle_version, version);
            Parts::BUNDLE.when(before != version)
        });
        let told = Told { version, by: id };
        self.newest_bundle.send_if_modified(|newest| {
            let is_newer = newest.is_none_or(|newest| version > newest.version) && told.is_credible(clock::now());
            if is_newer {
                *newest = Some(told);
            }
            is_newer
        });
    }

    pub fn set_policy_status(&self, id: AgentId, status: PolicyStatus) {
        self.update(id, |entry| {
            let changed = entry.policy_status != status;
            entry.policy_status = status;
            Parts::POLICY_STATUS.when(changed)
        });
    }

    /// Sets and removes operator labels; durable when it returns.
    pub async fn update_labels(
        &self,
        id: AgentId,
        set: &Labels,
        remove: &[String],
        seen: i64,
        may_become: impl Fn(&Labels, &Labels) -> Result<(), labels::Refusal>,
        now: Micros,
    ) -> Result<Entry, Error> {
        let _writing = self.writing.lock().await;
        let entry = self.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        ending::is_current(seen, entry.revision)?;
        let mut labels = entry.operator_labels.clone();
        labels.extend(set.clone());
        labels.retain(|key, _| !remove.contains(key));
        if labels.len() > label::MAX_COUNT && labels.len() > entry.operator_labels.len() {
            return Err(Error::TooManyLabels(labels.len()));
        }
        may_become(&entry.authoritative_map(), &entry.authoritative_with(&labels)).map_err(Error::Labels)?;
        if labels == entry.operator_labels {
            return Ok(entry);
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Agent, &id.to_string(), Op::Put).await?;
        tx.agent_set_operator_labels(&id.to_string(), &entry::labels_to_json(&labels), revision)
            .await?;
        tx.commit().await?;
        let entry = {
            let mut entries = self.write();
            let entry = entries.get_mut(&id).ok_or_else(|| Error::NotFound(id.to_string()))?;
            entry.operator_labels = labels;
            entry.revision = revision;
            entry.clone()
        };
        self.assignments.changed([id]);
        self.changes.committed();
        Ok(entry)
    }

    /// Takes the status and the reason that `decide` gives, if that status is new.
    fn set_status(
        &self,
        id: AgentId,
        now: Micros,
        decide: impl FnOnce(&mut Entry) -> Option<(AgentStatus, &'static str)>,
    ) {
        let transition = {
            let mut entries = self.write();
            let Some(entry) = entries.get_mut(&id) else { return };
            let Some((status, reason)) = decide(entry) else { return };
            // Neither silence nor a link that is about to be cut brings back what an operator has ended.
            if entry.status == status || !entry.is_trusted() {
                return;
            }
            let from = entry.status;
            entry.status = status;
            entry.status_reason = match status {
                AgentStatus::Online => String::new(),
                _ => reason.to_owned(),
            };
            entry.status_since = now;
            Transition {
                id,
                name: entry.name.clone(),
                from,
                to: status,
                reason,
                at: now,
                changes: 1,
            }
        };
        self.lock_transitions().push(transition);
        self.mark_dirty(id, Parts::STATUS);
        self.assignments.changed([id]);
    }

    /// Changes an entry; what `change` says was changed gets written.
    fn update(&self, id: AgentId, change: impl FnOnce(&mut Entry) -> Parts) {
        let changed = self.write().get_mut(&id).map(change);
        if let Some(parts) = changed
            && parts != Parts::NONE
        {
            self.mark_dirty(id, parts);
        }
    }

    fn mark_dirty(&self, id: AgentId, parts: Parts) {
        *self.lock_dirty().entry(id).or_default() |= parts;
        self.persist.notify_one();
    }

    // A panic while a lock is held leaves an entry as it was before or after a single assignment, so a poisoned lock is
    // taken all the same.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<AgentId, Entry>> {
        self.entries.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<AgentId, Entry>> {
        self.entries.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_deleted(&self) -> std::sync::MutexGuard<'_, BTreeSet<AgentId>> {
        self.deleted.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_dirty(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, Parts>> {
        self.dirty.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_notices(&self) -> std::sync::MutexGuard<'_, Vec<store::EventRow>> {
        self.notices.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_transitions(&self) -> std::sync::MutexGuard<'_, Transitions> {
        self.transitions.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
