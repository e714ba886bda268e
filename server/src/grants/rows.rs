//! Roles and grants on file: read from their rows, and put there, with what they were and an event for whoever wonders.

use std::collections::BTreeMap;

use muster_proto::{digest, manifest, v1::EventSeverity};

use crate::{
    access::{
        permission::Permissions,
        rights::{ADMIN, Grant, Role, Subject},
        scope::Scope,
    },
    clock::Micros,
    events::Event,
    manifests::{
        document,
        versions::{self, Before, Step},
    },
    store::{self, ChangeKind, GrantRow, Op, RoleRow, Tx},
    users::By,
};

/// A role as it shall be; `before`: the one that there is. The revision is that of the change, which is noted already.
pub async fn put_role(
    tx: &mut Tx,
    role: Role,
    before: Option<&Role>,
    revision: i64,
    by: &By,
    now: Micros,
) -> Result<Role, store::Error> {
    let role = Role { revision, ..role };
    tx.role_put(&RoleRow {
        name: role.name.clone(),
        description: role.description.clone(),
        permissions: serde_json::json!(role.permissions.names().collect::<Vec<_>>()).to_string(),
        creator: role.creator.clone(),
        created_at: role.created_at,
        updated_at: role.updated_at,
        revision,
        owner: role.owner.clone(),
        labels: text(&role.labels),
    })
    .await?;
    let caller = by.caller();
    let was = before.map(|before| Before::of(before.revision, before.updated_at, document::role(before)));
    let step = step(manifest::ROLE, &role.name, revision, now, &caller);
    versions::put(tx, step, was, &document::role(&role)).await?;
    let (reason, what) = match before {
        None => ("ROLE_CREATED", "created"),
        Some(_) => ("ROLE_UPDATED", "changed"),
    };
    tell(tx, reason, format!("{by} has {what} role {}", role.name), by, now).await?;
    Ok(role)
}

pub async fn remove_role(tx: &mut Tx, role: &Role, revision: i64, by: &By, now: Micros) -> Result<(), store::Error> {
    tx.role_delete(&role.name).await?;
    let caller = by.caller();
    let before = Before::of(role.revision, role.updated_at, document::role(role));
    versions::delete(tx, step(manifest::ROLE, &role.name, revision, now, &caller), before).await?;
    tell(
        tx,
        "ROLE_DELETED",
        format!("{by} has deleted role {}", role.name),
        by,
        now,
    )
    .await
}

/// Puts a grant on file, whose role and subject are there, unless there is the same already.
pub async fn insert(
    tx: &mut Tx,
    subject: Subject,
    role: &str,
    scope: Scope,
    by: &By,
    now: Micros,
) -> Result<Grant, store::Error> {
    let id = id_of(&subject, role, &scope);
    let revision = tx.change_add(now, ChangeKind::Grant, &id, Op::Put).await?;
    let grant = Grant {
        id,
        subject,
        role: role.to_owned(),
        scope,
        creator: by.to_string(),
        created_at: now,
        revision,
        owner: String::new(),
        labels: BTreeMap::new(),
    };
    insert_as(tx, grant, by, now).await
}

/// The same, of which the change is noted already.
pub async fn insert_as(tx: &mut Tx, grant: Grant, by: &By, now: Micros) -> Result<Grant, store::Error> {
    let row = GrantRow {
        id: grant.id.clone(),
        subject_kind: grant.subject.kind().to_owned(),
        subject: grant.subject.name().to_owned(),
        role: grant.role.clone(),
        scope: grant.scope.to_string(),
        creator: grant.creator.clone(),
        created_at: now,
        revision: grant.revision,
        owner: grant.owner.clone(),
        labels: text(&grant.labels),
    };
    if tx.grant_insert(&row).await? {
        let caller = by.caller();
        let step = step(manifest::GRANT, &grant.id, grant.revision, now, &caller);
        versions::put(tx, step, None, &document::grant(&grant)).await?;
        let text = format!("{by} has given {} to {}", told(&grant), grant.subject);
        tell(tx, "GRANT_CREATED", text, by, now).await?;
    }
    Ok(grant)
}

/// Another owner or other labels; nothing else of a grant changes.
pub async fn set_metadata(
    tx: &mut Tx,
    before: &Grant,
    wanted: &Grant,
    revision: i64,
    by: &By,
    now: Micros,
) -> Result<Grant, store::Error> {
    let labels = text(&wanted.labels);
    tx.grant_set_metadata(&before.id, &wanted.owner, &labels, revision)
        .await?;
    let grant = Grant {
        owner: wanted.owner.clone(),
        labels: wanted.labels.clone(),
        revision,
        ..before.clone()
    };
    let caller = by.caller();
    let was = Before::of(before.revision, before.created_at, document::grant(before));
    let step = step(manifest::GRANT, &grant.id, revision, now, &caller);
    versions::put(tx, step, Some(was), &document::grant(&grant)).await?;
    Ok(grant)
}

pub async fn remove(tx: &mut Tx, grant: &Grant, revision: i64, by: &By, now: Micros) -> Result<(), store::Error> {
    tx.grant_delete(&grant.id).await?;
    let text = format!("{by} has taken {} from {}", told(grant), grant.subject);
    gone(tx, grant, revision, by, now).await?;
    tell(tx, "GRANT_DELETED", text, by, now).await
}

/// All of a subject that goes itself, which is told already.
pub async fn remove_of(
    tx: &mut Tx,
    subject: &Subject,
    grants: &[Grant],
    by: &By,
    now: Micros,
) -> Result<(), store::Error> {
    tx.grant_delete_of(subject.kind(), subject.name()).await?;
    for grant in grants {
        let revision = tx.change_add(now, ChangeKind::Grant, &grant.id, Op::Delete).await?;
        gone(tx, grant, revision, by, now).await?;
    }
    Ok(())
}

async fn gone(tx: &mut Tx, grant: &Grant, revision: i64, by: &By, now: Micros) -> Result<(), store::Error> {
    let caller = by.caller();
    let before = Before::of(grant.revision, grant.created_at, document::grant(grant));
    versions::delete(tx, step(manifest::GRANT, &grant.id, revision, now, &caller), before).await
}

fn step<'a>(kind: &'a str, name: &'a str, revision: i64, at: Micros, caller: &'a str) -> Step<'a> {
    Step {
        kind,
        name,
        revision,
        at,
        caller,
    }
}

/// The same grant has the same id, so that there is none twice.
pub fn id_of(subject: &Subject, role: &str, scope: &Scope) -> String {
    if let (Subject::User(name), ADMIN, true) = (subject, role, scope.is_all()) {
        // As those that a migration has made of the users of before.
        return format!("admin-{name}");
    }
    let digest = digest::of_bytes(format!("{subject}\0{role}\0{scope}").as_bytes());
    let hex = digest.rsplit(':').next().unwrap_or_default();
    uuid::Uuid::try_parse(&hex[..32]).unwrap_or_default().to_string()
}

fn told(grant: &Grant) -> String {
    match grant.scope.is_all() {
        true => format!("role {}", grant.role),
        false => format!("role {} for {}", grant.role, grant.scope),
    }
}

async fn tell(tx: &mut Tx, reason: &str, text: String, by: &By, now: Micros) -> Result<(), store::Error> {
    let event = Event::new(reason, None, text, now)
        .severity(EventSeverity::Info)
        .with("by", by);
    tx.event_insert_all(&[event.into_row()]).await
}

fn text(labels: &BTreeMap<String, String>) -> String {
    serde_json::json!(labels).to_string()
}

pub fn role_of(row: RoleRow) -> Result<Role, store::Error> {
    let corrupt = |error: serde_json::Error| store::Error::Corrupt {
        table: "roles",
        id: row.name.clone(),
        problem: error.to_string(),
    };
    let names: Vec<String> = serde_json::from_str(&row.permissions).map_err(corrupt)?;
    let labels = serde_json::from_str(&row.labels).map_err(corrupt)?;
    Ok(Role {
        labels,
        name: row.name,
        description: row.description,
        permissions: Permissions::of_file(names),
        built_in: false,
        creator: row.creator,
        created_at: row.created_at,
        updated_at: row.updated_at,
        revision: row.revision,
        owner: row.owner,
    })
}

pub fn grant_of(row: GrantRow) -> Result<Grant, store::Error> {
    let corrupt = |problem: String| store::Error::Corrupt {
        table: "grants",
        id: row.id.clone(),
        problem,
    };
    let kind = format!("subjects are not {}", row.subject_kind);
    Ok(Grant {
        subject: Subject::of(&row.subject_kind, &row.subject).ok_or_else(|| corrupt(kind))?,
        scope: Scope::parse(&row.scope).map_err(|error| corrupt(error.to_string()))?,
        labels: serde_json::from_str(&row.labels).map_err(|error| corrupt(error.to_string()))?,
        id: row.id.clone(),
        role: row.role,
        creator: row.creator,
        created_at: row.created_at,
        revision: row.revision,
        owner: row.owner,
    })
}
