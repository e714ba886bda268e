//! Agents that a restored backup does not know: enrolled after it was made, they show certificates of ours and are refused. No
//! rule lets them in; an operator is told of each, now and then.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use muster_proto::{ids::AgentId, v1::EventSeverity};

use super::Request;
use crate::{
    clock::{self, HOUR, Micros},
    events::Event,
    store::Restored,
};

/// Of one agent, one event within this time.
const INTERVAL: Micros = HOUR;
/// Agents that are told of within that time.
const MAX_AGENTS: usize = 10_000;

/// Who was told of, and when.
#[derive(Debug, Default)]
pub struct Lost(Mutex<HashMap<AgentId, Micros>>);

impl Lost {
    /// What to say of an agent that is not on file, if a restore can be the reason and it is time to say it.
    pub fn event(&self, request: &Request, restored: Option<Restored>, now: Micros) -> Option<Event> {
        let restored = restored?;
        let is_from_between = request.not_before <= restored.restored_at && request.not_after > restored.backup_at;
        if !is_from_between || !self.is_time(request.agent, now) {
            return None;
        }
        let id = request.agent;
        let taken = clock::to_text(restored.backup_at);
        let text = format!(
            "agent {id} shows a certificate of this controller and is not on file: it was enrolled after the backup of {taken} that \
             was restored; `musterctl token create --agent-id {id}`, and that token in its token file, brings it back"
        );
        Some(
            Event::new("AGENT_NOT_ON_FILE", Some(id), text, now)
                .severity(EventSeverity::Warning)
                .with("serial", &request.serial)
                .with("backup_at", taken),
        )
    }

    fn is_time(&self, id: AgentId, now: Micros) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Micros| (0..INTERVAL).contains(&(now - *at));
        if told.get(&id).is_some_and(is_recent) {
            return false;
        }
        if told.len() >= MAX_AGENTS {
            told.retain(|_, at| is_recent(at));
        }
        if told.len() >= MAX_AGENTS {
            return false;
        }
        told.insert(id, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use muster_certs::tls::Standing;

    use super::*;
    use crate::clock::DAY;

    const NOW: Micros = 20_000 * DAY;

    fn request(agent: AgentId) -> Request {
        Request {
            agent,
            serial: "01".into(),
            standing: Standing::Unknown,
            not_before: NOW - 2 * DAY,
            not_after: NOW - DAY,
            csr: Vec::new(),
            party: crate::clones::Party::new(None, "01", "192.0.2.1:1"),
        }
    }

    const RESTORED: Option<Restored> = Some(Restored {
        restored_at: NOW - HOUR,
        backup_at: NOW - 3 * DAY,
    });

    #[test]
    fn an_agent_that_a_backup_does_not_know_is_told_of_once_an_hour() {
        let lost = Lost::default();
        let id = AgentId::random();
        let event = lost.event(&request(id), RESTORED, NOW).expect("an event").into_row();
        assert!(event.message.contains(&format!("--agent-id {id}")), "{}", event.message);
        assert!(lost.event(&request(id), RESTORED, NOW + HOUR - 1).is_none());
        assert!(lost.event(&request(AgentId::random()), RESTORED, NOW + 1).is_some());
        assert!(lost.event(&request(id), RESTORED, NOW + HOUR).is_some());
    }

    #[test]
    fn nothing_is_said_where_no_restore_is_the_reason() {
        let lost = Lost::default();
        assert!(lost.event(&request(AgentId::random()), None, NOW).is_none());
        let later = Request {
            not_before: NOW,
            ..request(AgentId::random())
        };
        assert!(lost.event(&later, RESTORED, NOW).is_none(), "issued since the restore");
        let before = Request {
            not_after: NOW - 4 * DAY,
            ..request(AgentId::random())
        };
        assert!(lost.event(&before, RESTORED, NOW).is_none(), "ended before the backup");
    }

    #[test]
    fn however_many_there_are_what_is_kept_of_them_is_bounded() {
        let lost = Lost::default();
        let told = (0..MAX_AGENTS + 10)
            .filter(|_| lost.is_time(AgentId::random(), NOW))
            .count();
        assert_eq!(told, MAX_AGENTS);
        assert!(
            lost.is_time(AgentId::random(), NOW + INTERVAL),
            "an hour later there is room again"
        );
    }
}
