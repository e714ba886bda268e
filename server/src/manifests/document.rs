//! Resources of the configuration as documents, and what differs between two of them: pure.

use std::collections::BTreeMap;

use muster_proto::{
    manifest,
    v1::{self, PolicyMetadata, grant_spec, manifest::Spec},
};
use serde_json::Value;

use crate::{
    access::rights::{Grant, Role, Subject},
    clock::{to_optional_timestamp, to_timestamp},
    policies::Policy,
    token_templates::Template,
};

pub fn policy(policy: &Policy) -> v1::Manifest {
    v1::Manifest {
        kind: policy.key.kind.clone(),
        metadata: Some(metadata(policy)),
        spec: Some(Spec::Check(policy.check.clone())),
    }
}

pub fn metadata(policy: &Policy) -> PolicyMetadata {
    PolicyMetadata {
        name: policy.key.name.clone(),
        labels: policy.labels.clone(),
        version: policy.version,
        revision: policy.revision,
        create_time: Some(to_timestamp(policy.created_at)),
        update_time: Some(to_timestamp(policy.updated_at)),
        scope: policy.scope.to_string(),
        owner: policy.owner.clone(),
    }
}

pub fn role(role: &Role) -> v1::Manifest {
    v1::Manifest {
        kind: manifest::ROLE.into(),
        metadata: Some(PolicyMetadata {
            name: role.name.clone(),
            labels: role.labels.clone(),
            revision: role.revision,
            create_time: to_optional_timestamp(role.created_at),
            update_time: to_optional_timestamp(role.updated_at),
            owner: role.owner.clone(),
            ..PolicyMetadata::default()
        }),
        spec: Some(Spec::Role(v1::RoleSpec {
            description: role.description.clone(),
            permissions: role.permissions.names().map(str::to_owned).collect(),
        })),
    }
}

pub fn grant(grant: &Grant) -> v1::Manifest {
    v1::Manifest {
        kind: manifest::GRANT.into(),
        metadata: Some(PolicyMetadata {
            name: grant.id.clone(),
            labels: grant.labels.clone(),
            revision: grant.revision,
            create_time: to_optional_timestamp(grant.created_at),
            owner: grant.owner.clone(),
            ..PolicyMetadata::default()
        }),
        spec: Some(Spec::Grant(v1::GrantSpec {
            subject: Some(match &grant.subject {
                Subject::User(name) => grant_spec::Subject::User(name.clone()),
                Subject::ApiKey(id) => grant_spec::Subject::ApiKey(id.clone()),
            }),
            role: grant.role.clone(),
            scope: grant.scope.to_string(),
        })),
    }
}

pub fn token_template(template: &Template) -> v1::Manifest {
    v1::Manifest {
        kind: manifest::TOKEN_TEMPLATE.into(),
        metadata: Some(PolicyMetadata {
            name: template.name.clone(),
            labels: template.labels.clone(),
            revision: template.revision,
            create_time: to_optional_timestamp(template.created_at),
            update_time: to_optional_timestamp(template.updated_at),
            scope: template.scope.to_string(),
            owner: template.owner.clone(),
            ..PolicyMetadata::default()
        }),
        spec: Some(Spec::TokenTemplate(template.spec.clone())),
    }
}

/// What differs, by path, in the order of the paths. Without what the controller itself adds.
pub fn differences(before: Option<&v1::Manifest>, after: Option<&v1::Manifest>) -> Vec<v1::FieldChange> {
    let (before, mut after) = (leaves(before), leaves(after));
    let mut changes = Vec::new();
    for (path, was) in before {
        let is = after.remove(&path).unwrap_or_default();
        if was != is {
            changes.push(v1::FieldChange {
                path,
                before: was,
                after: is,
            });
        }
    }
    changes.extend(after.into_iter().map(|(path, after)| v1::FieldChange {
        path,
        before: String::new(),
        after,
    }));
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

fn leaves(document: Option<&v1::Manifest>) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    let Some(document) = document else { return leaves };
    let rendered = manifest::render(document);
    for part in ["metadata", "spec"] {
        if let Some(Value::Object(fields)) = rendered.get(part) {
            let is_meant = |name: &str| part == "spec" || matches!(name, "labels" | "scope" | "owner");
            for (name, value) in fields.iter().filter(|(name, _)| is_meant(name)) {
                collect(format!("{part}.{name}"), value, &mut leaves);
            }
        }
    }
    leaves
}

fn collect(path: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
                let path = match is_plain {
                    true => format!("{path}.{name}"),
                    false => format!("{path}[{name:?}]"),
                };
                collect(path, value, leaves);
            }
        }
        leaf => drop(leaves.insert(path, leaf.to_string())),
    }
}
