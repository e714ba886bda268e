//! What resources have been: one row for each change, in the transaction of the change itself.

use muster_proto::{json, v1};

use crate::{
    clock::Micros,
    store::{self, ManifestVersionRow, Tx},
};

/// Of one resource.
pub const KEPT: i64 = 100;

pub const CREATE: &str = "create";
pub const UPDATE: &str = "update";
pub const DELETE: &str = "delete";

/// One change of one resource.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    pub revision: i64,
    pub at: Micros,
    /// As in the audit log.
    pub caller: &'a str,
}

/// What a resource was until then, which is on file too unless it is older than this log.
#[derive(Debug)]
pub struct Before {
    revision: i64,
    at: Micros,
    manifest: v1::Manifest,
}

impl Before {
    pub fn of(revision: i64, at: Micros, manifest: v1::Manifest) -> Self {
        Self { revision, at, manifest }
    }
}

pub async fn put(
    tx: &mut Tx,
    step: Step<'_>,
    before: Option<Before>,
    after: &v1::Manifest,
) -> Result<(), store::Error> {
    let action = if before.is_some() { UPDATE } else { CREATE };
    add(tx, step, before, action, text(after)).await
}

pub async fn delete(tx: &mut Tx, step: Step<'_>, before: Before) -> Result<(), store::Error> {
    add(tx, step, Some(before), DELETE, String::new()).await
}

async fn add(
    tx: &mut Tx,
    step: Step<'_>,
    before: Option<Before>,
    action: &str,
    manifest: String,
) -> Result<(), store::Error> {
    let Step { kind, name, .. } = step;
    let row = |revision, at, caller: &str, action: &str, manifest| ManifestVersionRow {
        revision,
        kind: kind.to_owned(),
        name: name.to_owned(),
        at,
        caller: caller.to_owned(),
        action: action.to_owned(),
        manifest,
    };
    // A revision of 0 is that of what was there before revisions were.
    if let Some(before) = before.filter(|before| before.revision > 0)
        && tx.manifest_version_count(kind, name).await? == 0
    {
        let first = row(before.revision, before.at, "", CREATE, text(&before.manifest));
        tx.manifest_version_add(&first).await?;
    }
    tx.manifest_version_add(&row(step.revision, step.at, step.caller, action, manifest))
        .await?;
    tx.manifest_version_trim_to(kind, name, KEPT).await.map(|_| ())
}

fn text(manifest: &v1::Manifest) -> String {
    json::to_json(manifest).to_string()
}

/// A row as the contract has it.
pub fn read(row: ManifestVersionRow) -> Result<v1::ManifestVersion, store::Error> {
    let corrupt = |problem: String| store::Error::Corrupt {
        table: "manifest_versions",
        id: row.revision.to_string(),
        problem,
    };
    let manifest = match row.manifest.as_str() {
        "" => None,
        text => Some(json::from_json(text).map_err(|error| corrupt(error.to_string()))?),
    };
    let action = match row.action.as_str() {
        CREATE => v1::PlannedAction::Create,
        UPDATE => v1::PlannedAction::Update,
        DELETE => v1::PlannedAction::Delete,
        other => return Err(corrupt(format!("{other} is no action"))),
    };
    Ok(v1::ManifestVersion {
        revision: row.revision,
        time: Some(crate::clock::to_timestamp(row.at)),
        caller: row.caller,
        action: action as i32,
        manifest,
    })
}
