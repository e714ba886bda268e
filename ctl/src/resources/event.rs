//! `musterctl event`: what happened to agents and to the controller.

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
    /// List events
    ///
    /// Newest first: all since --since, else the last hundred, or as many as --limit says.
    #[command(
        after_help = "Examples:\n  musterctl event list\n  musterctl event list --agent db-01.fra --since 1d\n  musterctl event list -l env=prod --since yesterday --until today\n  \
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
    #[command(flatten)]
    agents: AgentsArgs,
    /// Only these, such as AGENT_REVOKED; may be repeated
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// At least this severe
    #[arg(long, value_name = "SEVERITY", value_enum)]
    severity: Option<Severity>,
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
    let asked = Asked::new("list events")
        .with_selector(args.agents.selector.text())
        .listed_by("musterctl agent list")
        .by_command("musterctl event list --agent");
    let now = session.printer.terminal.now();
    let severity = match args.severity {
        None | Some(Severity::Info) => v1::EventSeverity::Unspecified,
        Some(Severity::Warning) => v1::EventSeverity::Warning,
        Some(Severity::Error) => v1::EventSeverity::Error,
    };
    let client = session.connect(&asked).await?;
    let limit = args.limit.or(args.period.usual(USUAL));
    let fetch = |agent, page_size, page_token| {
        let request = v1::ListEventsRequest {
            agent,
            reasons: args.reasons.clone(),
            min_severity: severity as i32,
            since: args.period.since(now),
            until: args.period.until(now),
            page_size,
            page_token,
            read_mask: None,
        };
        client.call(
            &asked,
            async |request| client.events().list_events(request).await,
            request,
        )
    };
    let received = |event: &v1::Event| event.receive_time.or(event.time);
    let newest = args.agents.newest(&client, &asked, limit, fetch, received);
    let (list, has_more): (v1::ListEventsResponse, bool) = newest.await?;
    super::show_newest(&list.items, has_more, session)
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
