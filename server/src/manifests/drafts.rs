//! What becomes of each resource: found out from what is wanted and what there is, told as documents, stored in one transaction
//! with the others.

mod gather;
mod token_templates;

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{
    manifest,
    v1::{self, PlannedAction},
};

use super::{Error, document};
use crate::{
    access::rights::{Grant, RightsOfAll, Role},
    clock::Micros,
    grants,
    policies::{self, Action, Key, Policies, Policy},
    store::{ChangeKind, Op, Tx},
    token_templates::{self as token_template, Template},
    users::By,
};

/// What a request wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub manifests: Vec<v1::Manifest>,
    /// Of those that name none; empty: they keep theirs.
    pub owner: String,
    /// Delete what has this owner and is not wanted.
    pub prune: bool,
    /// Delete what is named.
    pub delete: bool,
}

#[derive(Debug)]
pub enum Draft {
    Policy(PolicyDraft),
    Role(Pair<Role>),
    Grant(Pair<Grant>),
    TokenTemplate(Pair<Template>),
}

#[derive(Debug)]
pub enum PolicyDraft {
    Put(Box<policies::Draft>),
    Remove(Arc<Policy>),
}

/// What there is and what shall be, one of which may be nothing.
#[derive(Debug)]
pub struct Pair<T> {
    pub found: Option<T>,
    pub wanted: Option<T>,
}

/// What is on file after a step, and not yet in memory.
#[derive(Debug)]
pub enum Stored {
    Policy(Key, Option<Box<Policy>>),
    Role(String, Option<Role>),
    Grant(Grant, Op),
    /// Of which nothing is in memory.
    TokenTemplate,
}

impl PolicyDraft {
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(draft) => &draft.key,
            Self::Remove(policy) => &policy.key,
        }
    }

    /// None: it goes.
    pub fn check(&self) -> Option<&v1::Check> {
        match self {
            Self::Put(draft) => Some(&draft.check),
            Self::Remove(_) => None,
        }
    }
}

impl Draft {
    pub fn kind(&self) -> &str {
        match self {
            Self::Policy(draft) => &draft.key().kind,
            Self::Role(_) => manifest::ROLE,
            Self::Grant(_) => manifest::GRANT,
            Self::TokenTemplate(_) => manifest::TOKEN_TEMPLATE,
        }
    }

    pub fn name(&self) -> String {
        match self {
            Self::Policy(draft) => draft.key().name.clone(),
            Self::Role(pair) => pair.any(|role| role.name.clone()),
            Self::Grant(pair) => pair.any(|grant| grant.id.clone()),
            Self::TokenTemplate(pair) => pair.any(|template| template.name.clone()),
        }
    }

    pub fn action(&self) -> PlannedAction {
        match self {
            Self::Policy(PolicyDraft::Put(draft)) => match draft.action() {
                Action::Created => PlannedAction::Create,
                Action::Updated => PlannedAction::Update,
                Action::Unchanged => PlannedAction::Unchanged,
            },
            Self::Policy(PolicyDraft::Remove(_)) => PlannedAction::Delete,
            Self::Role(pair) => pair.action(|a, b| {
                (&a.description, &a.permissions, &a.owner, &a.labels)
                    == (&b.description, &b.permissions, &b.owner, &b.labels)
            }),
            Self::Grant(pair) => pair.action(|a, b| a.owner == b.owner && a.labels == b.labels),
            Self::TokenTemplate(pair) => pair.action(Template::is_same),
        }
    }

    pub fn is_change(&self) -> bool {
        self.action() != PlannedAction::Unchanged
    }

    /// What it names goes. None: it is not there.
    pub fn deletion(self) -> Option<Self> {
        Some(match self {
            Self::Policy(PolicyDraft::Put(draft)) => Self::Policy(PolicyDraft::Remove(draft.found?)),
            Self::Policy(PolicyDraft::Remove(_)) => self,
            Self::Role(pair) => Self::Role(Pair::gone(pair.found?)),
            Self::Grant(pair) => Self::Grant(Pair::gone(pair.found?)),
            Self::TokenTemplate(pair) => Self::TokenTemplate(Pair::gone(pair.found?)),
        })
    }

    /// 0: there is none.
    pub fn found_revision(&self) -> i64 {
        match self {
            Self::Policy(PolicyDraft::Put(draft)) => draft.found.as_ref().map_or(0, |found| found.revision),
            Self::Policy(PolicyDraft::Remove(policy)) => policy.revision,
            Self::Role(pair) => pair.found.as_ref().map_or(0, |found| found.revision),
            Self::Grant(pair) => pair.found.as_ref().map_or(0, |found| found.revision),
            Self::TokenTemplate(pair) => pair.found.as_ref().map_or(0, |found| found.revision),
        }
    }

    /// Before and after.
    pub fn documents(&self) -> (Option<v1::Manifest>, Option<v1::Manifest>) {
        match self {
            Self::Policy(PolicyDraft::Put(draft)) => {
                let after = v1::Manifest {
                    kind: draft.key.kind.clone(),
                    metadata: Some(v1::PolicyMetadata {
                        name: draft.key.name.clone(),
                        labels: draft.labels.clone(),
                        scope: draft.scope.to_string(),
                        owner: draft.owner.clone(),
                        ..v1::PolicyMetadata::default()
                    }),
                    spec: Some(v1::manifest::Spec::Check(draft.check.clone())),
                };
                (draft.found.as_deref().map(document::policy), Some(after))
            }
            Self::Policy(PolicyDraft::Remove(policy)) => (Some(document::policy(policy)), None),
            Self::Role(Pair { found, wanted }) => {
                (found.as_ref().map(document::role), wanted.as_ref().map(document::role))
            }
            Self::Grant(Pair { found, wanted }) => (
                found.as_ref().map(document::grant),
                wanted.as_ref().map(document::grant),
            ),
            Self::TokenTemplate(Pair { found, wanted }) => (
                found.as_ref().map(document::token_template),
                wanted.as_ref().map(document::token_template),
            ),
        }
    }

    /// Of a policy: what it would be. None: it is none, or would stay.
    pub fn preview(&self, policies: &Policies, now: Micros) -> Result<Option<(Key, Option<Policy>)>, Error> {
        Ok(match self {
            Self::Policy(PolicyDraft::Put(draft)) => Some((draft.key.clone(), Some(policies.preview(draft, now)?))),
            Self::Policy(PolicyDraft::Remove(policy)) => Some((policy.key.clone(), None)),
            Self::Role(_) | Self::Grant(_) | Self::TokenTemplate(_) => None,
        })
    }

    /// As it is noted among the changes.
    pub fn noted(&self) -> (ChangeKind, String, Op) {
        let op = match self.action() {
            PlannedAction::Delete => Op::Delete,
            _ => Op::Put,
        };
        match self {
            Self::Policy(draft) => (ChangeKind::Policy, draft.key().to_string(), op),
            Self::Role(_) => (ChangeKind::Role, self.name(), op),
            Self::Grant(_) => (ChangeKind::Grant, self.name(), op),
            Self::TokenTemplate(_) => (ChangeKind::TokenTemplate, self.name(), op),
        }
    }

    pub async fn store(
        &self,
        tx: &mut Tx,
        policies: &Policies,
        revision: i64,
        by: &By,
        now: Micros,
    ) -> Result<Stored, Error> {
        let caller = by.caller();
        Ok(match self {
            Self::Policy(PolicyDraft::Put(draft)) => {
                let policy = policies.put(tx, draft, revision, &caller, now).await?;
                Stored::Policy(policy.key.clone(), Some(Box::new(policy)))
            }
            Self::Policy(PolicyDraft::Remove(policy)) => {
                policies.remove(tx, policy, revision, &caller, now).await?;
                Stored::Policy(policy.key.clone(), None)
            }
            Self::Role(pair) => {
                let role = match (&pair.found, &pair.wanted) {
                    (found, Some(wanted)) => {
                        let role = Role {
                            creator: found.as_ref().map_or_else(|| by.to_string(), |it| it.creator.clone()),
                            created_at: found.as_ref().map_or(now, |it| it.created_at),
                            updated_at: now,
                            ..wanted.clone()
                        };
                        Some(grants::put_role(tx, role, found.as_ref(), revision, by, now).await?)
                    }
                    (Some(found), None) => {
                        grants::remove_role(tx, found, revision, by, now).await?;
                        None
                    }
                    (None, None) => None,
                };
                Stored::Role(self.name(), role)
            }
            Self::Grant(Pair { found, wanted }) => match (found, wanted) {
                (None, Some(wanted)) => {
                    let grant = Grant {
                        creator: by.to_string(),
                        created_at: now,
                        revision,
                        ..wanted.clone()
                    };
                    Stored::Grant(grants::insert_as(tx, grant, by, now).await?, Op::Put)
                }
                (Some(found), Some(wanted)) => {
                    let grant = grants::set_metadata(tx, found, wanted, revision, by, now).await?;
                    Stored::Grant(grant, Op::Put)
                }
                (Some(found), None) => {
                    grants::remove(tx, found, revision, by, now).await?;
                    Stored::Grant(found.clone(), Op::Delete)
                }
                (None, None) => return Err(Error::Outdated),
            },
            Self::TokenTemplate(pair) => {
                match (&pair.found, &pair.wanted) {
                    (found, Some(wanted)) => {
                        let template = Template {
                            creator: found.as_ref().map_or_else(|| by.to_string(), |it| it.creator.clone()),
                            created_at: found.as_ref().map_or(now, |it| it.created_at),
                            updated_at: now,
                            revision,
                            ..wanted.clone()
                        };
                        token_template::put(tx, &template, found.as_ref(), by, now).await?;
                    }
                    (Some(found), None) => token_template::remove(tx, found, revision, by, now).await?,
                    (None, None) => {}
                }
                Stored::TokenTemplate
            }
        })
    }
}

impl Stored {
    /// Into memory, after the commit. Whether a policy has changed, of which `policies` are all.
    pub fn publish(self, rights: &RightsOfAll, policies: &mut BTreeMap<Key, Arc<Policy>>) -> bool {
        match self {
            Self::Policy(key, Some(policy)) => {
                policies.insert(key, Arc::from(policy));
                return true;
            }
            Self::Policy(key, None) => {
                policies.remove(&key);
                return true;
            }
            Self::Role(_, Some(role)) => rights.put_role(role),
            Self::Role(name, None) => rights.remove_role(&name),
            Self::Grant(grant, Op::Put) => rights.put_grant(grant),
            Self::Grant(grant, Op::Delete) => rights.remove_grants(&grant.subject, |it| it.id == grant.id),
            Self::TokenTemplate => {}
        }
        false
    }
}

impl<T> Pair<T> {
    fn gone(found: T) -> Self {
        Self {
            found: Some(found),
            wanted: None,
        }
    }

    fn any(&self, read: impl Fn(&T) -> String) -> String {
        self.wanted
            .as_ref()
            .or(self.found.as_ref())
            .map(read)
            .unwrap_or_default()
    }

    fn action(&self, is_same: impl Fn(&T, &T) -> bool) -> PlannedAction {
        match (&self.found, &self.wanted) {
            (None, _) => PlannedAction::Create,
            (Some(_), None) => PlannedAction::Delete,
            (Some(found), Some(wanted)) if is_same(found, wanted) => PlannedAction::Unchanged,
            (Some(_), Some(_)) => PlannedAction::Update,
        }
    }
}
