//! `musterctl event`: what happened to agents and to the controller.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
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

/// Without a limit there may be millions.
const USUAL: usize = 100;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List events
    ///
    /// Newest first, the last hundred unless --limit says otherwise.
    #[command(
        after_help = "Examples:\n  musterctl event list\n  musterctl event list --agent db-01.fra --since 1d\n  \
                            musterctl event list --severity warning --reason AGENT_CLONE_REFUSED -o json"
    )]
    List(ListArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Severity {
    Info,
    Warning,
    Error,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Those of one agent, by name or UUID
    #[arg(long, value_name = "AGENT", default_value = "", hide_default_value = true)]
    agent: String,
    /// Only these, such as AGENT_REVOKED; may be repeated
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// At least this severe
    #[arg(long, value_name = "SEVERITY", value_enum)]
    severity: Option<Severity>,
    /// Not older than this: 15m, 1d
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
    let asked = Asked::new("list events").listed_by("musterctl agent list");
    let since = args.since.and_then(|since| {
        let since = session.printer.terminal.now().checked_sub(since).ok()?;
        Some(prost_types::Timestamp {
            seconds: since.as_second(),
            nanos: 0,
        })
    });
    let severity = match args.severity {
        None | Some(Severity::Info) => v1::EventSeverity::Unspecified,
        Some(Severity::Warning) => v1::EventSeverity::Warning,
        Some(Severity::Error) => v1::EventSeverity::Error,
    };
    let client = session.connect(&asked).await?;
    let limit = args.limit.count().unwrap_or(USUAL);
    let list = paging::collect(Some(limit), |page_size, page_token| {
        let request = v1::ListEventsRequest {
            agent: args.agent.clone(),
            reasons: args.reasons.clone(),
            min_severity: severity as i32,
            since,
            until: None,
            page_size,
            page_token,
            read_mask: None,
        };
        client.call(
            &asked,
            async |request| client.events().list_events(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, 0)?;
    Ok(())
}

impl Row for v1::Event {
    const COLUMNS: &'static [Column] = &[
        Column::new("AGE"),
        Column::new("SEVERITY"),
        Column::new("REASON"),
        Column::new("AGENT"),
        Column::cut("MESSAGE"),
        Column::wide("TIME"),
        Column::wide("AGENT ID"),
        Column::wide("RECEIVED"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = match self.severity() {
            v1::EventSeverity::Unspecified | v1::EventSeverity::Info => ("info", Tone::Plain),
            v1::EventSeverity::Warning => ("warning", Tone::Warning),
            v1::EventSeverity::Error => ("error", Tone::Bad),
        };
        vec![
            age::since(now, self.time.as_ref())
                .map(|age| match age::arrival(self.arrival()) {
                    Some(arrival) => format!("{age} ({arrival})"),
                    None => age,
                })
                .into(),
            Cell::toned(word, tone),
            Cell::new(&self.reason),
            Cell::new(&self.agent_name),
            Cell::new(&self.message),
            age::moment(self.time.as_ref()).into(),
            Cell::new(&self.agent_id),
            age::moment(self.receive_time.as_ref()).into(),
        ]
    }

    fn name(&self) -> String {
        self.reason.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}
