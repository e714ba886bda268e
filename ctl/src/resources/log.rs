//! `musterctl log`: what programs on the machines have said of themselves.

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use super::{LimitArgs, of_agents::AgentsArgs};
use crate::{
    age,
    app::Session,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
    problem::{Problem, status::Asked},
    when::PeriodArgs,
};

/// Without a limit there may be millions.
const USUAL: usize = 100;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List log entries
    ///
    /// Newest first by the machines' time: all since --since, else the last hundred, or as many as --limit says. Agents send their
    /// own log, from warnings on unless agent.yaml says otherwise.
    #[command(
        after_help = "Examples:\n  musterctl log list\n  musterctl log list --agent db-01.fra --since 1d\n  \
                            musterctl log list -l env=prod --severity error --contains 'queue' -o json"
    )]
    List(ListArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Severity {
    Debug,
    Info,
    Warning,
    Error,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agents: AgentsArgs,
    /// At least this severe
    #[arg(long, value_name = "SEVERITY", value_enum)]
    severity: Option<Severity>,
    /// Only those whose message contains this, in upper or lower case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    contains: String,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    limit: LimitArgs,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list log entries")
        .with_selector(args.agents.selector.text())
        .listed_by("musterctl agent list")
        .by_command("musterctl log list --agent");
    let now = session.printer.terminal.now();
    let severity = match args.severity {
        None => v1::LogSeverity::Unspecified,
        Some(Severity::Debug) => v1::LogSeverity::Debug,
        Some(Severity::Info) => v1::LogSeverity::Info,
        Some(Severity::Warning) => v1::LogSeverity::Warning,
        Some(Severity::Error) => v1::LogSeverity::Error,
    };
    let client = session.connect(&asked).await?;
    let limit = args.limit.or(args.period.usual(USUAL));
    let (agents, selector) = args.agents.at_once();
    let fetch = |agent, page_size, page_token| {
        let request = v1::ListLogsRequest {
            agent,
            selector: selector.clone(),
            since: args.period.since(now),
            until: args.period.until(now),
            min_severity: severity as i32,
            contains: args.contains.clone(),
            page_size,
            page_token,
            read_mask: None,
        };
        client.call(&asked, async |request| client.logs().list_logs(request).await, request)
    };
    let newest = agents.newest(&client, &asked, limit, fetch, |entry| entry.time);
    let (list, has_more): (v1::ListLogsResponse, bool) = newest.await?;
    super::show_newest(&list.items, has_more, session)
}

impl Row for v1::StoredLog {
    const COLUMNS: &'static [Column] = &[
        Column::new("AGE"),
        Column::new("SEVERITY"),
        Column::new("AGENT"),
        Column::new("UNIT"),
        Column::cut("MESSAGE"),
        Column::wide("SOURCE"),
        Column::wide("FIELDS"),
        Column::wide("TIME"),
        Column::wide("RECEIVED"),
        Column::wide("AGENT ID"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = match self.severity() {
            v1::LogSeverity::Unspecified => ("unknown", Tone::Faint),
            v1::LogSeverity::Debug => ("debug", Tone::Faint),
            v1::LogSeverity::Info => ("info", Tone::Plain),
            v1::LogSeverity::Warning => ("warning", Tone::Warning),
            v1::LogSeverity::Error => ("error", Tone::Bad),
        };
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        vec![
            age::since(now, self.time.as_ref())
                .map(|age| match age::arrival(self.arrival()) {
                    Some(arrival) => format!("{age} ({arrival})"),
                    None => age,
                })
                .into(),
            Cell::toned(word, tone),
            Cell::new(&self.agent_name),
            Cell::new(&self.unit),
            Cell::new(&self.message),
            Cell::new(&self.source),
            Cell::new(fields.join(" ")),
            age::moment(self.time.as_ref()).into(),
            age::moment(self.receive_time.as_ref()).into(),
            Cell::new(&self.agent_id),
        ]
    }

    fn name(&self) -> String {
        self.agent_name.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_shows_who_said_what_when() {
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let entry = v1::StoredLog {
            agent_id: "0b9d0a6e-55c1-4a52-8f7e-0a51d0b7b0aa".to_owned(),
            agent_name: "db-01".to_owned(),
            time: time(1_000),
            receive_time: time(1_700),
            severity: v1::LogSeverity::Error.into(),
            source: "agent".to_owned(),
            unit: "link::driver".to_owned(),
            message: "it broke".to_owned(),
            fields: [("a", "1"), ("b", "2")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            arrival: v1::Arrival::Late.into(),
        };
        let cells = entry.cells(Timestamp::from_second(2_000).unwrap());
        assert_eq!(cells[1], Cell::toned("error", Tone::Bad));
        assert_eq!(
            cells[2..7],
            ["db-01", "link::driver", "it broke", "agent", "a=1 b=2"].map(Cell::new)
        );
    }
}
