//! How a grant looks: a row, a page, a part of somebody's page.

use jiff::Timestamp;
use muster_proto::{
    json,
    v1::{self, grant::Subject},
};
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

const EVERYTHING: &str = "everything";

impl Row for v1::Grant {
    const COLUMNS: &'static [Column] = &[
        Column::new("TO"),
        Column::new("ROLE"),
        Column::new("SCOPE"),
        Column::new("AGE"),
        Column::new("ID"),
        Column::wide("MADE BY"),
        Column::wide("REVISION"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(subject(self)),
            Cell::new(&self.role),
            Cell::new(scope(self)),
            age::since(now, self.create_time.as_ref()).into(),
            Cell::new(&self.id),
            Cell::new(&self.creator),
            Cell::new(self.revision.to_string()),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

pub fn describe(page: &mut Page, grant: &v1::Grant, now: Timestamp) {
    page.field("Grant", &grant.id)
        .field("To", subject(grant))
        .field("Role", &grant.role)
        .field("Scope", scope(grant))
        .field("Labels", resources::labels(&grant.labels))
        .field("Owner", &grant.owner)
        .field("Made by", &grant.creator)
        .field("Made", age::dated(now, grant.create_time.as_ref()).unwrap_or_default())
        .field("Revision", grant.revision.to_string());
}

/// Of the grants of somebody who has been named already.
pub const COLUMNS: &[Column] = &[
    Column::new("ROLE"),
    Column::new("SCOPE"),
    Column::new("AGE"),
    Column::new("ID"),
];

pub fn cells(grant: &v1::Grant, now: Timestamp) -> Vec<Cell> {
    let mut cells = grant.cells(now);
    cells.truncate(5);
    cells.split_off(1)
}

/// "operator for env=dev", "admin".
pub fn told(grant: &v1::Grant) -> String {
    match grant.scope.as_str() {
        "" => grant.role.clone(),
        scope => format!("{} for {scope}", grant.role),
    }
}

/// As the audit log writes it: "user/alice", "apikey/5f1e0c7b8d213a4b".
fn subject(grant: &v1::Grant) -> String {
    match &grant.subject {
        Some(Subject::User(name)) => format!("user/{name}"),
        Some(Subject::ApiKey(id)) => format!("apikey/{id}"),
        None => String::new(),
    }
}

fn scope(grant: &v1::Grant) -> &str {
    match grant.scope.as_str() {
        "" => EVERYTHING,
        scope => scope,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table;

    #[test]
    fn a_table_of_grants() {
        let grant = |subject, role: &str, scope: &str| v1::Grant {
            id: "3f9c2a7d-10e4-4b85-9f0e-a3a15e1f0c7b".to_owned(),
            subject: Some(subject),
            role: role.to_owned(),
            scope: scope.to_owned(),
            creator: "user/admin".to_owned(),
            create_time: Some(prost_types::Timestamp {
                seconds: 1_794_900_000,
                nanos: 0,
            }),
            revision: 7,
            owner: String::new(),
            labels: [].into(),
        };
        let grants = [
            grant(Subject::User("alice".to_owned()), "operator", "env=dev"),
            grant(Subject::ApiKey("5f1e0c7b8d213a4b".to_owned()), "viewer", ""),
        ];
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let rows: Vec<_> = grants.iter().map(|grant| grant.cells(now)).collect();
        insta::assert_snapshot!(table::render(v1::Grant::COLUMNS, &rows, false, None, false));
        assert_eq!(grants.each_ref().map(told), ["operator for env=dev", "viewer"]);
        assert_eq!(cells(&grants[0], now)[..2], ["operator", "env=dev"].map(Cell::new));
    }
}
