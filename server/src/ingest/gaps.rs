//! What a restored backup lacks: records that agents have sent, and forgotten, between the backup and its restore. Spools that
//! go on above their mark are taken as they come; of each agent an event tells once what is missing before.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use muster_proto::{ids::AgentId, v1::EventSeverity};

use super::plan::Work;
use crate::{
    agents::Agents,
    clock::{self, Micros},
    events::Event,
    store::{self, Db, EventRow, Restored},
};

#[derive(Debug)]
pub struct Gaps {
    restored: Option<Restored>,
    agents: Arc<Agents>,
    /// Agents that have sent results since the restore: what is missing later is no restore's fault.
    heard: Mutex<HashSet<AgentId>>,
}

impl Gaps {
    pub async fn load(db: &Db, agents: Arc<Agents>) -> Result<Self, store::Error> {
        let restored = db.restored().await?;
        let mut heard = HashSet::new();
        if let Some(restored) = restored {
            let agents = db.mark_agents_since(restored.restored_at).await?;
            heard = agents.iter().filter_map(|id| id.parse().ok()).collect();
        }
        Ok(Self {
            restored,
            agents,
            heard: Mutex::new(heard),
        })
    }

    /// To be stored with the records, when some before them are missing. `mark` is how far their spool is stored.
    pub fn event(&self, work: &Work, mark: u64, now: Micros) -> Option<EventRow> {
        let restored = self.restored?;
        let first = work.first_seq();
        let enrolled_at = self.agents.with(work.agent, |entry| entry.enrolled_at)?;
        let is_gap = first > mark.saturating_add(1) && enrolled_at <= restored.restored_at;
        if !is_gap || self.lock().contains(&work.agent) {
            return None;
        }
        let (from, to) = (mark + 1, first - 1);
        let text = format!(
            "records {from} to {to} of spool {} are missing: they were sent after the backup of {} that was restored",
            work.spool,
            clock::to_text(restored.backup_at)
        );
        let event = Event::new("AGENT_RECORDS_MISSING", Some(work.agent), text, now)
            .severity(EventSeverity::Warning)
            .with("spool", &work.spool)
            .with("from", from)
            .with("to", to);
        Some(event.into_row())
    }

    /// Records of this agent are committed.
    pub fn heard(&self, agent: AgentId) {
        if self.restored.is_some() {
            self.lock().insert(agent);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<AgentId>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
