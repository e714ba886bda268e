//! The end of trust in an agent, and the way back: revoked, deleted, readmitted. Durable when it returns; cutting the link is
//! the caller's part.

use muster_proto::{
    ids::AgentId,
    v1::{AgentStatus, EventSeverity},
};

use super::{Agents, Entry, Error};
use crate::{
    clock::{self, Micros},
    events::Event,
    store::{self, CertificateRow, ChangeKind, Op},
};

/// Who ends it, and why.
#[derive(Clone, Debug)]
pub struct Ending<'a> {
    /// The operator.
    pub by: &'a str,
    /// For people; may be empty.
    pub reason: &'a str,
}

impl Agents {
    /// Ends the trust in all certificates of an agent. Once more is no error.
    pub async fn revoke(&self, id: AgentId, ending: Ending<'_>, now: Micros) -> Result<Entry, Error> {
        let _writing = self.writing.lock().await;
        let entry = self.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        if entry.status == AgentStatus::Revoked {
            return Ok(entry);
        }
        let key = id.to_string();
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Agent, &key, Op::Put).await?;
        tx.agent_revoke(&key, ending.reason, revision, now).await?;
        tx.agent_certificate_revoke_all(&key, ending.reason, now).await?;
        tx.event_insert_all(&[told("AGENT_REVOKED", "revoked", &entry, &ending, now)])
            .await?;
        tx.commit().await?;
        let entry = self.settle(id, |entry| {
            entry.status = AgentStatus::Revoked;
            entry.status_reason = ending.reason.to_owned();
            entry.status_since = now;
            entry.epoch += 1;
            (entry.readmit_until, entry.fork_until) = (0, 0);
            entry.next = None;
            entry.revision = revision;
        })?;
        self.assignments.changed([id]);
        self.changes.committed();
        Ok(entry)
    }

    /// Ends the trust in one certificate, as it is then. None: there is no such certificate. Once more is no error.
    pub async fn revoke_certificate(
        &self,
        serial: &str,
        ending: Ending<'_>,
        now: Micros,
    ) -> Result<Option<CertificateRow>, Error> {
        let _writing = self.writing.lock().await;
        let Some(row) = self.db.agent_certificate_get(serial).await? else {
            return Ok(None);
        };
        let entry = row.agent_id.parse::<AgentId>().ok().and_then(|id| self.get(id));
        if row.revoked_at > 0 {
            return Ok(Some(row));
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = match &entry {
            Some(_) => tx.change_add(now, ChangeKind::Agent, &row.agent_id, Op::Put).await?,
            None => 0,
        };
        tx.agent_certificate_revoke(serial, ending.reason, now).await?;
        if let Some(entry) = &entry {
            // What is being issued on the strength of it does not count.
            tx.agent_raise_epoch(&row.agent_id, revision).await?;
            let event = told(
                "AGENT_CERTIFICATE_REVOKED",
                "left without a certificate",
                entry,
                &ending,
                now,
            );
            tx.event_insert_all(&[event]).await?;
        }
        tx.commit().await?;
        if let Some(entry) = &entry {
            self.settle(entry.id, |entry| {
                entry.epoch += 1;
                entry.revision = revision;
                entry.next.take_if(|next| next.serial == serial);
                if entry.certificate.serial == serial {
                    entry.certificate = entry.next.take().unwrap_or_default();
                }
            })?;
            self.changes.committed();
        }
        Ok(Some(CertificateRow {
            revoked_at: now,
            revoke_reason: ending.reason.to_owned(),
            ..row
        }))
    }

    /// Revokes it and takes it out of the inventory, with the states of these checks. Its id stays taken. `seen`: the revision
    /// that the caller knows; 0: whatever it is.
    pub async fn delete(
        &self,
        id: AgentId,
        seen: i64,
        checks: &[String],
        ending: Ending<'_>,
        now: Micros,
    ) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let entry = self.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        is_current(seen, entry.revision)?;
        let key = id.to_string();
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let mut changes = vec![(ChangeKind::Agent, key.clone(), Op::Delete)];
        changes.extend(
            checks
                .iter()
                .map(|check| (ChangeKind::State, format!("{id}/{check}"), Op::Delete)),
        );
        tx.changes_add(now, &changes).await?;
        tx.agent_certificate_revoke_all(&key, "deleted", now).await?;
        tx.agent_delete(&key, &entry.name, ending.by, now).await?;
        tx.event_insert_all(&[told("AGENT_DELETED", "deleted", &entry, &ending, now)])
            .await?;
        tx.commit().await?;
        self.lock_deleted().insert(id);
        self.write().remove(&id);
        self.changes.committed();
        Ok(())
    }

    /// Ids of agents that were deleted before `at` may be given out again.
    pub async fn forget_deleted(&self, at: Micros) -> Result<(), store::Error> {
        let _writing = self.writing.lock().await;
        let ids = self.db.agent_trim_deleted(at).await?;
        let mut deleted = self.lock_deleted();
        for id in ids.iter().filter_map(|id| id.parse().ok()) {
            deleted.remove(&id);
        }
        Ok(())
    }

    /// Lets it renew an expired certificate once, until `until`.
    pub async fn readmit(&self, id: AgentId, until: Micros, by: &str, now: Micros) -> Result<Entry, Error> {
        let _writing = self.writing.lock().await;
        let entry = self.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        match entry.status {
            AgentStatus::Revoked => return Err(Error::Revoked(id)),
            AgentStatus::Expected => return Err(Error::NeverEnrolled(id)),
            _ => {}
        }
        let key = id.to_string();
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Agent, &key, Op::Put).await?;
        tx.agent_set_readmit_until(&key, until, revision).await?;
        let text = format!("{by} lets {} renew until {}", entry.name, clock::to_text(until));
        let event = Event::new("AGENT_READMIT_OPENED", Some(id), text, now).with("by", by);
        tx.event_insert_all(&[event.into_row()]).await?;
        tx.commit().await?;
        let entry = self.settle(id, |entry| {
            entry.readmit_until = until;
            entry.revision = revision;
        })?;
        self.changes.committed();
        Ok(entry)
    }

    /// Memory follows what was committed.
    pub(super) fn settle(&self, id: AgentId, change: impl FnOnce(&mut Entry)) -> Result<Entry, Error> {
        let mut entries = self.write();
        let entry = entries.get_mut(&id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        change(entry);
        Ok(entry.clone())
    }
}

/// Whether a caller knows what there is; 0: it need not.
pub(super) fn is_current(seen: i64, is: i64) -> Result<(), Error> {
    match seen > 0 && seen != is {
        true => Err(Error::Conflict { seen, is }),
        false => Ok(()),
    }
}

fn told(reason: &str, word: &str, entry: &Entry, ending: &Ending<'_>, now: Micros) -> crate::store::EventRow {
    let mut text = format!("{} was {word} by {}", entry.name, ending.by);
    if !ending.reason.is_empty() {
        text.push_str(": ");
        text.push_str(ending.reason);
    }
    Event::new(reason, Some(entry.id), text, now)
        .severity(EventSeverity::Warning)
        .with("by", ending.by)
        .with("reason", ending.reason)
        .with("name", &entry.name)
        .into_row()
}
