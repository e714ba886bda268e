//! The page of `agent get`. Nothing here asks the controller.

use jiff::Timestamp;
use muster_proto::v1;

use super::row;
use crate::{
    age, count,
    output::{
        Row as _,
        page::Page,
        style::Tone,
        table::{Cell, Column},
    },
};

const LABELS: &[Column] = &[Column::new("KEY"), Column::new("VALUE"), Column::new("SOURCE")];
const POLICIES: &[Column] = &[
    Column::new("POLICY"),
    Column::new("VERSION"),
    Column::new("OUTCOME"),
    Column::cut("REASON"),
];
const QUEUES: &[Column] = &[
    Column::new("QUEUE"),
    Column::new("RECORDS"),
    Column::new("SIZE"),
    Column::new("OLDEST"),
    Column::new("STORED"),
    Column::new("DROPPED"),
];
const FACTS: &[Column] = &[Column::new("FACT"), Column::cut("VALUE")];

/// Whether a list of the agent's problems would have any.
pub fn has_problems(agent: &v1::Agent) -> bool {
    row::problems(agent.problems.as_ref()).0.is_some()
}

pub fn describe(page: &mut Page, agent: &v1::Agent, problems: &[v1::State], now: Timestamp) {
    overview(page, agent, now);
    if !agent.warnings.is_empty() {
        page.section("Warnings").lines(&agent.warnings.join("\n"));
    }
    if !problems.is_empty() {
        page.section(format!(
            "Problems ({})",
            row::problems(agent.problems.as_ref()).0.unwrap_or_default()
        ));
        let rows = problems
            .iter()
            .map(|state| state.cells(now).into_iter().skip(1).collect())
            .collect();
        page.table(&crate::resources::state::COLUMNS[1..], rows);
    }
    if let Some(connection) = &agent.connection {
        describe_connection(page, connection, now);
    }
    if !agent.labels.is_empty() {
        page.section("Labels")
            .table(LABELS, agent.labels.iter().map(label).collect());
    }
    describe_policies(page, agent.policies.as_ref());
    if !agent.facts.is_empty() {
        let rows = agent
            .facts
            .iter()
            .map(|(key, value)| vec![Cell::new(key), Cell::new(value)])
            .collect();
        page.section("Facts").table(FACTS, rows);
    }
}

fn overview(page: &mut Page, agent: &v1::Agent, now: Timestamp) {
    page.field("Name", &agent.name).field("ID", &agent.id);
    let (word, tone) = row::status_words(agent);
    let since = age::since(now, agent.status_since.as_ref())
        .map(|age| format!(" for {age}"))
        .unwrap_or_default();
    page.toned("Status", word + &since, tone);
    if agent.status_unconfirmed {
        page.field("", "not confirmed since the controller's own start");
    }
    page.field(
        "Last seen",
        age::dated(now, agent.last_seen.as_ref()).unwrap_or_else(|| "never".to_owned()),
    );
    page.field("Version", &agent.version);
    page.field(
        "Enrolled",
        age::dated(now, agent.enroll_time.as_ref()).unwrap_or_default(),
    );
    if let Some(certificate) = &agent.certificate {
        let end = age::moment(certificate.expire_time.as_ref()).unwrap_or_default();
        let (left, tone) = match age::until(now, certificate.expire_time.as_ref()) {
            Some(left) => (format!("in {left}"), Tone::Plain),
            None => ("expired".to_owned(), Tone::Bad),
        };
        page.toned(
            "Certificate",
            format!("until {end} ({left}), serial {}", certificate.serial),
            tone,
        );
    }
    if !agent.forked_from.is_empty() {
        page.field("Copy of", &agent.forked_from);
    }
    if let Some(end) = age::moment(agent.fork_until.as_ref()) {
        page.field("Copies", format!("become agents of their own until {end}"));
    }
    let (problems, tone) = row::problems(agent.problems.as_ref());
    page.toned("Problems", problems.unwrap_or_else(|| "none".to_owned()), tone);
}

fn describe_connection(page: &mut Page, connection: &v1::AgentConnection, now: Timestamp) {
    page.section("Connection")
        .field("To", &connection.controller)
        .field("From", &connection.remote_address);
    if let Some(age) = age::since(now, connection.connect_time.as_ref()) {
        page.field("For", age);
    }
    page.field(
        "Round trip",
        connection.round_trip_micros.map(age::precise).unwrap_or_default(),
    );
    let skew = connection.clock_skew_micros.map(|micros| match micros {
        0 => "none".to_owned(),
        1.. => format!("{} ahead of the controller", age::precise(micros)),
        _ => format!("{} behind the controller", age::precise(micros.saturating_neg())),
    });
    page.field("Clock", skew.unwrap_or_default())
        .field("Session", &connection.session_id);
    if connection.leaving {
        page.toned("Leaving", "it was told to go elsewhere", Tone::Warning);
    }
    if !connection.lanes.is_empty() {
        page.section("Queues")
            .table(QUEUES, connection.lanes.iter().map(queue).collect());
        if let Some(since) = age::since(now, connection.stalled_since.as_ref()) {
            let text = format!("nothing was acknowledged for {since}");
            page.toned("Stuck", text, Tone::Bad);
        }
    }
}

fn queue(lane: &v1::LaneDepth) -> Vec<Cell> {
    let name = match lane.lane() {
        v1::Lane::Unspecified => "unknown",
        v1::Lane::Results => "results",
        v1::Lane::Metrics => "metrics",
        v1::Lane::Logs => "logs",
    };
    let oldest = (lane.records > 0).then(|| age::precise(lane.oldest_age_micros));
    let grouped = |number: u64| count::grouped(i64::try_from(number).unwrap_or(i64::MAX));
    vec![
        Cell::new(name),
        Cell::new(grouped(lane.records)),
        Cell::new(count::bytes(lane.bytes)),
        oldest.into(),
        Cell::new(grouped(lane.acknowledged)),
        Cell::toned(
            grouped(lane.dropped),
            if lane.dropped > 0 { Tone::Warning } else { Tone::Plain },
        ),
    ]
}

fn label(label: &v1::Label) -> Vec<Cell> {
    let source = match label.source() {
        v1::LabelSource::Unspecified => "unknown",
        v1::LabelSource::Agent => "agent",
        v1::LabelSource::Token => "token",
        v1::LabelSource::Operator => "operator",
    };
    vec![Cell::new(&label.key), Cell::new(&label.value), Cell::new(source)]
}

fn describe_policies(page: &mut Page, policies: Option<&v1::AgentPolicies>) {
    let Some(policies) = policies else { return };
    page.section(format!(
        "Policies ({} of {} applied)",
        policies.applied, policies.assigned
    ));
    let rows = policies.reports.iter().map(|report| {
        let (outcome, tone) = match report.outcome() {
            v1::PolicyOutcome::Unspecified => ("waiting", Tone::Faint),
            v1::PolicyOutcome::Applied => ("applied", Tone::Good),
            v1::PolicyOutcome::Refused => ("refused", Tone::Bad),
            v1::PolicyOutcome::NotSupported => ("not supported", Tone::Warning),
        };
        vec![
            Cell::new(format!("{}/{}", report.kind, report.name)),
            Cell::new(report.version.to_string()),
            Cell::toned(outcome, tone),
            Cell::new(&report.reason),
        ]
    });
    page.table(POLICIES, rows.collect());
}
