//! A policy as a row, a name, a page and a manifest. The manifest form is made by `muster_proto::manifest`.

use jiff::Timestamp;
use muster_proto::{manifest, v1};
use serde_json::Value;

use crate::{
    age, count,
    output::{
        Row, document,
        page::Page,
        style::Tone,
        table::{Cell, Column},
    },
    resources,
};

impl Row for v1::Policy {
    const COLUMNS: &'static [Column] = &[
        Column::new("POLICY"),
        Column::cut("SELECTOR"),
        Column::sparse("SCOPE"),
        Column::new("EVERY"),
        Column::new("APPLIED"),
        Column::new("REFUSED"),
        Column::new("UPDATED"),
        Column::cut("DESCRIPTION"),
        Column::wide("RUN"),
        Column::wide("VERSION"),
        Column::wide("LABELS"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let metadata = self.metadata.clone().unwrap_or_default();
        let check = check(self);
        let every = check.and_then(|check| check.schedule?.interval.as_ref().map(age::span_of));
        let updated = age::since(now, metadata.update_time.as_ref());
        vec![
            Cell::new(reference(self)),
            Cell::new(check.map(|check| check.selector.as_str()).unwrap_or_default()),
            Cell::new(&metadata.scope),
            every.into(),
            applied(self),
            refused(self),
            updated.map(|age| format!("{age} ago")).into(),
            Cell::new(check.map(|check| check.description.as_str()).unwrap_or_default()),
            Cell::new(
                check
                    .and_then(|check| check.run.as_ref())
                    .map(run_kind)
                    .unwrap_or_default(),
            ),
            Cell::new(metadata.version.to_string()),
            Cell::new(resources::labels(&metadata.labels)),
        ]
    }

    fn name(&self) -> String {
        reference(self)
    }

    fn json(&self) -> Value {
        manifest::render_policy(self)
    }
}

/// "Check/disk-root".
pub fn reference(policy: &v1::Policy) -> String {
    let name = policy
        .metadata
        .as_ref()
        .map(|metadata| metadata.name.as_str())
        .unwrap_or_default();
    format!("{}/{name}", policy.kind)
}

/// The page of `policy get`: where it stands, then what it says.
pub fn describe(page: &mut Page, policy: &v1::Policy, now: Timestamp) {
    let metadata = policy.metadata.clone().unwrap_or_default();
    page.field("Policy", reference(policy));
    page.field("Version", metadata.version.to_string());
    page.field(
        "Created",
        age::dated(now, metadata.create_time.as_ref()).unwrap_or_default(),
    );
    page.field(
        "Updated",
        age::dated(now, metadata.update_time.as_ref()).unwrap_or_default(),
    );
    page.field("Labels", resources::labels(&metadata.labels));
    page.field("Scope", &metadata.scope);
    if let Some(counts) = &policy.counts {
        page.field(
            "Applied",
            format!(
                "by {} of {}",
                counts.applied,
                count::of(i64::from(counts.assigned), "agent", "agents")
            ),
        );
        if counts.refused > 0 {
            page.toned(
                "Refused",
                format!("by {}; see `musterctl agent get`", counts.refused),
                Tone::Bad,
            );
        }
    }
    let manifest = manifest::render_policy(policy);
    page.section("Spec").lines(&document::yaml(&manifest["spec"]));
}

fn check(policy: &v1::Policy) -> Option<&v1::Check> {
    match policy.spec.as_ref()? {
        v1::policy::Spec::Check(check) => Some(check),
    }
}

fn applied(policy: &v1::Policy) -> Cell {
    let Some(counts) = &policy.counts else {
        return Cell::new("");
    };
    let tone = if counts.applied < counts.assigned {
        Tone::Warning
    } else {
        Tone::Plain
    };
    Cell::toned(format!("{}/{}", counts.applied, counts.assigned), tone)
}

fn refused(policy: &v1::Policy) -> Cell {
    match policy.counts.as_ref().map_or(0, |counts| counts.refused) {
        0 => Cell::new(""),
        refused => Cell::toned(refused.to_string(), Tone::Bad),
    }
}

fn run_kind(run: &v1::Run) -> String {
    if let Some(program) = run.command.first() {
        return program.clone();
    }
    let kinds = [
        (run.disk.is_some(), "disk"),
        (run.load.is_some(), "load"),
        (run.memory.is_some(), "memory"),
        (run.process.is_some(), "process"),
        (run.tcp.is_some(), "tcp"),
        (run.http.is_some(), "http"),
    ];
    kinds
        .iter()
        .find(|(is_set, _)| *is_set)
        .map(|(_, kind)| (*kind).to_owned())
        .unwrap_or_default()
}
