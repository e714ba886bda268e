//! Agents that invent series beyond their limit, as people see them. Which samples are taken is in `ingest::series`.

use muster_proto::{ids::AgentId, v1::EventSeverity};
use tracing::warn;

use super::{Agents, Entry, Parts};
use crate::{
    clock::{self, HOUR, MINUTE, Micros},
    events::Event,
};

/// How long a warning stands, and how often it is an event.
const SHOWN: Micros = HOUR;
const EPISODE: Micros = 10 * MINUTE;

/// Samples of new series that were not stored, since the controller's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedSeries {
    pub samples: u64,
    /// The last time, and the last time that it was told.
    pub at: Micros,
    told_at: Micros,
}

impl Agents {
    /// So many samples of an agent were not stored.
    pub fn new_series_refused(&self, id: AgentId, samples: u64, now: Micros) {
        let mut notice = None;
        self.update(id, |entry| {
            let refused = &mut entry.refused_series;
            refused.samples = refused.samples.saturating_add(samples);
            refused.at = now;
            if refused.told_at != 0 && (now - refused.told_at).abs() < EPISODE {
                return Parts::NONE;
            }
            refused.told_at = now;
            warn!(agent.id = %id, agent.name = entry.name, samples, "an agent invents more series than its limit allows");
            let message = format!(
                "{} has more new series than limits.agent_new_series_per_minute allows: their samples are not stored, all others \
                 are",
                entry.name
            );
            let event = Event::new("AGENT_NEW_SERIES_REFUSED", Some(id), message, now);
            let event = event.severity(EventSeverity::Warning).with("samples", samples);
            notice = Some(event.into_row());
            Parts::SHOWN
        });
        self.notices(notice);
    }
}

impl Entry {
    pub fn new_series_warning(&self, now: Micros) -> Option<String> {
        let refused = self.refused_series;
        (refused.samples > 0 && (now - refused.at).abs() < SHOWN).then(|| {
            format!(
                "it had more new series than its limit, the last time at {}: {} of its samples were not stored since the \
                 controller's start",
                clock::to_text(refused.at),
                refused.samples
            )
        })
    }
}
