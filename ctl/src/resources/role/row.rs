//! How roles and permissions look.

use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use crate::{
    age,
    output::{
        Row,
        page::Page,
        table::{Cell, Column},
    },
    resources,
};

impl Row for v1::Role {
    const COLUMNS: &'static [Column] = &[
        Column::new("ROLE"),
        Column::new("BUILT IN"),
        Column::cut("PERMISSIONS"),
        Column::cut("DESCRIPTION"),
        Column::wide("AGE"),
        Column::wide("CHANGED"),
        Column::wide("MADE BY"),
        Column::wide("REVISION"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.name),
            Cell::new(if self.built_in { "yes" } else { "no" }),
            Cell::new(self.permissions.join(",")),
            Cell::new(&self.description),
            age::since(now, self.create_time.as_ref()).into(),
            age::since(now, self.update_time.as_ref()).into(),
            Cell::new(&self.creator),
            Cell::new(revision(self)),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

pub fn describe(page: &mut Page, role: &v1::Role, now: Timestamp) {
    page.field("Role", &role.name)
        .field("Description", &role.description)
        .field("Labels", resources::labels(&role.labels))
        .field("Owner", &role.owner)
        .field("Built in", if role.built_in { "yes: it cannot be changed" } else { "" })
        .field("Made by", &role.creator)
        .field("Made", age::dated(now, role.create_time.as_ref()).unwrap_or_default())
        .field(
            "Changed",
            age::dated(now, role.update_time.as_ref()).unwrap_or_default(),
        )
        .field("Revision", revision(role))
        .section("Permissions")
        .lines(&role.permissions.join("\n"));
}

/// Those that are built in have none.
fn revision(role: &v1::Role) -> String {
    match role.revision {
        0 => String::new(),
        revision => revision.to_string(),
    }
}

impl Row for v1::Permission {
    const COLUMNS: &'static [Column] = &[
        Column::new("PERMISSION"),
        Column::new("FOR SCOPES"),
        Column::cut("DESCRIPTION"),
        Column::wide("METHODS"),
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.name),
            Cell::new(if self.scoped { "yes" } else { "no" }),
            Cell::new(&self.description),
            Cell::new(
                self.methods
                    .iter()
                    .map(|path| short(path))
                    .collect::<Vec<_>>()
                    .join(","),
            ),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

/// "AgentService/ListAgents".
pub fn short(method: &str) -> &str {
    method.strip_prefix("/muster.v1.").unwrap_or(method)
}
