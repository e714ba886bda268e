//! Policies: applied as a whole or not at all, signed, kept in memory compiled, and given to agents as sets. Knows no
//! transport; who gets told of a new set is the links' affair.

mod compiled;

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{
    check,
    error::FieldViolation,
    ids,
    v1::{self, policy::Spec},
};
use prost::Message as _;
use tokio::sync::watch;

pub use compiled::{Compiled, Key, Labelled, Policy, PolicySet};

use crate::{
    access::scope::{Scope, Scopes, Unclear},
    changes::Changes,
    clock::Micros,
    pki::Pki,
    store::{self, ChangeKind, Db, Op, PolicyRow},
    tokens::label_violations,
};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Created,
    Updated,
    Unchanged,
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
        let compiled = watch::Sender::new(Arc::new(Compiled::new(policies)));
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

    /// Creates and updates, for somebody who reaches this; one transaction for all. What would not change keeps its version.
    pub async fn apply(
        &self,
        policies: Vec<v1::Policy>,
        scopes: &Scopes,
        now: Micros,
    ) -> Result<Vec<(Arc<Policy>, Action)>, Error> {
        let mut wanted = validate(policies).map_err(Error::Invalid)?;
        let _writing = self.writing.lock().await;
        let current = self.current();
        for wanted in &mut wanted {
            let found = current.policies.get(&wanted.key);
            wanted.scope = match found {
                Some(policy) if !scopes.has(&policy.scope) => return Err(Error::Taken(wanted.key.clone())),
                // It keeps the one that it was made in.
                Some(policy) if wanted.scope.is_all() || wanted.scope == policy.scope => policy.scope.clone(),
                Some(_) => return Err(Error::Scope(wanted.key.clone(), Unclear::Foreign)),
                None => scopes
                    .for_new(&wanted.scope)
                    .map_err(|unclear| Error::Scope(wanted.key.clone(), unclear))?,
            };
            is_current(&wanted.key, wanted.seen, found.map_or(0, |policy| policy.revision))?;
        }
        let changed: Vec<&Wanted> = wanted.iter().filter(|wanted| !wanted.is_same(&current)).collect();

        let mut next = current.policies.clone();
        if !changed.is_empty() {
            let changes: Vec<_> = changed
                .iter()
                .map(|wanted| (ChangeKind::Policy, wanted.key.to_string(), Op::Put))
                .collect();
            let _held = self.changes.hold().await;
            let mut tx = self.db.begin().await?;
            let first = tx.changes_add(now, &changes).await?;
            for (index, wanted) in changed.into_iter().enumerate() {
                let previous = tx.policy_version(&wanted.key.kind, &wanted.key.name).await?;
                let created_at = current
                    .policies
                    .get(&wanted.key)
                    .map_or(now, |policy| policy.created_at);
                let version = now.max(previous + 1);
                let signed = self.sign(wanted, version);
                let row = PolicyRow {
                    kind: wanted.key.kind.clone(),
                    name: wanted.key.name.clone(),
                    version,
                    labels: serde_json::json!(wanted.labels).to_string(),
                    payload: signed.payload.to_vec(),
                    key_id: signed.key_id,
                    signature: signed.signature,
                    created_at,
                    updated_at: now,
                    revision: first + index as i64,
                    scope: wanted.scope.to_string(),
                };
                tx.policy_put(&row).await?;
                let policy = Policy::from_row(row)?;
                next.insert(policy.key.clone(), Arc::new(policy));
            }
            tx.commit().await?;
            self.publish(next.clone());
        }
        let action = |wanted: &Wanted| match current.policies.get(&wanted.key) {
            None => Action::Created,
            Some(policy) if policy.version == next[&wanted.key].version => Action::Unchanged,
            Some(_) => Action::Updated,
        };
        Ok(wanted
            .iter()
            .map(|wanted| (next[&wanted.key].clone(), action(wanted)))
            .collect())
    }

    /// `seen`: the revision that the caller knows; 0: whatever it is. Returns the revision of the deletion.
    pub async fn delete(&self, key: &Key, seen: i64, scopes: &Scopes, now: Micros) -> Result<i64, Error> {
        let _writing = self.writing.lock().await;
        let mut next = self.current().policies.clone();
        let gone = next.remove(key).filter(|policy| scopes.has(&policy.scope));
        let gone = gone.ok_or_else(|| Error::NotFound(key.clone()))?;
        is_current(key, seen, gone.revision)?;
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx
            .change_add(now, ChangeKind::Policy, &key.to_string(), Op::Delete)
            .await?;
        tx.policy_delete(&key.kind, &key.name).await?;
        tx.commit().await?;
        self.publish(next);
        Ok(revision)
    }

    fn publish(&self, policies: BTreeMap<Key, Arc<Policy>>) {
        self.compiled.send_replace(Arc::new(Compiled::new(policies)));
        self.changes.committed();
    }

    fn sign(&self, wanted: &Wanted, version: i64) -> v1::Signed {
        let payload = v1::PolicyPayload {
            trust_domain: self.pki.trust_domain().to_string(),
            kind: wanted.key.kind.clone(),
            name: wanted.key.name.clone(),
            version,
            selector: wanted.check.selector.clone(),
            features: check::features(&wanted.check),
            body: wanted.check.encode_to_vec(),
        };
        self.pki.sign_policy(&wanted.key.kind, payload.encode_to_vec().into())
    }
}

/// A policy of a request that was found valid.
#[derive(Debug)]
struct Wanted {
    key: Key,
    labels: BTreeMap<String, String>,
    check: v1::Check,
    scope: Scope,
    /// The revision that the caller knows; 0: whatever it is.
    seen: i64,
}

impl Wanted {
    fn is_same(&self, current: &Compiled) -> bool {
        current
            .policies
            .get(&self.key)
            .is_some_and(|policy| policy.labels == self.labels && policy.check == self.check)
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

fn validate(policies: Vec<v1::Policy>) -> Result<Vec<Wanted>, Vec<FieldViolation>> {
    let mut violations = Vec::new();
    if policies.is_empty() || policies.len() > MAX_POLICIES {
        let text = format!("has {} policies; a request takes 1 to {MAX_POLICIES}", policies.len());
        return Err(vec![FieldViolation::new("policies", text)]);
    }
    let mut wanted: Vec<Wanted> = Vec::with_capacity(policies.len());
    for (index, policy) in policies.into_iter().enumerate() {
        let mut violate = |field: &str, text: String| {
            violations.push(FieldViolation::new(format!("policies[{index}].{field}"), text));
        };
        let metadata = policy.metadata.unwrap_or_default();
        let Some(Spec::Check(check)) = policy.spec else {
            violate("spec", "is missing; a policy of kind Check has the field check".into());
            continue;
        };
        if !policy.kind.is_empty() && policy.kind != Key::CHECK {
            violate(
                "kind",
                format!("is {:?}, but the spec is that of a {}", policy.kind, Key::CHECK),
            );
        }
        if !ids::name_is_valid(&metadata.name) {
            violate("metadata.name", NAME_RULE.into());
        }
        let scope = Scope::parse(&metadata.scope).unwrap_or_else(|error| {
            violate("metadata.scope", error.to_string());
            Scope::ALL
        });
        for violation in label_violations("metadata.labels", &metadata.labels) {
            violate(&violation.field, violation.description);
        }
        // What was left out is left out of what is signed too: an agent may have its own default.
        let mut complete = check.clone();
        check::normalize(&mut complete);
        for violation in check::validate(&complete) {
            violate(&format!("check.{}", violation.field), violation.description);
        }
        let key = Key {
            kind: Key::CHECK.into(),
            name: metadata.name,
        };
        if wanted.iter().any(|wanted| wanted.key == key) {
            violate("metadata.name", format!("{key} is in this request twice"));
        }
        wanted.push(Wanted {
            key,
            labels: metadata.labels,
            check,
            scope,
            seen: metadata.revision,
        });
    }
    if violations.is_empty() {
        Ok(wanted)
    } else {
        Err(violations)
    }
}

const NAME_RULE: &str =
    "must be 1 to 63 characters of a-z, 0-9, \"-\", \"_\" and \".\", starting and ending with a letter or digit";

#[cfg(test)]
mod tests;
