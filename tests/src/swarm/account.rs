//! The books of a swarm: what each agent has made against what the controller has stored of it, record by record. Asks the
//! API and nothing else.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use muster_proto::v1::{self, Lane};
use serde_json::{Value, json};

use super::{agent::Agent, ask::Api, traffic::LINES};

/// Calls at a time: a connection takes no more.
const PARALLEL: usize = 3;
/// Agents whose books are not right, in the document.
const SHOWN: usize = 20;

/// Of one agent and lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub made: u64,
    /// Different ones.
    pub stored: u64,
    /// Made and not stored.
    pub lost: u64,
    /// Stored more often than once, each time beyond the first counted.
    pub doubled: u64,
    /// Given up by the agent, which says so.
    pub dropped: u64,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.made += other.made;
        self.stored += other.stored;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.dropped += other.dropped;
    }

    fn is_right(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }

    fn to_json(self) -> Value {
        json!({
            "made": self.made,
            "stored": self.stored,
            "lost": self.lost,
            "doubled": self.doubled,
            "dropped": self.dropped,
        })
    }
}

#[derive(Debug, Default)]
pub struct Account {
    pub results: Sum,
    pub metrics: Sum,
    /// Entry by entry.
    pub logs: Sum,
    pub samples: u64,
    pub stored_bytes: u64,
    wrong: Vec<Value>,
}

impl Account {
    /// Nothing lost and nothing doubled.
    pub fn is_right(&self) -> bool {
        self.sums().iter().all(|sum| sum.is_right())
    }

    fn sums(&self) -> [Sum; 3] {
        [self.results, self.metrics, self.logs]
    }

    pub fn to_json(&self) -> Value {
        let all = |of: fn(&Sum) -> u64| self.sums().iter().map(of).sum::<u64>();
        json!({
            "lost": all(|sum| sum.lost),
            "doubled": all(|sum| sum.doubled),
            "dropped": all(|sum| sum.dropped),
            "results": self.results.to_json(),
            "metric_batches": self.metrics.to_json(),
            "log_entries": self.logs.to_json(),
            "metric_samples": self.samples,
            "stored_bytes": self.stored_bytes,
            "wrong_agents": self.wrong,
        })
    }
}

/// Of all agents, which report nothing now and have nothing left to send.
pub async fn account(api: &Api, selector: &str, agents: &[Arc<Agent>]) -> anyhow::Result<Account> {
    let usage = api.usage(selector).await?;
    let results: HashMap<String, HashMap<u64, u32>> = stream::iter(agents)
        .map(async |agent| {
            let id = agent.id.to_string();
            let numbers = api.results(&id).await?;
            anyhow::Ok((id, numbers))
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    let mut account = Account::default();
    for agent in agents {
        let id = agent.id.to_string();
        let kept = usage.get(&id).cloned().unwrap_or_default();
        let depths = agent.depths();
        let nothing = HashMap::new();
        let of_results = of_numbers(
            agent.made(Lane::Results).count(),
            results.get(&id).unwrap_or(&nothing),
            depths[0].dropped,
        );
        let of_metrics = of_moments(
            agent.made(Lane::Metrics).count(),
            kept.metrics.as_ref(),
            kept.metric_moments,
            depths[1].dropped,
        );
        let lines = u64::from(LINES);
        let of_logs = of_moments(
            agent.made(Lane::Logs).count() * lines,
            kept.logs.as_ref(),
            kept.log_moments,
            depths[2].dropped * lines,
        );
        let is_right = [of_results, of_metrics, of_logs].iter().all(|sum| sum.is_right());
        if !is_right && account.wrong.len() < SHOWN {
            account.wrong.push(json!({
                "agent": agent.name,
                "results": of_results.to_json(),
                "metric_batches": of_metrics.to_json(),
                "log_entries": of_logs.to_json(),
            }));
        }
        account.results.add(of_results);
        account.metrics.add(of_metrics);
        account.logs.add(of_logs);
        account.samples += u64::try_from(kept.metric_samples).unwrap_or(0);
        let kinds = [&kept.results, &kept.events, &kept.metrics, &kept.logs];
        let kinds = kinds.into_iter().flatten();
        account.stored_bytes += kinds.map(|kind| u64::try_from(kind.bytes).unwrap_or(0)).sum::<u64>();
    }
    Ok(account)
}

/// Results carry their numbers, from 1 on.
fn of_numbers(made: u64, stored: &HashMap<u64, u32>, dropped: u64) -> Sum {
    let different = (1..=made).filter(|number| stored.contains_key(number)).count() as u64;
    let rows: u64 = stored.values().map(|count| u64::from(*count)).sum();
    Sum {
        made,
        stored: different,
        lost: (made - different).saturating_sub(dropped),
        // One that was never made counts here too: it is not of this agent.
        doubled: rows - different,
        dropped,
    }
}

/// Every batch of an agent has a time of its own, and every entry of its log.
fn of_moments(made: u64, kept: Option<&v1::HistoryUsage>, moments: i64, dropped: u64) -> Sum {
    let rows = kept.map_or(0, |kept| kept.records);
    let different = u64::try_from(moments).unwrap_or(0);
    Sum {
        made,
        stored: different,
        lost: made.saturating_sub(different).saturating_sub(dropped),
        doubled: u64::try_from(rows).unwrap_or(0) - different.min(made),
        dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_there_twice_are_told_apart() {
        let stored = HashMap::from([(1, 1), (2, 3), (4, 1), (9, 1)]);
        let sum = of_numbers(5, &stored, 0);
        // 3 and 5 are missing; 2 is there twice too often, and 9 was never made.
        assert_eq!((sum.stored, sum.lost, sum.doubled), (3, 2, 3));
        assert_eq!(of_numbers(5, &stored, 1).lost, 1);
        assert!(of_numbers(2, &HashMap::from([(1, 1), (2, 1)]), 0).is_right());
    }

    #[test]
    fn batches_are_counted_by_their_moments() {
        let of_moments = |made, records, moments| {
            let kept = v1::HistoryUsage {
                records,
                ..Default::default()
            };
            of_moments(made, Some(&kept), moments, 0)
        };
        assert!(of_moments(3, 3, 3).is_right());
        // As many rows as batches, and yet one is lost and one doubled.
        let sum = of_moments(3, 3, 2);
        assert_eq!((sum.lost, sum.doubled), (1, 1));
        assert_eq!(of_moments(3, 4, 4).doubled, 1);
    }
}
