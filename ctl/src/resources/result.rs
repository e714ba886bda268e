//! `musterctl result`: what the checks have found, run by run.

use std::time::Duration;

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use super::LimitArgs;
use crate::{
    age,
    app::Session,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
    paging,
    problem::{Problem, status::Asked},
};

/// Without a limit there may be hundreds of thousands.
const USUAL: usize = 100;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the results of an agent's checks
    ///
    /// Newest first by the agent's own time, the last hundred unless --limit says otherwise. What they make of the state of a
    /// check shows `musterctl state list`.
    #[command(
        after_help = "Examples:\n  musterctl result list --agent db-01.fra\n  musterctl result list --agent db-01.fra --check disk-root --since 1d\n  \
                            musterctl result list --agent db-01.fra -o json --limit 1000"
    )]
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// The agent, by name or UUID
    #[arg(long, value_name = "AGENT", value_parser = NonEmptyStringValueParser::new())]
    agent: String,
    /// Of this check only
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    check: Option<String>,
    /// Runs not longer ago than this: 15m, 1d
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::parse_duration)]
    since: Option<Duration>,
    #[command(flatten)]
    limit: LimitArgs,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new(format!("list results of agent {}", args.agent))
        .listed_by("musterctl agent list, musterctl policy list")
        .by_command("musterctl result list --agent");
    let since = args.since.and_then(|since| {
        let since = session.printer.terminal.now().checked_sub(since).ok()?;
        Some(prost_types::Timestamp {
            seconds: since.as_second(),
            nanos: 0,
        })
    });
    let client = session.connect(&asked).await?;
    let limit = args.limit.count().unwrap_or(USUAL);
    let list = paging::collect(Some(limit), |page_size, page_token| {
        let request = v1::ListResultsRequest {
            agent: args.agent.clone(),
            check: args.check.clone().unwrap_or_default(),
            since,
            until: None,
            page_size,
            page_token,
        };
        client.call(
            &asked,
            async |request| client.history().list_results(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, 0)?;
    if list.items.is_empty() {
        session.printer.note("no results are kept of that")?;
    }
    Ok(())
}

impl Row for v1::StoredResult {
    const COLUMNS: &'static [Column] = &[
        Column::new("AGE"),
        Column::new("CHECK"),
        Column::new("STATE"),
        Column::new("TOOK"),
        Column::cut("OUTPUT"),
        Column::wide("PERFDATA"),
        Column::wide("TIME"),
        Column::wide("RECEIVED"),
        Column::wide("ARRIVAL"),
        Column::wide("VERSION"),
        Column::wide("AGENT ID"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let result = self.result.clone().unwrap_or_default();
        let (word, tone) = match result.state() {
            v1::CheckState::Ok => ("OK", Tone::Good),
            v1::CheckState::Warning => ("WARNING", Tone::Warning),
            v1::CheckState::Critical => ("CRITICAL", Tone::Bad),
            v1::CheckState::Unknown | v1::CheckState::Pending | v1::CheckState::Unspecified => {
                ("UNKNOWN", Tone::Doubtful)
            }
        };
        vec![
            age::since(now, self.time.as_ref()).into(),
            Cell::new(&result.check),
            Cell::toned(word, tone),
            Cell::new(age::precise(result.duration_micros)),
            Cell::new(&result.output),
            Cell::new(&result.perfdata),
            age::moment(self.time.as_ref()).into(),
            age::moment(self.receive_time.as_ref()).into(),
            Cell::new(arrival(self.arrival())),
            Cell::new(result.version.to_string()),
            Cell::new(&self.agent_id),
        ]
    }

    fn name(&self) -> String {
        let check = self.result.as_ref().map(|result| result.check.as_str());
        format!("{}/{}", self.agent_name, check.unwrap_or_default())
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

/// Beside the times, since a clock may have been wrong.
fn arrival(arrival: v1::Arrival) -> &'static str {
    match arrival {
        v1::Arrival::OnTime => "on time",
        v1::Arrival::Late => "late",
        v1::Arrival::Ahead => "ahead",
        v1::Arrival::Unspecified => "",
    }
}
