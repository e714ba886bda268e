//! `musterctl result`: what the checks have found, run by run.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use super::{LimitArgs, of_agents::AgentsArgs};
use crate::{
    age,
    app::Session,
    exit::Exit,
    output::{
        Row,
        style::Tone,
        table::{Cell, Column},
    },
    problem::{Problem, status::Asked},
    when::PeriodArgs,
};

/// Without a limit there may be hundreds of thousands.
const USUAL: usize = 100;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the results of agents' checks
    ///
    /// Newest first by the agents' own time: all since --since, else the last hundred, or as many as --limit says. What they make of the state of a
    /// check shows `musterctl state list`.
    #[command(
        after_help = "Examples:\n  musterctl result list --agent db-01.fra\n  musterctl result list --agent db-01.fra --check disk-root --since 1d\n  \
                            musterctl result list --agent db-01.fra -o json --limit 1000"
    )]
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agents: AgentsArgs,
    /// Of this check only
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    check: Option<String>,
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
    let asked = Asked::new("list results")
        .with_selector(args.agents.selector.text())
        .listed_by("musterctl agent list, musterctl policy list")
        .by_command("musterctl result list --agent");
    if args.agents.is_everything() {
        return Err(Problem::new(Exit::Usage, "it is not said whose results are wanted")
            .what(asked.what())
            .why("results are kept for each agent, and those of all would be millions")
            .step("name agents: --agent NAME, or -l SELECTOR"));
    }
    let now = session.printer.terminal.now();
    let client = session.connect(&asked).await?;
    let limit = args.limit.or(args.period.usual(USUAL));
    let fetch = |agent, page_size, page_token| {
        let request = v1::ListResultsRequest {
            agent,
            check: args.check.clone().unwrap_or_default(),
            since: args.period.since(now),
            until: args.period.until(now),
            page_size,
            page_token,
        };
        client.call(
            &asked,
            async |request| client.history().list_results(request).await,
            request,
        )
    };
    let newest = args.agents.newest(&client, &asked, limit, fetch, |result| result.time);
    let (list, has_more): (v1::ListResultsResponse, bool) = newest.await?;
    super::show_newest(&list.items, has_more, session)?;
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
        Column::wide("AGENT"),
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
            Cell::new(&self.agent_name),
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
