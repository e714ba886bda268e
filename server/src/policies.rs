//! Policies: applied as a whole or not at all, signed, kept in memory compiled, and given to agents as sets. Knows no
//! transport; who gets told of a new set is the links' affair.

mod compiled;
pub mod draft;

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{
    check,
    error::FieldViolation,
    v1::{self, EventSeverity},
};
use prost::Message as _;
use tokio::sync::watch;

pub use compiled::{Compiled, Freeze, Key, Labelled, Policy, PolicySet};
pub use draft::{Action, Draft};

use crate::{
    access::scope::{Scopes, Unclear},
    changes::Changes,
    clock::Micros,
    events::Event,
    manifests::{
        document,
        versions::{self, Step},
    },
    pki::Pki,
    store::{self, ChangeKind, Db, Op, PolicyRow, Tx},
};

/// Of a stop of all delivery.
const MAX_REASON: usize = 1_024;

/// Policies in one request.
pub const MAX_POLICIES: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a policy is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("there is no policy {0}")]
    NotFound(Key),
    /// Somebody else has one of that name, whom the caller does not see.
    #[error("the name of policy {0} is taken")]
    Taken(Key),
    /// The caller has several scopes, or none like the one it asked for.
    #[error("policy {0} cannot be made in that scope")]
    Scope(Key, Unclear),
    #[error("the revision of policy {key} is {is} and not {seen}")]
    Conflict { key: Key, seen: i64, is: i64 },
    #[error("failed to store the policies")]
    Store(#[from] store::Error),
}

#[derive(Debug)]
pub struct Policies {
    db: Db,
    changes: Changes,
    pki: Arc<Pki>,
    compiled: watch::Sender<Arc<Compiled>>,
    /// Held over a change of the policies.
    writing: tokio::sync::Mutex<()>,
}

impl Policies {
    pub async fn load(db: Db, changes: Changes, pki: Arc<Pki>) -> Result<Self, Error> {
        let mut policies = BTreeMap::new();
        for row in db.policy_list().await? {
            let policy = Policy::from_row(row)?;
            policies.insert(policy.key.clone(), Arc::new(policy));
        }
        let freeze = match db.policy_freeze().await? {
            None => None,
            Some(text) => Some(serde_json::from_str(&text).map_err(|error| store::Error::Corrupt {
                table: "meta",
                id: "policies_frozen".into(),
                problem: error.to_string(),
            })?),
        };
        let compiled = watch::Sender::new(Arc::new(Compiled::new(policies).frozen(freeze.map(Arc::new))));
        Ok(Self {
            db,
            changes,
            pki,
            compiled,
            writing: tokio::sync::Mutex::new(()),
        })
    }

    /// The policies as they are now.
    pub fn current(&self) -> Arc<Compiled> {
        self.compiled.borrow().clone()
    }

    /// The latest policies, for those that follow them.
    pub fn watch(&self) -> watch::Receiver<Arc<Compiled>> {
        self.compiled.subscribe()
    }

    /// Held over a change.
    pub async fn begin(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// Creates and updates, for somebody who reaches this; one transaction for all. What would not change keeps its version.
    pub async fn apply(
        &self,
        policies: Vec<v1::Policy>,
        scopes: &Scopes,
        caller: &str,
        now: Micros,
    ) -> Result<Vec<(Arc<Policy>, Action)>, Error> {
        if policies.is_empty() || policies.len() > MAX_POLICIES {
            let text = format!("has {} policies; a request takes 1 to {MAX_POLICIES}", policies.len());
            return Err(Error::Invalid(vec![FieldViolation::new("policies", text)]));
        }
        let _writing = self.begin().await;
        let current = self.current();
        let drafts = draft::drafts(&current, policies, |index| format!("policies[{index}]"), scopes)?;
        let changed: Vec<&Draft> = drafts
            .iter()
            .filter(|draft| draft.action() != Action::Unchanged)
            .collect();

        let mut next = current.policies.clone();
        if !changed.is_empty() {
            let changes: Vec<_> = changed
                .iter()
                .map(|draft| (ChangeKind::Policy, draft.key.to_string(), Op::Put))
                .collect();
            let _held = self.changes.hold().await;
            let mut tx = self.db.begin().await?;
            let first = tx.changes_add(now, &changes).await?;
            for (index, draft) in changed.into_iter().enumerate() {
                let policy = self.put(&mut tx, draft, first + index as i64, caller, now).await?;
                next.insert(policy.key.clone(), Arc::new(policy));
            }
            tx.commit().await?;
            self.publish(next.clone());
            self.changes.committed();
        }
        Ok(drafts
            .iter()
            .map(|draft| (next[&draft.key].clone(), draft.action()))
            .collect())
    }

    /// `seen`: the revision that the caller knows; 0: whatever it is. Returns the revision of the deletion.
    pub async fn delete(&self, key: &Key, seen: i64, scopes: &Scopes, caller: &str, now: Micros) -> Result<i64, Error> {
        let _writing = self.begin().await;
        let mut next = self.current().policies.clone();
        let gone = next.remove(key).filter(|policy| scopes.has(&policy.scope));
        let gone = gone.ok_or_else(|| Error::NotFound(key.clone()))?;
        is_current(key, seen, gone.revision)?;
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx
            .change_add(now, ChangeKind::Policy, &key.to_string(), Op::Delete)
            .await?;
        self.remove(&mut tx, &gone, revision, caller, now).await?;
        tx.commit().await?;
        self.publish(next);
        self.changes.committed();
        Ok(revision)
    }

    /// Puts one on file, as a part of a change that [`Policies::publish`] ends.
    pub async fn put(
        &self,
        tx: &mut Tx,
        draft: &Draft,
        revision: i64,
        caller: &str,
        now: Micros,
    ) -> Result<Policy, Error> {
        let previous = tx.policy_version(&draft.key.kind, &draft.key.name).await?;
        let row = self.row(draft, now.max(previous + 1), revision, now);
        tx.policy_put(&row).await?;
        let policy = Policy::from_row(row)?;
        let step = Step {
            kind: &policy.key.kind,
            name: &policy.key.name,
            revision,
            at: now,
            caller,
        };
        let before = draft
            .found
            .as_ref()
            .map(|found| versions::Before::of(found.revision, found.updated_at, document::policy(found)));
        versions::put(tx, step, before, &document::policy(&policy)).await?;
        Ok(policy)
    }

    /// Takes one from the file, as [`Policies::put`].
    pub async fn remove(
        &self,
        tx: &mut Tx,
        policy: &Policy,
        revision: i64,
        caller: &str,
        now: Micros,
    ) -> Result<(), Error> {
        let key = &policy.key;
        tx.policy_delete(&key.kind, &key.name).await?;
        let step = Step {
            kind: &key.kind,
            name: &key.name,
            revision,
            at: now,
            caller,
        };
        let before = versions::Before::of(policy.revision, policy.updated_at, document::policy(policy));
        Ok(versions::delete(tx, step, before).await?)
    }

    /// What a draft would be, with a version that is higher than any of its name and that nobody gets.
    pub fn preview(&self, draft: &Draft, now: Micros) -> Result<Policy, Error> {
        let previous = draft.found.as_ref().map_or(0, |found| found.version);
        Ok(Policy::from_row(self.row(draft, now.max(previous + 1), 0, now))?)
    }

    /// After the commit, before it is told.
    pub fn publish(&self, policies: BTreeMap<Key, Arc<Policy>>) {
        let freeze = self.current().freeze.clone();
        self.compiled
            .send_replace(Arc::new(Compiled::new(policies).frozen(freeze)));
    }

    /// Stops all delivery, or ends that.
    pub async fn freeze(&self, freeze: Option<Freeze>, by: &str, now: Micros) -> Result<Option<Arc<Freeze>>, Error> {
        if let Some(freeze) = &freeze
            && (freeze.reason.len() > MAX_REASON || freeze.reason.contains('\0'))
        {
            let text = format!("is longer than {MAX_REASON} bytes, or contains a NUL");
            return Err(Error::Invalid(vec![FieldViolation::new("reason", text)]));
        }
        let _writing = self.begin().await;
        let current = self.current();
        // The stop began when it began, whatever is said of it later.
        let freeze = freeze.map(|freeze| match &current.freeze {
            Some(before) => Freeze {
                at: before.at,
                ..freeze
            },
            None => freeze,
        });
        let (reason, text) = match (&current.freeze, &freeze) {
            (None, None) => return Ok(None),
            (_, Some(freeze)) => (
                "POLICIES_FROZEN",
                format!("{by} has stopped the delivery of policies: {}", freeze.reason),
            ),
            (Some(_), None) => ("POLICIES_UNFROZEN", format!("{by} has let policies be delivered again")),
        };
        let event = Event::new(reason, None, text, now)
            .severity(EventSeverity::Warning)
            .with("by", by);
        let mut tx = self.db.begin().await?;
        let kept = freeze.as_ref().map(|freeze| serde_json::json!(freeze).to_string());
        tx.policy_freeze_set(kept.as_deref()).await?;
        tx.event_insert_all(&[event.into_row()]).await?;
        tx.commit().await?;
        let freeze = freeze.map(Arc::new);
        let compiled = Compiled::new(current.policies.clone()).frozen(freeze.clone());
        self.compiled.send_replace(Arc::new(compiled));
        Ok(freeze)
    }

    fn row(&self, draft: &Draft, version: i64, revision: i64, now: Micros) -> PolicyRow {
        let (version, signed) = match draft.is_signed() {
            Some(found) => (found.version, found.signed.clone()),
            None => (version, self.sign(draft, version)),
        };
        PolicyRow {
            kind: draft.key.kind.clone(),
            name: draft.key.name.clone(),
            version,
            labels: serde_json::json!(draft.labels).to_string(),
            payload: signed.payload.to_vec(),
            key_id: signed.key_id,
            signature: signed.signature,
            created_at: draft.found.as_ref().map_or(now, |found| found.created_at),
            updated_at: now,
            revision,
            scope: draft.scope.to_string(),
            owner: draft.owner.clone(),
        }
    }

    fn sign(&self, draft: &Draft, version: i64) -> v1::Signed {
        let payload = v1::PolicyPayload {
            trust_domain: self.pki.trust_domain().to_string(),
            kind: draft.key.kind.clone(),
            name: draft.key.name.clone(),
            version,
            selector: draft.check.selector.clone(),
            features: check::features(&draft.check),
            body: draft.check.encode_to_vec(),
        };
        self.pki.sign_policy(&draft.key.kind, payload.encode_to_vec().into())
    }
}

/// Whether a caller knows what there is.
fn is_current(key: &Key, seen: i64, is: i64) -> Result<(), Error> {
    match seen > 0 && seen != is {
        true => Err(Error::Conflict {
            key: key.clone(),
            seen,
            is,
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
