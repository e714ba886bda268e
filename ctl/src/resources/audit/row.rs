//! How an entry of the audit log looks.

use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use crate::{
    age, count,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
};

impl Row for v1::AuditEntry {
    const COLUMNS: &'static [Column] = &[
        Column::new("ENTRY"),
        Column::new("AGE"),
        Column::new("CALLER"),
        Column::new("METHOD"),
        Column::new("OUTCOME"),
        Column::cut("RESOURCE"),
        Column::wide("TIME"),
        Column::wide("FROM"),
        Column::wide("REQUEST"),
        Column::wide("BEFORE"),
        Column::wide("AFTER"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = outcome(self);
        vec![
            Cell::new(self.seq.to_string()),
            age::since(now, self.time.as_ref()).into(),
            Cell::new(&self.caller),
            Cell::new(self.method.strip_prefix("/muster.v1.").unwrap_or(&self.method)),
            Cell::toned(word, tone),
            Cell::new(&self.resource),
            age::moment(self.time.as_ref()).into(),
            Cell::new(&self.source),
            Cell::new(&self.request_id),
            Cell::new(&self.before_digest),
            Cell::new(&self.after_digest),
        ]
    }

    fn name(&self) -> String {
        self.seq.to_string()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

/// "refused PERMISSION_MISSING", and how often.
fn outcome(entry: &v1::AuditEntry) -> (String, Tone) {
    let (word, tone) = match entry.outcome() {
        v1::AuditOutcome::Unspecified => ("unknown", Tone::Doubtful),
        v1::AuditOutcome::Begun => ("begun", Tone::Faint),
        v1::AuditOutcome::Done => ("done", Tone::Good),
        v1::AuditOutcome::Failed => ("failed", Tone::Warning),
        v1::AuditOutcome::Refused => ("refused", Tone::Bad),
        v1::AuditOutcome::Trimmed => ("older ones removed", Tone::Faint),
    };
    let why = match (entry.reason.as_str(), entry.code.as_str()) {
        ("", code) => code,
        (reason, _) => reason,
    };
    let mut text = format!("{word} {why}");
    if entry.count > 1 {
        text.push_str(&format!(", {}", count::of(entry.count, "time", "times")));
    }
    (text, tone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table;

    #[test]
    fn a_table_of_entries() {
        let entry = |seq, outcome: v1::AuditOutcome| v1::AuditEntry {
            seq,
            time: Some(prost_types::Timestamp {
                seconds: 1_794_996_400 + seq,
                nanos: 0,
            }),
            caller: "user/alice".to_owned(),
            source: "192.0.2.7".to_owned(),
            method: "/muster.v1.PolicyService/DeletePolicy".to_owned(),
            resource: "policy/Check/disk".to_owned(),
            outcome: outcome.into(),
            request_id: "1d20c4cca8d1".to_owned(),
            ..Default::default()
        };
        let entries = [
            v1::AuditEntry {
                caller: "anonymous".to_owned(),
                resource: String::new(),
                reason: "API_KEY_INVALID".to_owned(),
                count: 1_200,
                ..entry(14, v1::AuditOutcome::Refused)
            },
            v1::AuditEntry {
                code: "NOT_FOUND".to_owned(),
                reason: "NOT_FOUND".to_owned(),
                ..entry(13, v1::AuditOutcome::Failed)
            },
            entry(12, v1::AuditOutcome::Begun),
            entry(11, v1::AuditOutcome::Done),
        ];
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let rows: Vec<_> = entries.iter().map(|entry| entry.cells(now)).collect();
        insta::assert_snapshot!(table::render(v1::AuditEntry::COLUMNS, &rows, false, None, false));
        assert_eq!(entries[0].name(), "14");
    }
}
