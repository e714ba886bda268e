//! Changes of agents' status on their way to becoming events. Each is told, but of an agent that comes and goes all the time
//! only so many one by one: what else happens to it within a minute is told together. Writes nothing.

use std::collections::BTreeMap;

use muster_proto::{
    ids::AgentId,
    v1::{AgentStatus, EventSeverity},
};

use super::entry::status_name;
use crate::{
    clock::{MINUTE, Micros},
    store::EventRow,
};

/// So many of one agent are told one by one within this time.
const SINGLY: u32 = 6;
const WITHIN: Micros = MINUTE;

/// A change of status, which becomes an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub id: AgentId,
    pub name: String,
    pub from: AgentStatus,
    pub to: AgentStatus,
    /// A word of `liveness`.
    pub reason: &'static str,
    pub at: Micros,
    /// How many changes it stands for.
    pub changes: u32,
}

#[derive(Debug, Default)]
pub(super) struct Transitions {
    /// To be told.
    due: Vec<Transition>,
    /// Of agents whose status has changed within the last minute.
    recent: BTreeMap<AgentId, Recent>,
}

#[derive(Debug)]
struct Recent {
    since: Micros,
    told: u32,
    /// All that was not told, as one.
    held: Option<Transition>,
}

impl Transitions {
    pub fn push(&mut self, transition: Transition) {
        let recent = self.recent.entry(transition.id).or_insert_with(|| Recent {
            since: transition.at,
            told: 0,
            held: None,
        });
        if recent.is_over(transition.at) {
            self.due.extend(recent.held.take());
            (recent.since, recent.told) = (transition.at, 0);
        }
        if recent.told < SINGLY {
            recent.told += 1;
            self.due.push(transition);
            return;
        }
        recent.held = Some(match recent.held.take() {
            None => transition,
            Some(held) => Transition {
                from: held.from,
                changes: held.changes.saturating_add(1),
                ..transition
            },
        });
    }

    /// What was held back for a minute is due; whether there is anything.
    pub fn review(&mut self, now: Micros) -> bool {
        let due = &mut self.due;
        self.recent.retain(|_, recent| {
            let is_over = recent.is_over(now);
            if is_over {
                due.extend(recent.held.take());
            }
            !is_over
        });
        !self.due.is_empty()
    }

    /// Everything is due.
    pub fn finish(&mut self) {
        for (_, recent) in std::mem::take(&mut self.recent) {
            self.due.extend(recent.held);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub fn take(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.due)
    }

    /// So many of those that were put back are told after all.
    pub fn forget(&mut self, count: usize) {
        self.due.drain(..count.min(self.due.len()));
    }

    /// They could not be written.
    pub fn put_back(&mut self, transitions: Vec<Transition>) {
        self.due.splice(0..0, transitions);
    }
}

impl Recent {
    /// Also when the clock was set back.
    fn is_over(&self, now: Micros) -> bool {
        !(0..WITHIN).contains(&now.saturating_sub(self.since))
    }
}

impl Transition {
    pub fn to_event(&self, now: Micros) -> EventRow {
        let severity = match self.to {
            AgentStatus::Offline => EventSeverity::Error,
            AgentStatus::Late => EventSeverity::Warning,
            _ => EventSeverity::Info,
        };
        let (from, to) = (status_name(self.from), status_name(self.to));
        let mut message = format!("{} is {to} ({}); it was {from}", self.name, self.reason);
        let mut metadata = serde_json::json!({ "from": from, "reason": self.reason });
        if self.changes > 1 {
            message.push_str(&format!(", and changed {} times within a minute", self.changes));
            metadata["changes"] = self.changes.to_string().into();
        }
        EventRow {
            at: self.at,
            received_at: now,
            agent_id: self.id.to_string(),
            reason: format!("AGENT_{}", to.to_uppercase()),
            severity: severity as i64,
            message,
            metadata: metadata.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agents::liveness, clock::SECOND};

    fn transition(id: AgentId, n: i64, at: Micros) -> Transition {
        let (from, to) = match n % 2 {
            0 => (AgentStatus::Offline, AgentStatus::Online),
            _ => (AgentStatus::Online, AgentStatus::Offline),
        };
        Transition {
            id,
            name: "db-01".into(),
            from,
            to,
            reason: liveness::GOODBYE,
            at,
            changes: 1,
        }
    }

    #[test]
    fn what_happens_now_and_then_is_told_at_once() {
        let (mut transitions, id) = (Transitions::default(), AgentId::random());
        for n in 0..100 {
            transitions.push(transition(id, n, n * 15 * SECOND));
            assert_eq!(transitions.take().len(), 1, "change {n}");
        }
        assert!(!transitions.review(i64::MAX));
    }

    #[test]
    fn an_agent_that_comes_and_goes_fills_no_table_and_every_change_is_in_a_count() {
        let (mut transitions, id, calm) = (Transitions::default(), AgentId::random(), AgentId::random());
        let mut told = Vec::new();
        for n in 0..600 {
            transitions.push(transition(id, n, n * SECOND));
            transitions.review(n * SECOND);
            told.extend(transitions.take());
        }
        transitions.push(transition(calm, 0, 599 * SECOND));
        assert_eq!(transitions.take().len(), 1, "others are told all the same");
        transitions.finish();
        told.extend(transitions.take());
        assert!(told.len() <= 10 * (SINGLY as usize + 1), "{} events", told.len());
        assert_eq!(told.iter().map(|transition| transition.changes).sum::<u32>(), 600);
        let last = told.last().expect("events");
        assert_eq!(last.to, AgentStatus::Offline, "how it ended up is told");
        assert_eq!(last.from, transition(id, 546, 0).from, "and where that began");
        let event = last.to_event(0);
        assert!(event.message.contains("changed 54 times"), "{}", event.message);
        assert!(event.metadata.contains("\"changes\":\"54\""), "{}", event.metadata);
    }

    #[test]
    fn nothing_is_kept_of_agents_that_are_calm_again() {
        let mut transitions = Transitions::default();
        for _ in 0..10 {
            transitions.push(transition(AgentId::random(), 0, 0));
        }
        transitions.take();
        assert!(!transitions.review(MINUTE));
        assert!(transitions.recent.is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_back_for_ever() {
        let (mut transitions, id) = (Transitions::default(), AgentId::random());
        for n in 0..10 {
            transitions.push(transition(id, n, 1_000 * MINUTE));
        }
        assert_eq!(transitions.take().len(), SINGLY as usize);
        assert!(transitions.review(0));
        assert_eq!(transitions.take().len(), 1);
    }
}
