//! The latest metrics of the fleet, by name and labels. History and PromQL are not here.

mod query;

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::v1::{MetricBatch, MetricType};
use prost::Message as _;

pub use query::{Invalid, Query};

use crate::{
    agents::Entry,
    clock::{MINUTE, Micros},
    store::{self, Db},
};

/// A value that is older is no longer shown, as in Prometheus.
pub const STALENESS: Micros = 5 * MINUTE;

/// One series with its newest value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    pub at: Micros,
    pub kind: MetricType,
}

/// What matches of one agent, in the order of the labels.
pub async fn latest(db: &Db, agent: &Entry, query: &Query, now: Micros) -> Result<Vec<Value>, store::Error> {
    let name: Arc<str> = query.name.as_str().into();
    let mut values = Vec::new();
    for row in db.metric_latest(&agent.id.to_string(), now - STALENESS).await? {
        let batch = MetricBatch::decode(row.payload.as_slice()).map_err(|error| store::Error::Corrupt {
            table: "metric_batches",
            id: row.agent_id.clone(),
            problem: error.to_string(),
        })?;
        for family in batch.families.iter().filter(|family| family.name == query.name) {
            for sample in &family.samples {
                let own = sample
                    .labels
                    .iter()
                    .map(|label| (label.name.clone(), label.value.clone()));
                let mut labels: BTreeMap<String, String> = own.collect();
                labels.insert("job".into(), batch.job.clone());
                labels.insert("instance".into(), agent.name.clone());
                labels.insert("agent_id".into(), row.agent_id.clone());
                if query.matches(&labels) {
                    let kind = family.r#type();
                    values.push(Value {
                        name: name.clone(),
                        labels,
                        value: sample.value,
                        at: row.at,
                        kind,
                    });
                }
            }
        }
    }
    values.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(values)
}
