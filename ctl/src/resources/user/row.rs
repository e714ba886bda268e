//! How an operator looks: a row, and the page of `user get`.

use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use crate::{
    age,
    output::{
        Row,
        page::Page,
        style::Tone,
        table::{Cell, Column},
    },
    resources::grant,
};

/// An operator with what is granted to it, as far as the caller may see that.
#[derive(Debug)]
pub struct Granted {
    pub user: v1::User,
    pub grants: Vec<v1::Grant>,
}

const CERTIFICATES: &[Column] = &[
    Column::new("SERIAL"),
    Column::new("STATUS"),
    Column::new("AGE"),
    Column::new("ENDS"),
    Column::new("CA"),
    Column::cut("REASON"),
];

/// Lists hold users alone.
impl Row for v1::User {
    const COLUMNS: &'static [Column] = Granted::COLUMNS;

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        cells(self, &[], now)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

impl Row for Granted {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::sparse("ROLES"),
        Column::new("LIVE"),
        Column::new("AGE"),
        Column::new("ENDS"),
        Column::wide("REVOKED"),
        Column::wide("SERIAL"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        cells(&self.user, &self.grants, now)
    }

    fn name(&self) -> String {
        self.user.name()
    }

    fn json(&self) -> Value {
        self.user.json()
    }
}

pub fn is_of(grant: &v1::Grant, user: &str) -> bool {
    matches!(&grant.subject, Some(v1::grant::Subject::User(name)) if name == user)
}

fn cells(user: &v1::User, grants: &[v1::Grant], now: Timestamp) -> Vec<Cell> {
    let (word, tone) = standing(user);
    let is_live = |it: &&v1::Certificate| it.status() == v1::CertificateStatus::Active;
    let live: Vec<&v1::Certificate> = user.certificates.iter().filter(is_live).collect();
    let last = live.iter().filter_map(|it| it.expire_time.as_ref());
    let ends = last.max_by_key(|time| time.seconds);
    let roles: Vec<String> = grants.iter().map(grant::told).collect();
    vec![
        Cell::new(&user.name),
        Cell::toned(word, tone),
        Cell::new(roles.join("; ")),
        Cell::new(live.len().to_string()),
        age::since(now, user.create_time.as_ref()).into(),
        Cell::new(ends.map(|_| end(ends, now)).unwrap_or_default()),
        age::since(now, user.revoke_time.as_ref()).into(),
        Cell::new(live.first().map(|it| it.serial.as_str()).unwrap_or_default()),
    ]
}

pub fn describe(page: &mut Page, Granted { user, grants }: &Granted, now: Timestamp) {
    let (word, tone) = standing(user);
    page.field("Name", &user.name).toned("Status", word, tone);
    page.field(
        "Created",
        age::dated(now, user.create_time.as_ref()).unwrap_or_default(),
    );
    page.field(
        "Revoked",
        age::dated(now, user.revoke_time.as_ref()).unwrap_or_default(),
    );
    let row = |certificate: &v1::Certificate| {
        let status = certificate.cells(now).swap_remove(2);
        vec![
            Cell::new(&certificate.serial),
            status,
            age::since(now, certificate.issue_time.as_ref()).into(),
            Cell::new(end(certificate.expire_time.as_ref(), now)),
            Cell::new(&certificate.ca),
            Cell::new(&certificate.revoke_reason),
        ]
    };
    if !grants.is_empty() {
        let rows = grants.iter().map(|grant| grant::cells(grant, now)).collect();
        page.section("Grants").table(grant::COLUMNS, rows);
    }
    if !user.certificates.is_empty() {
        page.section("Certificates")
            .table(CERTIFICATES, user.certificates.iter().map(row).collect());
    }
}

fn standing(user: &v1::User) -> (&'static str, Tone) {
    match user.status() {
        v1::UserStatus::Unspecified => ("unknown", Tone::Doubtful),
        v1::UserStatus::Active => ("active", Tone::Good),
        v1::UserStatus::Expired => ("expired", Tone::Warning),
        v1::UserStatus::Revoked => ("revoked", Tone::Bad),
    }
}

fn end(time: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    match age::until(now, time) {
        Some(left) => format!("in {left}"),
        None => age::since(now, time).map_or_else(String::new, |since| format!("{since} ago")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table;

    #[test]
    fn a_table_of_operators_has_their_roles_when_they_may_be_seen() {
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let user = |name: &str| v1::User {
            name: name.to_owned(),
            status: v1::UserStatus::Active.into(),
            create_time: time(1_794_900_000),
            certificates: vec![v1::Certificate {
                status: v1::CertificateStatus::Active.into(),
                expire_time: time(1_796_000_000),
                ..Default::default()
            }],
            ..Default::default()
        };
        let grant = |role: &str, scope: &str| v1::Grant {
            subject: Some(v1::grant::Subject::User("alice".to_owned())),
            role: role.to_owned(),
            scope: scope.to_owned(),
            ..Default::default()
        };
        let alice = Granted {
            user: user("alice"),
            grants: vec![grant("operator", "env=dev"), grant("viewer", "")],
        };
        assert!(is_of(&alice.grants[0], "alice") && !is_of(&alice.grants[0], "bob"));
        let bob = Granted {
            user: user("bob"),
            grants: Vec::new(),
        };
        let render = |all: &[Granted]| {
            let rows: Vec<_> = all.iter().map(|one| one.cells(now)).collect();
            table::render(Granted::COLUMNS, &rows, false, None, false)
        };
        assert!(!render(std::slice::from_ref(&bob)).contains("ROLES"));
        insta::assert_snapshot!(render(&[alice, bob]));
    }
}
