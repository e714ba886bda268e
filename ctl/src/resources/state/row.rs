//! A state as a row, a name and JSON. One that is stale or unreachable never looks like plain OK.

use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use crate::{
    age,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
};

pub const COLUMNS: &[Column] = &[
    Column::new("AGENT"),
    Column::new("CHECK"),
    Column::new("STATE"),
    Column::new("TRY"),
    Column::new("FOR"),
    Column::new("LAST RUN"),
    Column::cut("OUTPUT"),
    Column::wide("LAST OUTPUT"),
    Column::wide("TOOK"),
    Column::wide("PERFDATA"),
    Column::wide("AGENT ID"),
    Column::wide("RECEIVED"),
];

/// Where a row has nothing to count.
const NO_TRY: &str = "-";

impl Row for v1::State {
    const COLUMNS: &'static [Column] = COLUMNS;

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let fresh = is_fresh(self);
        let (word, tone) = words(self);
        let last_run = age::since(now, self.last_run.as_ref()).map(|age| match age::arrival(self.arrival()) {
            Some(arrival) => format!("{age} ago ({arrival})"),
            None => format!("{age} ago"),
        });
        let took = (self.duration_micros > 0).then(|| age::precise(self.duration_micros));
        vec![
            Cell::new(&self.agent_name),
            Cell::new(&self.check),
            Cell::toned(word, tone),
            Cell::new(attempts(self)),
            age::since(now, self.since.as_ref()).into(),
            Cell::new(last_run.unwrap_or_else(|| "never".to_owned())),
            Cell::new(if fresh { &self.output } else { &self.note }),
            // In OUTPUT the note has taken its place.
            Cell::new(if fresh { "" } else { &self.output }),
            took.into(),
            Cell::new(&self.perfdata),
            Cell::new(&self.agent_id),
            age::since(now, self.receive_time.as_ref())
                .map(|age| format!("{age} ago"))
                .into(),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.agent_name, self.check)
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

/// A row for a state that is gone or no longer matches.
pub fn gone(state: &v1::State) -> Vec<Cell> {
    let mut cells = vec![Cell::new(""); COLUMNS.len()];
    cells[0] = Cell::new(&state.agent_name);
    cells[1] = Cell::new(&state.check);
    cells[2] = Cell::toned("gone", Tone::Faint);
    cells[10] = Cell::new(&state.agent_id);
    cells
}

fn is_fresh(state: &v1::State) -> bool {
    state.freshness() == v1::Freshness::Fresh
}

/// "CRITICAL", "stale (was OK)".
fn words(state: &v1::State) -> (String, Tone) {
    let (word, tone) = match state.last_state() {
        v1::CheckState::Pending => ("pending", Tone::Faint),
        v1::CheckState::Ok => ("OK", Tone::Good),
        v1::CheckState::Warning => ("WARNING", Tone::Warning),
        v1::CheckState::Critical => ("CRITICAL", Tone::Bad),
        v1::CheckState::Unknown | v1::CheckState::Unspecified => ("UNKNOWN", Tone::Doubtful),
    };
    match state.freshness() {
        v1::Freshness::Fresh => (word.to_owned(), tone),
        v1::Freshness::Stale => (format!("stale (was {word})"), Tone::Doubtful),
        v1::Freshness::Unreachable => (format!("unreachable (was {word})"), Tone::Doubtful),
        // A freshness of a later release: whatever it says, it is not that the state can be relied on.
        v1::Freshness::Unspecified => (format!("not fresh (was {word})"), Tone::Doubtful),
    }
}

/// "3/3 hard"; only a problem that is still one has tries to count.
fn attempts(state: &v1::State) -> String {
    let problem = matches!(
        state.state(),
        v1::CheckState::Warning | v1::CheckState::Critical | v1::CheckState::Unknown
    );
    if !problem || !is_fresh(state) {
        return NO_TRY.to_owned();
    }
    let kind = match state.r#type() {
        v1::StateType::Soft => " soft",
        v1::StateType::Hard => " hard",
        v1::StateType::Unspecified => "",
    };
    format!("{}/{}{kind}", state.attempt, state.attempts)
}
