//! All links together, by what their agents last said: for whoever looks at the controller as a whole.

use std::collections::BTreeMap;

use muster_proto::v1::{AgentStatus, Lane};

use super::Agents;
use crate::{
    clock::Micros,
    ingest::{LANES, lane_name},
};

/// Each link is in one of the first three.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Links {
    pub active: usize,
    /// The connection is there, and nothing is heard.
    pub silent: usize,
    /// Told to go elsewhere, and still here.
    pub leaving: usize,
    /// A queue of the agent does not move.
    pub stalled: usize,
    /// By name of the lane; of every lane, if it is empty.
    pub queues: BTreeMap<&'static str, Queue>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    pub records: u64,
    pub bytes: u64,
    /// Since the agents' starts.
    pub dropped: u64,
    /// Of the oldest record at any agent.
    pub oldest_age: Micros,
}

impl Links {
    pub fn count(&self) -> usize {
        self.active + self.silent + self.leaving
    }
}

impl Agents {
    pub fn links(&self, now: Micros) -> Links {
        let mut links = Links::default();
        for lane in LANES {
            links.queues.insert(lane_name(lane), Queue::default());
        }
        self.each(|entry| {
            let Some(connection) = &entry.connection else { return };
            match entry.status {
                _ if connection.leaving => links.leaving += 1,
                AgentStatus::Late | AgentStatus::Offline => links.silent += 1,
                _ => links.active += 1,
            }
            links.stalled += usize::from(connection.stalled_since(now).is_some());
            for depth in connection.report.iter().flat_map(|report| &report.lanes) {
                if depth.lane() == Lane::Unspecified {
                    continue;
                }
                let queue = links.queues.entry(lane_name(depth.lane())).or_default();
                // An agent may say anything.
                queue.records = queue.records.saturating_add(depth.records);
                queue.bytes = queue.bytes.saturating_add(depth.bytes);
                queue.dropped = queue.dropped.saturating_add(depth.dropped);
                if depth.records > 0 {
                    queue.oldest_age = queue.oldest_age.max(depth.oldest_age_micros);
                }
            }
        });
        links
    }
}
