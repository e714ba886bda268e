//! `musterctl history`: how much is kept of what the machines have reported.

use std::cmp::Reverse;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use super::{LimitArgs, of_agents::AgentsArgs};
use crate::{
    age,
    app::Session,
    count,
    output::{
        Row,
        table::{Cell, Column},
    },
    paging,
    problem::{Problem, status::Asked},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how much is kept of each agent
    ///
    /// Results, events, log entries and batches of metrics by number and size, the largest first. Sizes are those of the records; the
    /// database needs more around them.
    #[command(
        after_help = "Examples:\n  musterctl history usage --limit 10\n  musterctl history usage -l env=prod -o wide\n  \
                            musterctl history usage -o json"
    )]
    Usage(UsageArgs),
}

#[derive(Debug, Args)]
pub struct UsageArgs {
    #[command(flatten)]
    agents: AgentsArgs,
    #[command(flatten)]
    limit: LimitArgs,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Usage(args) => usage(args, session).await,
    }
}

async fn usage(args: UsageArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("show what is kept of the agents").with_selector(args.agents.selector.text());
    let client = session.connect(&asked).await?;
    // All of them, since the largest may be on the last page.
    let mut list = paging::collect(None, |page_size, page_token| {
        let request = v1::ListHistoryUsageRequest {
            selector: args.agents.selector.text(),
            page_size,
            page_token,
        };
        client.call(
            &asked,
            async |request| client.history().list_history_usage(request).await,
            request,
        )
    })
    .await?;
    if let Some(ids) = args.agents.ids(&client).await? {
        list.items.retain(|item| ids.contains(&item.agent_id));
    }
    list.items
        .sort_by_key(|item| Reverse(kinds(item).map(|kind| kind.bytes).sum::<i64>()));
    let note = footer(&list.items);
    if let Some(limit) = args.limit.count() {
        list.items.truncate(limit);
    }
    session.printer.list(&list.items, 0)?;
    session.printer.note(&note)?;
    Ok(())
}

fn kinds(item: &v1::AgentHistory) -> impl Iterator<Item = &v1::HistoryUsage> {
    [&item.results, &item.events, &item.metrics, &item.logs]
        .into_iter()
        .flatten()
}

/// "2.1 GiB of 3,004 agents"
fn footer(items: &[v1::AgentHistory]) -> String {
    let bytes: i64 = items.iter().flat_map(kinds).map(|kind| kind.bytes).sum();
    let agents = count::of(items.len() as i64, "agent", "agents");
    format!("{} of {agents}", size(bytes))
}

fn size(bytes: i64) -> String {
    count::bytes(u64::try_from(bytes).unwrap_or_default())
}

impl Row for v1::AgentHistory {
    const COLUMNS: &'static [Column] = &[
        Column::new("AGENT"),
        Column::new("SIZE"),
        Column::new("RESULTS"),
        Column::new("EVENTS"),
        Column::new("SAMPLES"),
        Column::new("LOGS"),
        Column::new("OLDEST"),
        Column::new("NEWEST"),
        Column::wide("RESULTS SIZE"),
        Column::wide("EVENTS SIZE"),
        Column::wide("METRICS SIZE"),
        Column::wide("LOGS SIZE"),
        Column::wide("METRIC BATCHES"),
        Column::wide("METRIC MOMENTS"),
        Column::wide("AGENT ID"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let key = |time: &prost_types::Timestamp| (time.seconds, time.nanos);
        let first = kinds(self)
            .filter_map(|kind| kind.first_time.as_ref())
            .min_by_key(|time| key(time));
        let last = kinds(self)
            .filter_map(|kind| kind.last_time.as_ref())
            .max_by_key(|time| key(time));
        let of = |kind: &Option<v1::HistoryUsage>| kind.unwrap_or_default();
        let (results, events, metrics) = (of(&self.results), of(&self.events), of(&self.metrics));
        let logs = of(&self.logs);
        let number = |number: i64| Cell::new(count::grouped(number));
        vec![
            Cell::new(&self.agent_name),
            Cell::new(size(results.bytes + events.bytes + metrics.bytes + logs.bytes)),
            number(results.records),
            number(events.records),
            number(self.metric_samples),
            number(logs.records),
            age::since(now, first).into(),
            age::since(now, last).into(),
            Cell::new(size(results.bytes)),
            Cell::new(size(events.bytes)),
            Cell::new(size(metrics.bytes)),
            Cell::new(size(logs.bytes)),
            number(metrics.records),
            number(self.metric_moments),
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
    fn the_oldest_and_the_newest_are_those_of_all_kinds() {
        let kind = |first, last| {
            Some(v1::HistoryUsage {
                records: 2,
                bytes: 600,
                first_time: Some(prost_types::Timestamp {
                    seconds: first,
                    nanos: 0,
                }),
                last_time: Some(prost_types::Timestamp {
                    seconds: last,
                    nanos: 0,
                }),
            })
        };
        let history = v1::AgentHistory {
            agent_name: "db-01".to_owned(),
            results: kind(1_000, 1_500),
            events: Some(v1::HistoryUsage::default()),
            metrics: kind(400, 1_900),
            metric_samples: 12_345,
            ..Default::default()
        };
        let cells = history.cells(Timestamp::from_second(2_000).unwrap());
        let wanted = ["db-01", "1.2 KiB", "2", "0", "12,345", "0", "26m", "1m"].map(Cell::new);
        assert_eq!(cells[..8], wanted);
        assert_eq!(footer(&[history]), "1.2 KiB of 1 agent");
    }
}
