//! Policies that somebody wants, found valid, each beside the one that there is: pure.

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{
    check,
    error::FieldViolation,
    ids,
    v1::{self, policy::Spec},
};

use super::{Compiled, Error, Key, Policy};
use crate::{
    access::scope::{Scope, Scopes},
    tokens::label_violations,
};

pub const NAME_RULE: &str =
    "must be 1 to 63 characters of a-z, 0-9, \"-\", \"_\" and \".\", starting and ending with a letter or digit";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Created,
    Updated,
    Unchanged,
}

#[derive(Clone, Debug)]
pub struct Draft {
    pub key: Key,
    pub labels: BTreeMap<String, String>,
    pub check: v1::Check,
    pub scope: Scope,
    pub owner: String,
    /// The one that there is.
    pub found: Option<Arc<Policy>>,
    /// The revision that the caller knows; 0: whatever it is.
    seen: i64,
}

impl Draft {
    pub fn action(&self) -> Action {
        match &self.found {
            None => Action::Created,
            Some(policy)
                if policy.labels == self.labels && policy.owner == self.owner && policy.check == self.check =>
            {
                Action::Unchanged
            }
            Some(_) => Action::Updated,
        }
    }

    /// What agents get stays as it was signed: labels and owner are nothing to them.
    pub fn is_signed(&self) -> Option<&Arc<Policy>> {
        self.found.as_ref().filter(|policy| policy.check == self.check)
    }
}

/// Those of a request, for somebody who reaches this. `path` says where the request has each.
pub fn drafts(
    current: &Compiled,
    policies: Vec<v1::Policy>,
    path: impl Fn(usize) -> String,
    scopes: &Scopes,
) -> Result<Vec<Draft>, Error> {
    let mut drafts = validate(policies, path).map_err(Error::Invalid)?;
    for draft in &mut drafts {
        let found = current.policies.get(&draft.key);
        draft.scope = match found {
            Some(policy) if !scopes.has(&policy.scope) => return Err(Error::Taken(draft.key.clone())),
            // It keeps the one that it was made in.
            Some(policy) if draft.scope.is_all() || draft.scope == policy.scope => policy.scope.clone(),
            Some(_) => {
                return Err(Error::Scope(draft.key.clone(), crate::access::scope::Unclear::Foreign));
            }
            None => scopes
                .for_new(&draft.scope)
                .map_err(|unclear| Error::Scope(draft.key.clone(), unclear))?,
        };
        if let Some(policy) = found
            && draft.owner.is_empty()
        {
            draft.owner.clone_from(&policy.owner);
        }
        super::is_current(&draft.key, draft.seen, found.map_or(0, |policy| policy.revision))?;
        draft.found = found.cloned();
    }
    Ok(drafts)
}

fn validate(policies: Vec<v1::Policy>, path: impl Fn(usize) -> String) -> Result<Vec<Draft>, Vec<FieldViolation>> {
    let mut violations = Vec::new();
    let mut drafts: Vec<Draft> = Vec::with_capacity(policies.len());
    for (index, policy) in policies.into_iter().enumerate() {
        let at = path(index);
        let mut violate = |field: &str, text: String| {
            violations.push(FieldViolation::new(format!("{at}.{field}"), text));
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
        if !metadata.owner.is_empty() && !ids::name_is_valid(&metadata.owner) {
            violate("metadata.owner", NAME_RULE.into());
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
        if drafts.iter().any(|draft| draft.key == key) {
            violate("metadata.name", format!("{key} is in this request twice"));
        }
        drafts.push(Draft {
            key,
            labels: metadata.labels,
            check,
            scope,
            owner: metadata.owner,
            found: None,
            seen: metadata.revision,
        });
    }
    match violations.is_empty() {
        true => Ok(drafts),
        false => Err(violations),
    }
}
