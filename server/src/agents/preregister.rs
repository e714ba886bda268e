//! Entries that are there before their machines: made by who makes the machines, again and again without harm.

use muster_proto::{ids::AgentId, v1::AgentStatus};

use super::{Agents, Entry, Error, Labels, entry};
use crate::{
    access::{labels, rights::RightsOfAll, scope::Scopes},
    clock::Micros,
    events::Event,
    store::{ChangeKind, NewAgent, Op},
};

/// What somebody wants to be there.
#[derive(Clone, Debug)]
pub struct Preregistration {
    pub id: AgentId,
    /// Empty: as the machine calls itself.
    pub name: String,
    pub labels: Labels,
    /// Though an agent with this id has enrolled without it.
    pub adopt: bool,
    /// Though an agent with this id was deleted.
    pub revive: bool,
}

impl Agents {
    /// For somebody who reaches this. Durable when it returns.
    pub async fn preregister(
        &self,
        wanted: Preregistration,
        scopes: &Scopes,
        rights: &RightsOfAll,
        by: &str,
        now: Micros,
    ) -> Result<Entry, Error> {
        let Preregistration { id, name, labels, .. } = wanted;
        let _writing = self.writing.lock().await;
        let old = self.get(id);
        match &old {
            Some(old) if !old.is_in(scopes) => return Err(Error::Taken(id)),
            // Which labels it had nobody knows any longer.
            None if self.is_deleted(id) && !scopes.is_all() => return Err(Error::Taken(id)),
            Some(old) if !old.preregistered && !wanted.adopt => return Err(Error::AlreadyEnrolled(id)),
            None if self.is_deleted(id) && !wanted.revive => return Err(Error::Deleted(id)),
            _ => {}
        }
        let before = old.as_ref().map(Entry::authoritative_map).unwrap_or_default();
        let after = match &old {
            Some(old) => old.authoritative_with(&labels),
            None => labels.clone(),
        };
        labels::check(scopes, rights, &before, &after).map_err(Error::Labels)?;
        // An agent that has enrolled has a name, and keeps it when none is given.
        let name = match &old {
            Some(old) if name.is_empty() && old.status != AgentStatus::Expected => old.name.clone(),
            _ => name,
        };
        if let Some(old) = &old
            && old.preregistered
            && (&old.name, &old.operator_labels) == (&name, &labels)
        {
            return Ok(old.clone());
        }
        let key = id.to_string();
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Agent, &key, Op::Put).await?;
        tx.agent_revive(&key).await?;
        tx.agent_preregister(&key, &name, &entry::labels_to_json(&labels), revision, now)
            .await?;
        let text = format!("{by} has pre-registered {id}");
        let event = Event::new("AGENT_PREREGISTERED", Some(id), text, now).with("by", by);
        tx.event_insert_all(&[event.into_row()]).await?;
        tx.commit().await?;
        if old.is_some() {
            let entry = self.settle(id, |entry| {
                (entry.name, entry.operator_labels) = (name, labels);
                entry.preregistered = true;
                entry.revision = revision;
            })?;
            self.assignments.changed([id]);
            self.changes.committed();
            return Ok(entry);
        }
        let mut entry = Entry::from(&NewAgent {
            id,
            name: &name,
            agent_labels: "{}",
            token_labels: "{}",
            version: "",
            now,
            revision,
        });
        entry.status = AgentStatus::Expected;
        entry.enrolled_at = 0;
        entry.operator_labels = labels;
        entry.preregistered = true;
        self.inserted(entry.clone());
        Ok(entry)
    }
}
