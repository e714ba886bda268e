//! An agent as a row, a name and JSON, and the words for its parts. Its page is `describe`.

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

pub const COLUMNS: &[Column] = &[
    Column::new("NAME"),
    Column::new("STATUS"),
    Column::new("FOR"),
    Column::new("SEEN"),
    Column::new("VERSION"),
    Column::new("POLICIES"),
    Column::new("PROBLEMS"),
    Column::cut("LABELS"),
    Column::wide("ID"),
    Column::wide("ADDRESS"),
    Column::wide("RTT"),
    Column::wide("QUEUED"),
    Column::wide("ENROLLED"),
    Column::wide("CERTIFICATE"),
    Column::wide("WARNINGS"),
];

impl Row for v1::Agent {
    const COLUMNS: &'static [Column] = COLUMNS;

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let policies = self
            .policies
            .as_ref()
            .map(|policies| format!("{}/{}", policies.applied, policies.assigned));
        let (problems, worst) = problems(self.problems.as_ref());
        let certificate = self
            .certificate
            .as_ref()
            .and_then(|certificate| certificate.expire_time.as_ref());
        let lasting = certificate.map(|end| match age::until(now, Some(end)) {
            Some(left) => format!("{left} left"),
            None => "expired".to_owned(),
        });
        vec![
            Cell::new(&self.name),
            status(self),
            age::since(now, self.status_since.as_ref()).into(),
            age::since(now, self.last_seen.as_ref()).into(),
            Cell::new(&self.version),
            policies.into(),
            Cell::toned(problems.unwrap_or_default(), worst),
            Cell::new(labels_text(&self.labels)),
            Cell::new(&self.id),
            self.connection
                .as_ref()
                .map(|connection| connection.remote_address.clone())
                .into(),
            self.connection
                .as_ref()
                .and_then(|connection| connection.round_trip_micros)
                .map(age::precise)
                .into(),
            self.connection
                .as_ref()
                .map_or_else(|| Cell::new(""), |connection| queued(&connection.lanes)),
            age::since(now, self.enroll_time.as_ref()).into(),
            lasting.into(),
            Cell::new(self.warnings.join("; ")),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

/// A row for an agent that is gone or no longer matches; all else of it is unknown.
pub fn gone(agent: &v1::Agent) -> Vec<Cell> {
    let mut cells = vec![Cell::new(""); COLUMNS.len()];
    cells[0] = Cell::new(&agent.name);
    cells[1] = Cell::toned("gone", Tone::Faint);
    cells[8] = Cell::new(&agent.id);
    cells
}

fn status(agent: &v1::Agent) -> Cell {
    let (text, tone) = status_words(agent);
    Cell::toned(text, tone)
}

/// "online", "online?", "offline (timeout)".
pub fn status_words(agent: &v1::Agent) -> (String, Tone) {
    let (word, tone) = match agent.status() {
        v1::AgentStatus::Unspecified => ("unknown", Tone::Doubtful),
        v1::AgentStatus::Pending => ("pending", Tone::Faint),
        v1::AgentStatus::Online => ("online", Tone::Good),
        v1::AgentStatus::Late => ("late", Tone::Warning),
        v1::AgentStatus::Offline => ("offline", Tone::Bad),
        v1::AgentStatus::Expected => ("expected", Tone::Faint),
        v1::AgentStatus::Revoked => ("revoked", Tone::Bad),
    };
    let mut text = word.to_owned();
    if agent.status_unconfirmed {
        text.push('?');
    }
    if !agent.status_reason.is_empty() && agent.status() != v1::AgentStatus::Online {
        text.push_str(&format!(" ({})", agent.status_reason));
    }
    (text, if agent.status_unconfirmed { Tone::Doubtful } else { tone })
}

/// "1,204, 3.1s, 12 dropped": the records of all queues, how long the oldest has waited, and what was given up.
fn queued(lanes: &[v1::LaneDepth]) -> Cell {
    let sum = |of: fn(&v1::LaneDepth) -> u64| lanes.iter().map(of).fold(0, u64::saturating_add);
    let grouped = |number: u64| count::grouped(i64::try_from(number).unwrap_or(i64::MAX));
    let (records, dropped) = (sum(|lane| lane.records), sum(|lane| lane.dropped));
    let oldest = lanes
        .iter()
        .filter(|lane| lane.records > 0)
        .map(|lane| lane.oldest_age_micros);
    let mut text = grouped(records);
    if let Some(oldest) = oldest.max() {
        text.push_str(&format!(", {}", age::precise(oldest)));
    }
    if dropped > 0 {
        text.push_str(&format!(", {} dropped", grouped(dropped)));
    }
    match lanes.is_empty() {
        true => Cell::new(""),
        false => Cell::toned(text, if dropped > 0 { Tone::Warning } else { Tone::Plain }),
    }
}

/// "2 crit, 1 warn", and how bad that is; nothing when all is well.
pub fn problems(problems: Option<&v1::AgentProblems>) -> (Option<String>, Tone) {
    let Some(problems) = problems else {
        return (None, Tone::Plain);
    };
    let text = count::parts(&[
        (problems.critical, "crit"),
        (problems.warning, "warn"),
        (problems.unknown, "unkn"),
        (problems.stale, "stale"),
        (problems.unreachable, "unrch"),
    ]);
    let tone = match problems {
        _ if text.is_none() => Tone::Plain,
        problems if problems.critical > 0 => Tone::Bad,
        problems if problems.warning > 0 => Tone::Warning,
        _ => Tone::Doubtful,
    };
    (text, tone)
}

/// "role=db,zone=eu".
pub fn labels_text(labels: &[v1::Label]) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|label| format!("{}={}", label.key, label.value))
        .collect();
    pairs.join(",")
}
