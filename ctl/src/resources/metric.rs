//! `musterctl metric`: the latest values of the fleet's metrics.

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
    /// Show the latest values of a metric
    ///
    /// The newest value of every series that matches and is not older than five minutes. The expression is a metric name, with
    /// label matchers in braces if wanted: `=` and `!=`.
    #[command(
        after_help = "Examples:\n  musterctl metric query node_load1\n  musterctl metric query 'node_filesystem_avail_bytes{mountpoint=\"/\"}' -l env=prod\n  \
                            musterctl metric query 'node_cpu_seconds_total{mode!=\"idle\"}' -o json"
    )]
    Query(QueryArgs),
}

#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Metric name and label matchers
    #[arg(value_name = "EXPR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    expression: String,
    #[command(flatten)]
    agents: AgentsArgs,
    #[command(flatten)]
    limit: LimitArgs,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Query(args) => query(args, session).await,
    }
}

async fn query(args: QueryArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new(format!("query {}", args.expression))
        .with_text("query", &args.expression)
        .with_selector(args.agents.selector.text());
    let client = session.connect(&asked).await?;
    let ids = args.agents.ids(&client).await?;
    let limit = args.limit.count();
    // What is left out here is no part of what is wanted.
    let asked_for = limit.filter(|_| ids.is_none());
    let mut list = paging::collect(asked_for, |page_size, page_token| {
        let (query, selector) = (args.expression.clone(), args.agents.selector.text());
        let request = v1::QueryMetricsRequest {
            query,
            selector,
            page_size,
            page_token,
        };
        client.call(
            &asked,
            async |request| client.metrics().query_metrics(request).await,
            request,
        )
    })
    .await?;
    if let Some(ids) = ids {
        let is_wanted = |value: &v1::MetricValue| value.labels.get("agent_id").is_some_and(|id| ids.contains(id));
        list.items.retain(is_wanted);
        list.items.truncate(limit.unwrap_or(usize::MAX));
    }
    session.printer.list(&list.items, list.revision)?;
    session.printer.note(&match list.items.len() {
        0 => "no series with a value of the last five minutes matches".to_owned(),
        number => count::of(number as i64, "series", "series"),
    })?;
    Ok(())
}

/// Labels that say where a value comes from, which has columns of its own.
const ORIGIN: [&str; 3] = ["instance", "job", "agent_id"];

impl Row for v1::MetricValue {
    const COLUMNS: &'static [Column] = &[
        Column::new("INSTANCE"),
        Column::cut("SERIES"),
        Column::new("VALUE"),
        Column::new("AGE"),
        Column::wide("TYPE"),
        Column::wide("JOB"),
        Column::wide("AGENT ID"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let label = |name: &str| self.labels.get(name).cloned();
        let kind = match self.r#type() {
            v1::MetricType::Gauge => "gauge",
            v1::MetricType::Counter => "counter",
            v1::MetricType::Unspecified => "",
        };
        vec![
            label("instance").into(),
            Cell::new(series(self, &ORIGIN)),
            Cell::new(number(self.value)),
            age::since(now, self.time.as_ref()).into(),
            Cell::new(kind),
            label("job").into(),
            label("agent_id").into(),
        ]
    }

    fn name(&self) -> String {
        series(self, &[])
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

/// `node_load1{instance="db-01"}`, as Prometheus writes it.
fn series(value: &v1::MetricValue, without: &[&str]) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = value
        .labels
        .iter()
        .filter(|(name, _)| !without.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}=\"{}\"", quoted(value)))
        .collect();
    if pairs.is_empty() {
        value.name.clone()
    } else {
        format!("{}{{{}}}", value.name, pairs.join(","))
    }
}

/// As Prometheus writes numbers: whole ones without a point, "NaN", "+Inf", "-Inf"; very large and small ones with an exponent.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) => format!("{value:e}"),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> v1::MetricValue {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        v1::MetricValue {
            name: "node_disk_read_bytes_total".to_owned(),
            labels: [
                label("instance", "db-01"),
                label("job", "node"),
                label("device", "a\"b\\c\nd"),
                label("agent_id", "7d"),
            ]
            .into(),
            value: 1_234_567.0,
            ..Default::default()
        }
    }

    #[test]
    fn a_series_is_written_as_prometheus_does() {
        assert_eq!(
            series(&value(), &ORIGIN),
            r#"node_disk_read_bytes_total{device="a\"b\\c\nd"}"#
        );
        assert!(value().name().contains(r#"instance="db-01",job="node"}"#));
        assert_eq!(
            series(
                &v1::MetricValue {
                    name: "up".to_owned(),
                    ..Default::default()
                },
                &[]
            ),
            "up"
        );
    }

    #[test]
    fn numbers_keep_every_digit_and_no_more() {
        for (value, text) in [
            (0.0, "0"),
            (0.52, "0.52"),
            (1_234_567.0, "1234567"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e30, "1e30"),
            (-2.5e-9, "-2.5e-9"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
