//! Writes what changed in the inventory, many entries in one commit: whatever gathers within a moment, and while one commit
//! runs, goes into the next. What cannot be written stays marked and is tried again.

use std::{collections::BTreeMap, time::Duration};

use muster_proto::{ids::AgentId, v1::AgentStatus};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Agents, Entry, Error, Parts,
    entry::status_name,
    liveness::{self, Rules, Signs},
    transitions::Transition,
};
use crate::{
    clock::{self, Micros},
    store::{AgentUpdate, ChangeKind, EventFilter, EventRow, FirstUse, Op},
};

/// Entries in one commit.
const BATCH: usize = 1_000;
/// For how long changes gather: links that begin one after the other would have a commit each.
const GATHER: Duration = Duration::from_millis(50);
/// While so many more come in that time, they gather on: rows share pages, and a page is written once for all of a commit.
const RUSH: usize = 20;
/// But not for longer than this.
const GATHER_AT_MOST: Duration = Duration::from_millis(500);

/// A commit that did not say how it ended, and what was told by it: that is put back.
#[derive(Clone, Debug)]
pub(super) struct Unsure {
    /// One of its events, by which it is known.
    event: EventRow,
    transitions: usize,
    notices: usize,
}

impl Agents {
    /// Writes until `shutdown`, then writes what is left.
    pub async fn run_persist(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.persist.notified() => {}
            }
            if shutdown.run_until_cancelled(self.gather()).await.is_none() {
                break;
            }
            // What comes meanwhile gathers in its turn.
            if let Err(error) = self.write_marked().await {
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

    /// Waits until what belongs into one commit has come.
    async fn gather(&self) {
        let (mut marked, mut gathered) = (0, Duration::ZERO);
        while gathered < GATHER_AT_MOST {
            tokio::time::sleep(GATHER).await;
            gathered += GATHER;
            let now = self.lock_dirty().len();
            if now < marked + RUSH {
                return;
            }
            marked = now;
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
                seen.push((entry.enrolled_at, entry.id, entry.last_seen));
            }
        });
        // As rows that have changed.
        seen.sort_unstable();
        for batch in seen.chunks(BATCH) {
            let rows: Vec<_> = batch.iter().map(|(_, id, at)| (id.to_string(), *at)).collect();
            // Two that write the same rows in other orders would wait for each other.
            let _writing = self.writing.lock().await;
            self.db.agent_flush_last_seen(&rows).await?;
        }
        Ok(())
    }

    /// Until nothing is marked.
    async fn flush(&self) -> Result<(), Error> {
        while self.write_marked().await? {}
        Ok(())
    }

    /// Writes what is marked now. False: nothing is.
    async fn write_marked(&self) -> Result<bool, Error> {
        self.recall().await?;
        let marked = std::mem::take(&mut *self.lock_dirty());
        let is_idle = marked.is_empty() && self.lock_transitions().is_empty();
        if is_idle && self.lock_notices().is_empty() && self.lock_first_uses().is_empty() {
            return Ok(false);
        }
        let marked = self.in_order_of_rows(marked);
        let (first, rest) = marked.split_at(marked.len().min(BATCH));
        let transitions = self.lock_transitions().take();
        let notices = std::mem::take(&mut *self.lock_notices());
        let first_uses = std::mem::take(&mut *self.lock_first_uses());
        if let Err(error) = self.write_batch(first, &transitions, &notices, &first_uses).await {
            self.put_back(&marked);
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
        for (index, batch) in rest.chunks(BATCH).enumerate() {
            if let Err(error) = self.write_batch(batch, &[], &[], &[]).await {
                self.put_back(&rest[index * BATCH..]);
                return Err(error);
            }
        }
        Ok(true)
    }

    /// What the last commit has told after all is not told again. Rows may be written twice.
    async fn recall(&self) -> Result<(), Error> {
        let Some(unsure) = self.lock_unsure().clone() else {
            return Ok(());
        };
        let like_it = EventFilter {
            agent_id: unsure.event.agent_id.clone(),
            reasons: vec![unsure.event.reason.clone()],
            since: unsure.event.received_at,
            until: unsure.event.received_at + 1,
            ..EventFilter::newest(i64::MAX)
        };
        self.db.event_settle().await?;
        if self.db.event_list(&like_it).await?.contains(&unsure.event) {
            self.lock_transitions().forget(unsure.transitions);
            let mut notices = self.lock_notices();
            let told = unsure.notices.min(notices.len());
            notices.drain(..told);
        }
        *self.lock_unsure() = None;
        Ok(())
    }

    fn lock_unsure(&self) -> std::sync::MutexGuard<'_, Option<Unsure>> {
        self.unsure.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// As they have come to be on file, more or less: rows that are neighbours share pages, and a page is written once for all
    /// of a commit.
    fn in_order_of_rows(&self, marked: BTreeMap<AgentId, Parts>) -> Vec<(AgentId, Parts)> {
        let mut marked: Vec<_> = marked.into_iter().collect();
        let entries = self.read();
        marked.sort_by_cached_key(|(id, _)| entries.get(id).map_or(0, |entry| entry.enrolled_at));
        marked
    }

    /// They could not be written; what has changed meanwhile is marked too.
    fn put_back(&self, batch: &[(AgentId, Parts)]) {
        let mut dirty = self.lock_dirty();
        for (id, parts) in batch {
            *dirty.entry(*id).or_default() |= *parts;
        }
    }

    async fn write_batch(
        &self,
        batch: &[(AgentId, Parts)],
        transitions: &[Transition],
        notices: &[EventRow],
        first_uses: &[FirstUse],
    ) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let now = clock::now();
        let mut rows: Vec<AgentUpdate> = {
            let entries = self.read();
            let update = |(id, parts): &(AgentId, Parts)| entries.get(id).map(|entry| parts.of(entry));
            batch.iter().filter_map(update).collect()
        };
        let changes: Vec<_> = rows
            .iter()
            .map(|row| (ChangeKind::Agent, row.id.to_string(), Op::Put))
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
        let revisions: Vec<_> = rows.iter().map(|row| (row.id, row.revision)).collect();
        tx.agent_update_all(rows).await?;
        tx.event_insert_all(&events).await?;
        tx.agent_certificate_first_use_all(first_uses).await?;
        *self.lock_unsure() = events.into_iter().next().map(|event| Unsure {
            event,
            transitions: transitions.len(),
            notices: notices.len(),
        });
        tx.commit().await?;
        *self.lock_unsure() = None;
        {
            let mut entries = self.write();
            for (id, revision) in revisions {
                if let Some(entry) = entries.get_mut(&id) {
                    entry.revision = revision;
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

#[cfg(test)]
mod tests;
