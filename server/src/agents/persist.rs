//! Writes what changed in the inventory, many entries in one commit: whatever gathers within a moment, and while one commit
//! runs, goes into the next. What cannot be written stays marked and is tried again.

use std::{collections::BTreeSet, time::Duration};

use muster_proto::{ids::AgentId, v1::AgentStatus};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Agents, Entry, Error,
    entry::{labels_to_json, status_name},
    liveness::{self, Rules, Signs},
    transitions::Transition,
};
use crate::{
    clock::{self, Micros},
    store::{AgentUpdate, ChangeKind, EventRow, FirstUse, Op},
};

/// Entries in one commit.
const BATCH: usize = 1_000;
/// For how long changes gather: links that begin one after the other would have a commit each.
const GATHER: Duration = Duration::from_millis(50);

impl Agents {
    /// Writes until `shutdown`, then writes what is left.
    pub async fn run_persist(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.persist.notified() => {}
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(GATHER)).await.is_none() {
                break;
            }
            if let Err(error) = self.flush().await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to write the inventory; trying again"
                );
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(Duration::from_secs(1)) => self.persist.notify_one(),
                }
            }
        }
        self.lock_transitions().finish();
        if let Err(error) = self.flush().await {
            warn!(
                error = &error as &dyn std::error::Error,
                "failed to write the inventory at the end"
            );
        }
    }

    /// Declares agents late and offline.
    pub fn review_liveness(&self, rules: Rules, now: Micros) {
        let mut due = Vec::new();
        self.each(|entry| {
            if entry.last_seen > now || review(entry, rules, now).is_some() {
                due.push(entry.id);
            }
        });
        for id in due {
            // Anew, since it may have been heard of meanwhile.
            self.set_status(id, now, |entry| {
                // The clock was set back: silence counts from here.
                entry.last_seen = entry.last_seen.min(now);
                review(entry, rules, now)
            });
        }
        if self.lock_transitions().review(now) {
            self.persist.notify_one();
        }
    }

    /// Writes down when agents were last heard of.
    pub async fn flush_last_seen(&self) -> Result<(), Error> {
        let mut seen = Vec::new();
        self.each(|entry| {
            if entry.heard {
                seen.push((entry.id.to_string(), entry.last_seen));
            }
        });
        for batch in seen.chunks(BATCH) {
            self.db.agent_flush_last_seen(batch).await?;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), Error> {
        loop {
            let batch: BTreeSet<AgentId> = {
                let mut dirty = self.dirty.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let rest = dirty
                    .iter()
                    .nth(BATCH)
                    .copied()
                    .map(|id| dirty.split_off(&id))
                    .unwrap_or_default();
                std::mem::replace(&mut dirty, rest)
            };
            let is_idle = batch.is_empty() && self.lock_transitions().is_empty();
            if is_idle && self.lock_notices().is_empty() && self.lock_first_uses().is_empty() {
                return Ok(());
            }
            let transitions = self.lock_transitions().take();
            let notices = std::mem::take(&mut *self.lock_notices());
            let first_uses = std::mem::take(&mut *self.lock_first_uses());
            if let Err(error) = self.write_batch(&batch, &transitions, &notices, &first_uses).await {
                self.dirty
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
                    .extend(batch);
                self.lock_transitions().put_back(transitions);
                self.lock_notices().splice(0..0, notices);
                self.lock_first_uses().splice(0..0, first_uses);
                return Err(error);
            }
            for transition in transitions {
                info!(
                    agent.id = %transition.id,
                    agent.name = transition.name,
                    from = status_name(transition.from),
                    to = status_name(transition.to),
                    reason = transition.reason,
                    changes = transition.changes,
                    "agent changed its status"
                );
            }
        }
    }

    async fn write_batch(
        &self,
        batch: &BTreeSet<AgentId>,
        transitions: &[Transition],
        notices: &[EventRow],
        first_uses: &[FirstUse],
    ) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let now = clock::now();
        let mut rows: Vec<AgentUpdate> = {
            let entries = self.read();
            batch.iter().filter_map(|id| entries.get(id)).map(to_update).collect()
        };
        let changes: Vec<_> = rows
            .iter()
            .map(|row| (ChangeKind::Agent, row.id.clone(), Op::Put))
            .collect();
        let events: Vec<EventRow> = transitions
            .iter()
            .map(|transition| transition.to_event(now))
            .chain(notices.iter().cloned())
            .collect();
        if changes.is_empty() && events.is_empty() && first_uses.is_empty() {
            return Ok(());
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let first = match changes.is_empty() {
            true => 0,
            false => tx.changes_add(now, &changes).await?,
        };
        for (index, row) in rows.iter_mut().enumerate() {
            row.revision = first + index as i64;
        }
        tx.agent_update_all(&rows).await?;
        tx.event_insert_all(&events).await?;
        tx.agent_certificate_first_use_all(first_uses).await?;
        tx.commit().await?;
        {
            let mut entries = self.write();
            for row in &rows {
                if let Some(entry) = row.id.parse().ok().and_then(|id: AgentId| entries.get_mut(&id)) {
                    entry.revision = row.revision;
                }
            }
        }
        self.changes.committed();
        Ok(())
    }
}

/// The status that an agent has come to, and why, if it is another.
fn review(entry: &Entry, rules: Rules, now: Micros) -> Option<(AgentStatus, &'static str)> {
    let linked = entry.connection.is_some();
    let signs = Signs {
        status: entry.status,
        last_seen: entry.last_seen,
        heard: entry.heard,
        linked,
    };
    let status = rules.status(signs, now);
    let reason = match status {
        AgentStatus::Online => liveness::HEARD,
        _ if linked => liveness::SILENT,
        _ if entry.leave_reason.is_empty() => liveness::TIMEOUT,
        _ => entry.leave_reason,
    };
    (status != entry.status).then_some((status, reason))
}

fn to_update(entry: &Entry) -> AgentUpdate {
    AgentUpdate {
        id: entry.id.to_string(),
        status: status_name(entry.status),
        status_reason: entry.status_reason.clone(),
        status_since: entry.status_since,
        last_seen: entry.last_seen,
        version: entry.version.clone(),
        agent_labels: labels_to_json(&entry.agent_labels),
        facts: labels_to_json(&entry.facts),
        warnings: serde_json::json!(entry.warnings).to_string(),
        policy_status: entry.policy_status.encode_to_vec(),
        fingerprint: entry.machines.to_json(),
        bundle_version: entry.bundle_version,
        revision: entry.revision,
    }
}
