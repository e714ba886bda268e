//! What is kept of agents, for those who look back and those who plan for space. What is kept how long is decided in
//! `tasks/retention`.

use std::collections::HashMap;

use muster_proto::ids::AgentId;

use crate::{
    clock::Micros,
    store::{self, AgentUsage, Db, LogMoments, ResultFilter, ResultRow, SampleUsage},
};

/// Rows that are read at a time, and bytes of results after which a page ends: a result may have 256 KiB.
const STEP: usize = 100;
const PAGE_BYTES: usize = 8 << 20;

/// Which results, and how many.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub agent: AgentId,
    /// Empty: of all checks.
    pub check: String,
    pub since: Micros,
    pub until: Micros,
    /// Where the page before has ended.
    pub after: Option<Place>,
    pub size: usize,
}

/// A place in a list that grows at its beginning: so many rows of this time, and all later ones, are before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: Micros,
    pub skip: i64,
}

impl Place {
    pub fn write(self) -> String {
        format!("{} {}", self.at, self.skip)
    }

    pub fn read(token: &str) -> Option<Place> {
        let (at, skip) = token.split_once(' ')?;
        let (at, skip) = (at.parse().ok()?, skip.parse().ok()?);
        (skip > 0).then_some(Place { at, skip })
    }

    /// The place behind one more row.
    pub fn behind(before: Option<Place>, at: Micros) -> Place {
        let skip = match before {
            Some(place) if place.at == at => place.skip.saturating_add(1),
            _ => 1,
        };
        Place { at, skip }
    }
}

/// A page of results, newest first, and where the next one begins, if there may be more.
pub async fn results(db: &Db, wanted: Wanted) -> Result<(Vec<ResultRow>, Option<Place>), store::Error> {
    let (mut rows, mut bytes, mut place) = (Vec::new(), 0, wanted.after);
    while rows.len() < wanted.size && bytes < PAGE_BYTES {
        let limit = STEP.min(wanted.size - rows.len());
        let filter = ResultFilter {
            agent_id: wanted.agent.to_string(),
            check_name: wanted.check.clone(),
            since: wanted.since,
            until: place.map_or(wanted.until, |place| place.at.saturating_add(1).min(wanted.until)),
            skip: place.map_or(0, |place| place.skip),
            limit: limit as i64,
        };
        let step = db.result_page(&filter).await?;
        let is_last = step.len() < limit;
        for row in step {
            bytes += row.result.len();
            place = Some(Place::behind(place, row.at));
            rows.push(row);
        }
        if is_last {
            return Ok((rows, None));
        }
    }
    Ok((rows, place))
}

/// What is kept of one agent.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub results: AgentUsage,
    pub events: AgentUsage,
    pub metrics: AgentUsage,
    pub samples: SampleUsage,
    pub logs: AgentUsage,
    /// Different times among the log entries.
    pub log_moments: i64,
}

/// Of these agents, which are in order of their ids. Reads what lies between the first and the last.
pub async fn usage(db: &Db, agents: &[AgentId]) -> Result<Vec<Usage>, store::Error> {
    let (Some(first), Some(last)) = (agents.first(), agents.last()) else {
        return Ok(Vec::new());
    };
    let (first, last) = (first.to_string(), last.to_string());
    let by_agent = |rows: Vec<AgentUsage>| -> HashMap<String, AgentUsage> {
        rows.into_iter().map(|row| (row.agent_id.clone(), row)).collect()
    };
    let mut results = by_agent(db.result_usage(&first, &last).await?);
    let mut events = by_agent(db.event_usage(&first, &last).await?);
    let mut metrics = by_agent(db.metric_usage(&first, &last).await?);
    let samples = db.sample_usage(&first, &last).await?;
    let mut samples: HashMap<String, SampleUsage> =
        samples.into_iter().map(|row| (row.agent_id.clone(), row)).collect();
    let mut logs = by_agent(db.log_usage(&first, &last).await?);
    let moments: Vec<LogMoments> = db.log_moments(&first, &last).await?;
    let mut moments: HashMap<String, i64> = moments.into_iter().map(|row| (row.agent_id, row.moments)).collect();
    let usage_of = |agent: &AgentId| {
        let id = agent.to_string();
        Usage {
            results: results.remove(&id).unwrap_or_default(),
            events: events.remove(&id).unwrap_or_default(),
            metrics: metrics.remove(&id).unwrap_or_default(),
            samples: samples.remove(&id).unwrap_or_default(),
            logs: logs.remove(&id).unwrap_or_default(),
            log_moments: moments.remove(&id).unwrap_or_default(),
        }
    };
    Ok(agents.iter().map(usage_of).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_is_read_as_it_was_written(at: i64, skip in 1..i64::MAX) {
            let place = Place { at, skip };
            prop_assert_eq!(Place::read(&place.write()), Some(place));
        }

        #[test]
        fn no_token_is_more_than_a_place_or_nothing(token in ".{0,80}") {
            if let Some(place) = Place::read(&token) {
                prop_assert!(place.skip > 0);
            }
        }
    }

    #[test]
    fn a_place_counts_what_is_of_its_moment() {
        let first = Place::behind(None, 9);
        assert_eq!(first, Place { at: 9, skip: 1 });
        assert_eq!(Place::behind(Some(first), 9), Place { at: 9, skip: 2 });
        assert_eq!(Place::behind(Some(first), 8), Place { at: 8, skip: 1 });
    }
}
