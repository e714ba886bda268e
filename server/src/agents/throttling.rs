//! Agents that send more than their limits, as people see them. How they are slowed down is in `ingest::quotas`.

use muster_proto::{ids::AgentId, v1::EventSeverity};
use tracing::warn;

use super::{Agents, Entry, Parts};
use crate::{
    clock::{self, HOUR, Micros},
    events::Event,
};

/// How long a warning stands.
const SHOWN: Micros = HOUR;

impl Agents {
    /// An agent is slowed down. Called once for each episode.
    pub fn throttled(&self, id: AgentId, lane: &'static str, now: Micros) {
        let mut notice = None;
        self.update(id, |entry| {
            entry.throttled = Some((lane, now));
            warn!(agent.id = %id, agent.name = entry.name, lane, "an agent sends more than its limits, and is slowed down");
            let message = format!(
                "{} sends more {lane} than limits.agent_records_per_second or limits.agent_bytes_per_second allow, and is \
                 slowed down",
                entry.name
            );
            let event = Event::new("AGENT_THROTTLED", Some(id), message, now);
            notice = Some(event.severity(EventSeverity::Warning).with("lane", lane).into_row());
            Parts::SHOWN
        });
        self.notices(notice);
    }
}

impl Entry {
    pub fn throttled_warning(&self, now: Micros) -> Option<String> {
        let (lane, at) = self.throttled?;
        ((now - at).abs() < SHOWN).then(|| {
            format!(
                "it sent more {lane} than its limits at {}, and was slowed down",
                clock::to_text(at)
            )
        })
    }
}
