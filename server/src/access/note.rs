//! What a call tells the audit log of what it has done: the resource, and its digests before and after. Set by whoever carries
//! the call out, read by the door when it is over.

use std::sync::{Arc, Mutex, PoisonError};

use muster_proto::{digest, ids::AgentId};

/// Longer than any name of a resource.
const MAX_NAME: usize = 300;

/// Cheap to clone; clones are the same note.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<Mutex<Noted>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// "agent/<uuid>".
    pub resource: String,
    pub agent: Option<AgentId>,
    pub before: String,
    pub after: String,
}

impl Note {
    /// "token/3f9c2a7d10e4b856". The last one counts. A name may be whatever a caller has made up: what could not be stored of
    /// it is left out.
    pub fn resource(&self, kind: &str, name: impl std::fmt::Display) {
        let name = name.to_string();
        let name: String = name
            .chars()
            .filter(|letter| !letter.is_control())
            .take(MAX_NAME)
            .collect();
        self.with(|noted| noted.resource = format!("{kind}/{name}"));
    }

    pub fn agent(&self, id: AgentId) {
        self.with(|noted| {
            noted.resource = format!("agent/{id}");
            noted.agent = Some(id);
        });
    }

    /// The agent that the resource belongs to, for those who see the agent.
    pub fn of_agent(&self, id: AgentId) {
        self.with(|noted| noted.agent = Some(id));
    }

    /// What the resource was, encoded. No secret is in it.
    pub fn before(&self, resource: &impl prost::Message) {
        let digest = digest::of_bytes(&resource.encode_to_vec());
        self.with(|noted| noted.before = digest);
    }

    pub fn after(&self, resource: &impl prost::Message) {
        let digest = digest::of_bytes(&resource.encode_to_vec());
        self.with(|noted| noted.after = digest);
    }

    pub fn take(&self) -> Noted {
        self.with(std::mem::take)
    }

    fn with<T>(&self, on: impl FnOnce(&mut Noted) -> T) -> T {
        on(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_caller_has_made_up_can_be_stored() {
        let note = Note::default();
        note.resource("role", format!("a\0\n{}", "b".repeat(100_000)));
        let resource = note.take().resource;
        assert!(resource.starts_with("role/abb") && resource.len() < 400, "{resource}");
    }
}
