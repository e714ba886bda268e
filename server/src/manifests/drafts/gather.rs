//! From a request to drafts: every manifest is looked at before any is refused, so that all mistakes are told at once.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::{
    error::FieldViolation,
    ids,
    v1::{self, PlannedAction, PolicyMetadata, grant_spec, manifest::Spec},
};

use super::{
    super::{Error, MAX_MANIFESTS, Manifests, Reach},
    Draft, Pair, PolicyDraft, Wanted,
};
use crate::{
    access::{
        permission::Permissions,
        rights::{Grant, Role, Subject},
        scope::Scope,
    },
    clock::{self, Micros},
    grants::{self, NewRole},
    policies::{self, Compiled, draft::NAME_RULE},
    token_templates::{self, Template},
    tokens::label_violations,
    users::By,
};

/// What a request has of each kind, and where.
#[derive(Default)]
struct Sorted {
    policies: Vec<(usize, v1::Policy)>,
    roles: Vec<(usize, PolicyMetadata, v1::RoleSpec)>,
    grants: Vec<(usize, PolicyMetadata, v1::GrantSpec)>,
    token_templates: Vec<(usize, PolicyMetadata, v1::TokenTemplateSpec)>,
}

impl Manifests {
    /// In the order of the manifests, then what is deleted.
    pub async fn drafts(&self, current: &Compiled, wanted: Wanted, reach: &Reach) -> Result<Vec<Draft>, Error> {
        let mut violations = request_violations(&wanted);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let Wanted {
            manifests,
            owner,
            prune,
            delete,
        } = wanted;
        let sorted = sort(manifests, &owner, &mut violations);
        permitted(&sorted, reach)?;

        let mut found: Vec<(usize, Draft)> = Vec::new();
        let (places, policies): (Vec<usize>, Vec<v1::Policy>) = sorted.policies.into_iter().unzip();
        let path = |index: usize| format!("manifests[{}]", places[index]);
        match policies::draft::drafts(current, policies, path, &reach.policies) {
            Ok(drafts) => {
                let drafts = drafts
                    .into_iter()
                    .map(|it| Draft::Policy(PolicyDraft::Put(Box::new(it))));
                found.extend(places.iter().copied().zip(drafts));
            }
            Err(policies::Error::Invalid(more)) => violations.extend(more),
            Err(error) => return Err(error.into()),
        }
        for (index, metadata, spec) in sorted.roles {
            match self.role(index, metadata, spec)? {
                Ok(pair) => found.push((index, Draft::Role(pair))),
                Err(more) => violations.extend(more),
            }
        }
        for (index, metadata, spec) in sorted.grants {
            match self.grant(index, metadata, spec)? {
                Ok(pair) => found.push((index, Draft::Grant(pair))),
                Err(more) => violations.extend(more),
            }
        }
        let reaches_templates = prune && !reach.token_templates.is_none();
        let templates = match reaches_templates || !sorted.token_templates.is_empty() {
            true => token_templates::list(&self.db).await?,
            false => Vec::new(),
        };
        let templates: BTreeMap<String, Template> = templates.into_iter().map(|it| (it.name.clone(), it)).collect();
        for (index, metadata, spec) in sorted.token_templates {
            match self.token_template(index, metadata, spec, &templates, reach)? {
                Ok(pair) => found.push((index, Draft::TokenTemplate(pair))),
                Err(more) => violations.extend(more),
            }
        }
        found.sort_by_key(|(index, _)| *index);
        let mut names = BTreeSet::new();
        for (index, draft) in &found {
            // Of policies this is found already.
            if !matches!(draft, Draft::Policy(_)) && !names.insert((draft.kind().to_owned(), draft.name())) {
                let text = format!("{}/{} is in this request twice", draft.kind(), draft.name());
                violations.push(FieldViolation::new(format!("manifests[{index}].metadata.name"), text));
            }
        }
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let mut drafts: Vec<Draft> = found.into_iter().map(|(_, draft)| draft).collect();
        if delete {
            drafts = drafts.into_iter().filter_map(Draft::deletion).collect();
            // After the grants that give them.
            drafts.sort_by_key(|draft| matches!(draft, Draft::Role(_)));
        }
        if prune {
            self.prune(current, templates, &owner, reach, &mut drafts);
        }
        self.fit_together(&drafts).await?;
        Ok(drafts)
    }

    /// What a plan does not ask: whether this caller may do it.
    pub async fn check(&self, drafts: &[Draft], by: &By, now: Micros) -> Result<(), Error> {
        for draft in drafts.iter().filter(|draft| draft.is_change()) {
            match draft {
                Draft::Role(Pair { wanted: Some(role), .. }) => {
                    grants::refuse_escalation(&role.permissions, by)?;
                }
                Draft::Grant(Pair {
                    wanted: Some(grant),
                    found: None,
                }) => {
                    let permissions = planned_role(drafts, &grant.role).map(|role| role.permissions.clone());
                    match permissions {
                        Some(permissions) => grants::refuse_escalation(&permissions, by)?,
                        None => drop(self.grants.grantable(&grant.role, by)?),
                    }
                }
                _ => {}
            }
        }
        let gone: BTreeSet<&str> = drafts
            .iter()
            .filter_map(removed_grant)
            .map(|it| it.id.as_str())
            .collect();
        if !gone.is_empty()
            && self
                .users
                .leaves_no_admin(|it| gone.contains(it.id.as_str()), now)
                .await?
        {
            return Err(grants::Error::LastAdmin.into());
        }
        Ok(())
    }

    fn role(
        &self,
        index: usize,
        metadata: PolicyMetadata,
        spec: v1::RoleSpec,
    ) -> Result<Result<Pair<Role>, Vec<FieldViolation>>, Error> {
        let mut violations = own_violations(index, &metadata, "a role");
        if !ids::name_is_valid(&metadata.name) {
            violations.push(FieldViolation::new(
                format!("manifests[{index}].metadata.name"),
                NAME_RULE,
            ));
        }
        let new = NewRole {
            name: metadata.name.clone(),
            description: spec.description,
            permissions: spec.permissions,
        };
        let permissions = grants::validate(&new).unwrap_or_else(|more| {
            let within =
                |it: FieldViolation| (it.field != "name").then(|| it.within(&format!("manifests[{index}].role")));
            violations.extend(more.into_iter().filter_map(within));
            Permissions::default()
        });
        if !violations.is_empty() {
            return Ok(Err(violations));
        }
        let found = self.grants.rights().role(&new.name);
        if found.as_ref().is_some_and(|role| role.built_in) {
            return Err(grants::Error::BuiltIn(new.name).into());
        }
        let seen = metadata.revision;
        let is = found.as_ref().map_or(0, |role| role.revision);
        if seen > 0 && seen != is {
            return Err(grants::Error::Conflict { seen, is }.into());
        }
        let owner = kept(metadata.owner, found.as_ref().map(|role| &role.owner));
        let wanted = Role {
            name: new.name,
            description: new.description,
            permissions,
            built_in: false,
            creator: String::new(),
            created_at: 0,
            updated_at: 0,
            revision: 0,
            owner,
            labels: metadata.labels,
        };
        Ok(Ok(Pair {
            found,
            wanted: Some(wanted),
        }))
    }

    fn grant(
        &self,
        index: usize,
        metadata: PolicyMetadata,
        spec: v1::GrantSpec,
    ) -> Result<Result<Pair<Grant>, Vec<FieldViolation>>, Error> {
        let mut violations = own_violations(index, &metadata, "a grant");
        let mut violate = |field: &str, text: String| {
            violations.push(FieldViolation::new(format!("manifests[{index}].{field}"), text));
        };
        let subject = match spec.subject {
            Some(grant_spec::Subject::User(name)) if !name.is_empty() => Some(Subject::User(name)),
            Some(grant_spec::Subject::ApiKey(id)) if !id.is_empty() => Some(Subject::ApiKey(id)),
            _ => {
                violate("grant", "has neither user nor apiKey: say who gets the role".into());
                None
            }
        };
        if spec.role.is_empty() {
            violate(
                "grant.role",
                "is missing; `musterctl role list` shows what there is".into(),
            );
        }
        let scope = Scope::parse(&spec.scope).unwrap_or_else(|error| {
            violate("grant.scope", error.to_string());
            Scope::ALL
        });
        let id = subject
            .as_ref()
            .map(|subject| grants::id_of(subject, &spec.role, &scope));
        if let Some(id) = &id
            && !metadata.name.is_empty()
            && metadata.name != *id
        {
            let text =
                format!("is not the id of this grant, which is made of what it says: leave it out, or write {id}");
            violate("metadata.name", text);
        }
        let (Some(subject), Some(id), true) = (subject, id, violations.is_empty()) else {
            return Ok(Err(violations));
        };
        let found = self.grants.rights().grant(&id);
        let seen = metadata.revision;
        let is = found.as_ref().map_or(0, |grant| grant.revision);
        if seen > 0 && seen != is {
            return Err(grants::Error::Conflict { seen, is }.into());
        }
        let owner = kept(metadata.owner, found.as_ref().map(|grant| &grant.owner));
        let wanted = Grant {
            id,
            subject,
            role: spec.role,
            scope,
            creator: String::new(),
            created_at: 0,
            revision: 0,
            owner,
            labels: metadata.labels,
        };
        Ok(Ok(Pair {
            found,
            wanted: Some(wanted),
        }))
    }

    /// What has this owner, of what the caller reaches.
    fn prune(
        &self,
        current: &Compiled,
        templates: BTreeMap<String, Template>,
        owner: &str,
        reach: &Reach,
        drafts: &mut Vec<Draft>,
    ) {
        let kept: BTreeSet<(String, String)> = drafts.iter().map(|it| (it.kind().to_owned(), it.name())).collect();
        let goes = |draft: &Draft| !kept.contains(&(draft.kind().to_owned(), draft.name()));
        let mut removed = Vec::new();
        let policies = current.policies.values();
        let policies = policies.filter(|policy| policy.owner == owner && reach.policies.has(&policy.scope));
        removed.extend(policies.map(|policy| Draft::Policy(PolicyDraft::Remove(policy.clone()))));
        let templates = templates.into_values();
        let templates = templates.filter(|it| it.owner == owner && reach.token_templates.has(&it.scope));
        removed.extend(templates.map(|found| Draft::TokenTemplate(Pair::gone(found))));
        let rights = self.grants.rights();
        // Grants before the roles that they give.
        if reach.grants {
            let grants = rights.grants().into_iter().filter(|grant| grant.owner == owner);
            removed.extend(grants.map(|found| Draft::Grant(Pair::gone(found))));
        }
        if reach.roles {
            let roles = rights
                .roles()
                .into_iter()
                .filter(|role| role.owner == owner && !role.built_in);
            removed.extend(roles.map(|found| Draft::Role(Pair::gone(found))));
        }
        drafts.extend(removed.into_iter().filter(goes));
    }

    /// Whether everything that is referred to is there, now or afterwards, and nothing goes that is still referred to.
    async fn fit_together(&self, drafts: &[Draft]) -> Result<(), Error> {
        let rights = self.grants.rights();
        let gone: BTreeSet<&str> = drafts
            .iter()
            .filter_map(removed_grant)
            .map(|it| it.id.as_str())
            .collect();
        for draft in drafts.iter().filter(|draft| draft.is_change()) {
            match draft {
                Draft::Grant(Pair {
                    wanted: Some(grant),
                    found: None,
                }) => {
                    let is_planned = planned_role(drafts, &grant.role).is_some();
                    if !is_planned && rights.role(&grant.role).is_none() {
                        return Err(grants::Error::NoRole(grant.role.clone()).into());
                    }
                    self.is_there(&grant.subject).await?;
                }
                Draft::Role(Pair {
                    found: Some(role),
                    wanted: None,
                }) => {
                    let is_of_role = |grant: &&Grant| grant.role == role.name && !gone.contains(grant.id.as_str());
                    let planned = drafts.iter().filter_map(|draft| match draft {
                        Draft::Grant(Pair {
                            wanted: Some(grant),
                            found: None,
                        }) => Some(grant),
                        _ => None,
                    });
                    let count = rights.grants().iter().filter(is_of_role).count() + planned.filter(is_of_role).count();
                    if count > 0 {
                        let name = role.name.clone();
                        return Err(grants::Error::InUse { name, count }.into());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn is_there(&self, subject: &Subject) -> Result<(), Error> {
        let is_there = match subject {
            Subject::User(name) => self.users.get(name).await?.row.revoked_at == 0,
            Subject::ApiKey(id) => {
                let key = self.api_keys.get(id)?;
                key.revoked_at == 0 && key.expires_at > clock::now()
            }
        };
        match is_there {
            true => Ok(()),
            false => Err(grants::Error::NoSubject(subject.clone()).into()),
        }
    }
}

fn request_violations(wanted: &Wanted) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    let count = wanted.manifests.len();
    if count > MAX_MANIFESTS || (count == 0 && !wanted.prune) {
        let text = format!("has {count} manifests; a request takes 1 to {MAX_MANIFESTS}");
        violations.push(FieldViolation::new("manifests", text));
    }
    if wanted.owner.is_empty() {
        if wanted.prune {
            let text = "is missing: what has this owner, and is not among the manifests, is deleted";
            violations.push(FieldViolation::new("owner", text));
        }
    } else if !ids::name_is_valid(&wanted.owner) {
        violations.push(FieldViolation::new("owner", NAME_RULE));
    }
    if wanted.delete && (wanted.prune || !wanted.owner.is_empty()) {
        let text = "deletes what the manifests name, whoever owns it: it takes neither owner nor prune";
        violations.push(FieldViolation::new("delete", text));
    }
    violations
}

fn sort(manifests: Vec<v1::Manifest>, owner: &str, violations: &mut Vec<FieldViolation>) -> Sorted {
    let mut sorted = Sorted::default();
    for (index, manifest) in manifests.into_iter().enumerate() {
        let mut metadata = manifest.metadata.unwrap_or_default();
        if metadata.owner.is_empty() {
            owner.clone_into(&mut metadata.owner);
        }
        let kind = match &manifest.spec {
            Some(Spec::Check(_)) => crate::policies::Key::CHECK,
            Some(Spec::Role(_)) => muster_proto::manifest::ROLE,
            Some(Spec::Grant(_)) => muster_proto::manifest::GRANT,
            Some(Spec::TokenTemplate(_)) => muster_proto::manifest::TOKEN_TEMPLATE,
            None => {
                let text = "is missing: one of check, role, grant and tokenTemplate";
                violations.push(FieldViolation::new(format!("manifests[{index}].spec"), text));
                continue;
            }
        };
        if !manifest.kind.is_empty() && manifest.kind != kind {
            let text = format!("is {:?}, but the spec is that of a {kind}", manifest.kind);
            violations.push(FieldViolation::new(format!("manifests[{index}].kind"), text));
        }
        match manifest.spec {
            Some(Spec::Check(check)) => {
                let policy = v1::Policy {
                    kind: kind.to_owned(),
                    metadata: Some(metadata),
                    spec: Some(v1::policy::Spec::Check(check)),
                    counts: None,
                };
                sorted.policies.push((index, policy));
            }
            Some(Spec::Role(spec)) => sorted.roles.push((index, metadata, spec)),
            Some(Spec::Grant(spec)) => sorted.grants.push((index, metadata, spec)),
            Some(Spec::TokenTemplate(spec)) => sorted.token_templates.push((index, metadata, spec)),
            None => {}
        }
    }
    sorted
}

fn permitted(sorted: &Sorted, reach: &Reach) -> Result<(), Error> {
    let lacks = [
        (
            !sorted.policies.is_empty() && reach.policies.is_none(),
            reach.needed.policies,
        ),
        (!sorted.roles.is_empty() && !reach.roles, reach.needed.roles),
        (!sorted.grants.is_empty() && !reach.grants, reach.needed.grants),
        (
            !sorted.token_templates.is_empty() && reach.token_templates.is_none(),
            reach.needed.token_templates,
        ),
    ];
    match lacks.into_iter().find(|(is_lacking, _)| *is_lacking) {
        Some((_, permission)) => Err(Error::Missing(permission)),
        None => Ok(()),
    }
}

/// Of the metadata of what belongs to no scope.
fn own_violations(index: usize, metadata: &PolicyMetadata, what: &str) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    let mut violate = |field: &str, text: String| {
        violations.push(FieldViolation::new(
            format!("manifests[{index}].metadata.{field}"),
            text,
        ));
    };
    for violation in label_violations("labels", &metadata.labels) {
        violate(&violation.field, violation.description);
    }
    if !metadata.scope.is_empty() {
        violate(
            "scope",
            format!("{what} belongs to no scope; that of a grant stands in its spec"),
        );
    }
    if !metadata.owner.is_empty() && !ids::name_is_valid(&metadata.owner) {
        violate("owner", NAME_RULE.into());
    }
    violations
}

/// Who names no owner keeps the one there is.
pub(super) fn kept(owner: String, found: Option<&String>) -> String {
    match found {
        Some(found) if owner.is_empty() => found.clone(),
        _ => owner,
    }
}

fn planned_role<'a>(drafts: &'a [Draft], name: &str) -> Option<&'a Role> {
    drafts.iter().find_map(|draft| match draft {
        Draft::Role(Pair { wanted: Some(role), .. }) if role.name == name => Some(role),
        _ => None,
    })
}

fn removed_grant(draft: &Draft) -> Option<&Grant> {
    match draft {
        Draft::Grant(pair) if draft.action() == PlannedAction::Delete => pair.found.as_ref(),
        _ => None,
    }
}
