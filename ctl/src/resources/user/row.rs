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
};

const CERTIFICATES: &[Column] = &[
    Column::new("SERIAL"),
    Column::new("STATUS"),
    Column::new("AGE"),
    Column::new("ENDS"),
    Column::new("CA"),
    Column::cut("REASON"),
];

impl Row for v1::User {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("STATUS"),
        Column::new("LIVE"),
        Column::new("AGE"),
        Column::new("ENDS"),
        Column::wide("REVOKED"),
        Column::wide("SERIAL"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = standing(self);
        let is_live = |it: &&v1::Certificate| it.status() == v1::CertificateStatus::Active;
        let live: Vec<&v1::Certificate> = self.certificates.iter().filter(is_live).collect();
        let last = live.iter().filter_map(|it| it.expire_time.as_ref());
        let ends = last.max_by_key(|time| time.seconds);
        vec![
            Cell::new(&self.name),
            Cell::toned(word, tone),
            Cell::new(live.len().to_string()),
            age::since(now, self.create_time.as_ref()).into(),
            Cell::new(ends.map(|_| end(ends, now)).unwrap_or_default()),
            age::since(now, self.revoke_time.as_ref()).into(),
            Cell::new(live.first().map(|it| it.serial.as_str()).unwrap_or_default()),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

pub fn describe(page: &mut Page, user: &v1::User, now: Timestamp) {
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
