//! `musterctl rollback` and `musterctl versions`: what a resource has been, and back to that. A rollback is a new change like any
//! other, planned and applied as one.

use clap::Args;
use jiff::Timestamp;
use muster_proto::{json, manifest, v1};
use serde_json::Value;

use super::{apply, export::parse_kind, plan::Wanted};
use crate::{
    age,
    app::Session,
    client::Client,
    exit::Exit,
    output::{
        Row,
        table::{Cell, Column},
    },
    paging,
    problem::{Problem, status::Asked},
    resources::LimitArgs,
};

/// Make a resource again what it was
///
/// Without --to-version it becomes what it was before its last change; one that was deleted comes back. It is a new change with a
/// higher version, planned and asked about like those of apply.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  musterctl versions check disk-root\n  musterctl rollback check disk-root\n  musterctl rollback check disk-root --to-version 4711"
)]
pub struct RollbackArgs {
    /// check, role, grant or tokentemplate
    #[arg(value_name = "KIND", value_parser = parse_kind)]
    kind: String,
    #[arg(value_name = "NAME")]
    name: String,
    /// A revision, or the version of a check, as musterctl versions lists them
    #[arg(long, value_name = "VERSION")]
    to_version: Option<i64>,
    /// Do not ask, however many machines it touches
    #[arg(short, long)]
    yes: bool,
}

/// List what a resource has been, and who made it that
///
/// The newest first; the last hundred changes are kept, also of what is deleted. With -o yaml and -o json each has its manifest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  musterctl versions check disk-root\n  musterctl versions role on-call -o yaml")]
pub struct VersionsArgs {
    /// check, role, grant or tokentemplate
    #[arg(value_name = "KIND", value_parser = parse_kind)]
    kind: String,
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    limit: LimitArgs,
}

impl Row for v1::ManifestVersion {
    const COLUMNS: &'static [Column] = &[
        Column::new("REVISION"),
        Column::new("ACTION"),
        Column::new("AGE"),
        Column::cut("BY"),
        Column::new("VERSION"),
        Column::wide("TIME"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let action = match self.action() {
            v1::PlannedAction::Create => "created",
            v1::PlannedAction::Update => "updated",
            v1::PlannedAction::Delete => "deleted",
            v1::PlannedAction::Unchanged | v1::PlannedAction::Unspecified => "",
        };
        let version = match version(self) {
            0 => String::new(),
            version => version.to_string(),
        };
        vec![
            Cell::new(self.revision.to_string()),
            Cell::new(action),
            age::since(now, self.time.as_ref()).into(),
            Cell::new(&self.caller),
            Cell::new(version),
            Cell::new(age::dated(now, self.time.as_ref()).unwrap_or_default()),
        ]
    }

    fn name(&self) -> String {
        self.revision.to_string()
    }

    fn json(&self) -> Value {
        let mut value = json::to_json(self);
        if let Some(document) = &self.manifest {
            value["manifest"] = manifest::render(document);
        }
        value
    }
}

fn version(version: &v1::ManifestVersion) -> i64 {
    let metadata = version
        .manifest
        .as_ref()
        .and_then(|document| document.metadata.as_ref());
    metadata.map_or(0, |metadata| metadata.version)
}

pub async fn list(args: VersionsArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new(format!("list the versions of {}/{}", args.kind, args.name));
    let client = session.connect(&asked).await?;
    let versions = versions(&client, &asked, &args.kind, &args.name, args.limit.count()).await?;
    session.printer.list(&versions, 0)?;
    Ok(())
}

pub async fn run(args: RollbackArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new(format!("roll {}/{} back", args.kind, args.name));
    let client = session.connect(&asked).await?;
    let versions = versions(&client, &asked, &args.kind, &args.name, None).await?;
    let target = target(&versions, args.to_version).map_err(|problem| {
        problem
            .what(asked.what())
            .step(format!("musterctl versions {} {}", args.kind.to_lowercase(), args.name))
    })?;
    let mut document = target.manifest.clone().unwrap_or_default();
    if let Some(metadata) = &mut document.metadata {
        // What is there now is what the plan says, whatever it was then.
        metadata.revision = 0;
    }
    let wanted = Wanted {
        manifests: vec![document],
        ..Wanted::default()
    };
    apply::do_planned(&wanted, &client, &asked, args.yes, true, session).await
}

/// The one that was asked for, or that before the last change.
fn target(versions: &[v1::ManifestVersion], asked: Option<i64>) -> Result<&v1::ManifestVersion, Problem> {
    let mut with_content = versions.iter().filter(|it| it.manifest.is_some());
    if let Some(number) = asked {
        let found = with_content.find(|it| it.revision == number || version(it) == number);
        return found.ok_or_else(|| {
            Problem::new(Exit::NotFound, format!("there is no version {number} on file")).why("nothing was changed")
        });
    }
    let is_deleted = versions.first().is_some_and(|it| it.manifest.is_none());
    let found = if is_deleted {
        with_content.next()
    } else {
        with_content.nth(1)
    };
    found.ok_or_else(|| {
        Problem::new(Exit::NotFound, "there is nothing to go back to").why("it has not changed since it was made")
    })
}

async fn versions(
    client: &Client,
    asked: &Asked,
    kind: &str,
    name: &str,
    limit: Option<usize>,
) -> Result<Vec<v1::ManifestVersion>, Problem> {
    let list = paging::collect(limit.map(|limit| limit.min(100)), |page_size, page_token| {
        let request = v1::ListManifestVersionsRequest {
            kind: kind.to_owned(),
            name: name.to_owned(),
            page_size: page_size.min(100),
            page_token,
        };
        let call = async |request| client.manifests().list_manifest_versions(request).await;
        client.call(asked, call, request)
    });
    Ok(list.await?.items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(revisions: &[(i64, bool)]) -> Vec<v1::ManifestVersion> {
        let of = |(revision, is_there): &(i64, bool)| v1::ManifestVersion {
            revision: *revision,
            manifest: is_there.then(v1::Manifest::default),
            ..Default::default()
        };
        revisions.iter().map(of).collect()
    }

    #[test]
    fn back_is_to_before_the_last_change_or_to_what_was_said() {
        let changed = versions(&[(9, true), (5, true), (2, true)]);
        assert_eq!(target(&changed, None).unwrap().revision, 5);
        assert_eq!(target(&changed, Some(2)).unwrap().revision, 2);
        assert_eq!(target(&changed, Some(3)).unwrap_err().exit, Exit::NotFound);
        let deleted = versions(&[(9, false), (5, true)]);
        assert_eq!(target(&deleted, None).unwrap().revision, 5);
        assert_eq!(target(&deleted, Some(9)).unwrap_err().exit, Exit::NotFound);
        assert_eq!(target(&versions(&[(2, true)]), None).unwrap_err().exit, Exit::NotFound);
    }
}
