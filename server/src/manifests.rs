//! Manifests: what is wanted of the configuration, compared with what there is, what that means for agents, and doing it. A plan
//! is what the first half of an apply finds out, so that the two cannot differ. Knows no transport.

pub mod document;
mod drafts;
mod impact;
#[cfg(test)]
mod tests;
pub mod versions;

use std::{collections::BTreeSet, sync::Arc};

use muster_proto::{
    check, digest,
    error::FieldViolation,
    ids::AgentId,
    v1::{self, PlannedAction, PlannedEffect},
};

use crate::{
    access::{permission::Permission, scope::Scopes},
    agents::Agents,
    api_keys::{self, ApiKeys},
    changes::Changes,
    clock::Micros,
    grants::{self, Grants},
    policies::{self, Compiled, Policies},
    store::{self, Db},
    token_templates,
    users::{self, By, Users},
};
pub use drafts::{Draft, Wanted};
use impact::Impact;

/// In one request.
pub const MAX_MANIFESTS: usize = 1_000;
pub const MAX_AGENTS: usize = 10_000;
pub const DEFAULT_AGENTS: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a manifest is not valid")]
    Invalid(Vec<FieldViolation>),
    /// What the caller would need for the kind.
    #[error("the caller does not have {}", .0.name)]
    Missing(&'static Permission),
    #[error("the plan is no longer the one that was meant")]
    Outdated,
    #[error("nothing is on file of {kind}/{name}")]
    NotFound { kind: String, name: String },
    #[error("the work on a plan was not finished")]
    Unfinished(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Policies(#[from] policies::Error),
    #[error(transparent)]
    Grants(#[from] grants::Error),
    #[error(transparent)]
    Users(#[from] users::Error),
    #[error(transparent)]
    ApiKeys(#[from] api_keys::Error),
    #[error(transparent)]
    TokenTemplates(#[from] token_templates::Error),
    #[error("failed to store the change")]
    Store(#[from] store::Error),
}

/// What a caller reaches of each kind. None: nothing.
#[derive(Clone, Debug)]
pub struct Reach {
    pub policies: Scopes,
    pub roles: bool,
    pub grants: bool,
    pub token_templates: Scopes,
    /// Whose agents it is told of.
    pub agents: Scopes,
    /// What it lacks when one of the kinds is not reached.
    pub needed: Needed,
}

#[derive(Clone, Copy, Debug)]
pub struct Needed {
    pub policies: &'static Permission,
    pub roles: &'static Permission,
    pub grants: &'static Permission,
    pub token_templates: &'static Permission,
}

/// What is done, and what it means: the same for a plan and for what was applied.
#[derive(Debug)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub agents_touched: usize,
    pub agents_total: usize,
    pub digest: String,
    pub revision: i64,
}

#[derive(Debug)]
pub struct Change {
    pub kind: String,
    pub name: String,
    pub action: PlannedAction,
    pub fields: Vec<v1::FieldChange>,
    pub starts: usize,
    pub stops: usize,
    pub updates: usize,
    pub unsupported: usize,
    pub agents: Vec<PlannedAgent>,
}

impl Change {
    pub fn is_change(&self) -> bool {
        self.action != PlannedAction::Unchanged
    }
}

#[derive(Debug)]
pub struct PlannedAgent {
    pub id: AgentId,
    pub name: String,
    pub effect: PlannedEffect,
    pub missing_features: Vec<String>,
}

#[derive(Debug)]
pub struct Manifests {
    db: Db,
    changes: Changes,
    agents: Arc<Agents>,
    policies: Arc<Policies>,
    users: Arc<Users>,
    grants: Arc<Grants>,
    api_keys: Arc<ApiKeys>,
}

impl Manifests {
    pub fn new(
        db: Db,
        changes: Changes,
        agents: Arc<Agents>,
        policies: Arc<Policies>,
        users: Arc<Users>,
        grants: Arc<Grants>,
        api_keys: Arc<ApiKeys>,
    ) -> Self {
        Self {
            db,
            changes,
            agents,
            policies,
            users,
            grants,
            api_keys,
        }
    }

    /// What `apply` would do now, with up to so many agents of each change by name.
    pub async fn plan(
        self: &Arc<Self>,
        wanted: Wanted,
        reach: &Reach,
        max_agents: usize,
        now: Micros,
    ) -> Result<Plan, Error> {
        let revision = self.changes.revision();
        let current = self.policies.current();
        let drafts = self.drafts(&current, wanted, reach).await?;
        let (plan, _) = self.looked(current, drafts, reach, max_agents, revision, now).await?;
        Ok(plan)
    }

    /// All of it, or nothing. `meant`: the digest of the plan that is meant; empty: whatever it is now. `before` is told what is to
    /// change, before anything is refused or done.
    pub async fn apply(
        self: &Arc<Self>,
        wanted: Wanted,
        reach: &Reach,
        meant: &str,
        before: impl FnOnce(&[Draft]) + Send,
        by: &By,
        now: Micros,
    ) -> Result<Plan, Error> {
        let _users = self.users.begin(by).await?;
        let _policies = self.policies.begin().await;
        let current = self.policies.current();
        let drafts = self.drafts(&current, wanted, reach).await?;
        before(&drafts);
        self.check(&drafts, by, now).await?;
        let revision = self.changes.revision();
        let (mut plan, drafts) = self.looked(current.clone(), drafts, reach, 0, revision, now).await?;
        if !meant.is_empty() && plan.digest != meant {
            return Err(Error::Outdated);
        }
        let changed: Vec<&Draft> = drafts.iter().filter(|draft| draft.is_change()).collect();
        if changed.is_empty() {
            return Ok(plan);
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let noted: Vec<_> = changed.iter().map(|draft| draft.noted()).collect();
        let first = tx.changes_add(now, &noted).await?;
        let mut next = current.policies.clone();
        let mut done = Vec::with_capacity(changed.len());
        for (index, draft) in changed.iter().enumerate() {
            let revision = first + index as i64;
            plan.revision = revision;
            done.push(draft.store(&mut tx, &self.policies, revision, by, now).await?);
        }
        tx.commit().await?;
        let mut policies_change = false;
        for stored in done {
            policies_change |= stored.publish(self.grants.rights(), &mut next);
        }
        if policies_change {
            self.policies.publish(next);
        }
        self.changes.committed();
        Ok(plan)
    }

    /// What one resource has been, newest first, from before `before`.
    pub async fn versions(
        &self,
        kind: &str,
        name: &str,
        before: i64,
        limit: usize,
    ) -> Result<Vec<v1::ManifestVersion>, Error> {
        let rows = self.db.manifest_version_list(kind, name, before, limit as i64).await?;
        Ok(rows.into_iter().map(versions::read).collect::<Result<_, _>>()?)
    }

    /// A look at a large fleet takes a while, which is not to hold up what else this thread does.
    async fn looked(
        self: &Arc<Self>,
        current: Arc<Compiled>,
        drafts: Vec<Draft>,
        reach: &Reach,
        max_agents: usize,
        revision: i64,
        now: Micros,
    ) -> Result<(Plan, Vec<Draft>), Error> {
        let (manifests, reach) = (Arc::clone(self), reach.clone());
        let look = move || {
            let plan = manifests.look(&current, &drafts, &reach, max_agents, revision, now)?;
            Ok((plan, drafts))
        };
        tokio::task::spawn_blocking(look).await?
    }

    fn look(
        &self,
        current: &Compiled,
        drafts: &[Draft],
        reach: &Reach,
        max_agents: usize,
        revision: i64,
        now: Micros,
    ) -> Result<Plan, Error> {
        let mut next = current.policies.clone();
        let mut keys = Vec::new();
        for draft in drafts.iter().filter(|draft| draft.is_change()) {
            if let Some((key, policy)) = draft.preview(&self.policies, now)? {
                match policy {
                    Some(policy) => drop(next.insert(key.clone(), Arc::new(policy))),
                    None => drop(next.remove(&key)),
                }
                keys.push(key);
            }
        }
        let after = Compiled::new(next);
        let impact = Impact::of(current, &after, &keys, |look| {
            self.agents.each(|agent| look(agent, agent.is_in(&reach.agents)));
        });
        let mut touched = BTreeSet::new();
        let changes: Vec<Change> = drafts
            .iter()
            .map(|draft| change(draft, &impact, max_agents, &mut touched))
            .collect();
        Ok(Plan {
            digest: digest_of(&changes, drafts, &impact),
            changes,
            agents_touched: touched.len(),
            agents_total: impact.visible,
            revision,
        })
    }
}

fn change(draft: &Draft, impact: &Impact, max_agents: usize, touched: &mut BTreeSet<AgentId>) -> Change {
    let (before, after) = draft.documents();
    let mut change = Change {
        kind: draft.kind().to_owned(),
        name: draft.name(),
        action: draft.action(),
        fields: document::differences(before.as_ref(), after.as_ref()),
        starts: 0,
        stops: 0,
        updates: 0,
        unsupported: 0,
        agents: Vec::new(),
    };
    let Draft::Policy(policy) = draft else { return change };
    let (key, needed) = (policy.key(), policy.check().map(check::features).unwrap_or_default());
    for found in impact.on(key).into_iter().filter(|found| found.agent.is_visible) {
        touched.insert(found.agent.id);
        let missing_features = match found.effect {
            PlannedEffect::Start | PlannedEffect::Update => found.agent.missing(&needed),
            PlannedEffect::Stop | PlannedEffect::Unspecified => Vec::new(),
        };
        match found.effect {
            PlannedEffect::Start => change.starts += 1,
            PlannedEffect::Stop => change.stops += 1,
            PlannedEffect::Update => change.updates += 1,
            PlannedEffect::Unspecified => {}
        }
        change.unsupported += usize::from(!missing_features.is_empty());
        if change.agents.len() < max_agents {
            change.agents.push(PlannedAgent {
                id: found.agent.id,
                name: found.agent.name.clone(),
                effect: found.effect,
                missing_features,
            });
        }
    }
    change
}

/// Over what is done and what it means for every agent, whoever asks.
fn digest_of(changes: &[Change], drafts: &[Draft], impact: &Impact) -> String {
    let mut text = String::new();
    for (change, draft) in changes.iter().zip(drafts) {
        text += &format!(
            "{}/{} {} {}\n",
            change.kind,
            change.name,
            change.action.as_str_name(),
            draft.found_revision()
        );
        for field in &change.fields {
            // JSON has no line breaks of its own.
            text += &format!("{}\n{}\n{}\n", field.path, field.before, field.after);
        }
    }
    digest::of_bytes((text + &impact.fingerprint()).as_bytes())
}
