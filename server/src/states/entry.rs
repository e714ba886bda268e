//! What is kept of one check on one agent, and how a result changes it: a pure step.

use bytes::Bytes;
use muster_proto::{
    attempts::{self, Attempts},
    ids::AgentId,
    v1::{CheckResult, CheckState, Freshness},
};
use prost::Message as _;

use crate::{
    clock::Micros,
    store::{self, StateRow},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub state: CheckState,
    pub hard: bool,
    pub attempt: u32,
    /// Since when the state, or its kind (soft, hard), is what it is.
    pub state_since: Micros,
    /// As last written; what a reader sees is judged anew.
    pub freshness: Freshness,
    pub freshness_since: Micros,
    /// 0: never, as below.
    pub last_run: Micros,
    pub last_received: Micros,
    /// Of the spool of the last result, and its place there.
    pub generation: i64,
    pub seq: i64,
    /// Encoded `CheckResult`; empty while pending.
    pub result: Bytes,
    pub revision: i64,
}

/// A result that is on its way into the store.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    pub result: &'a CheckResult,
    pub encoded: Bytes,
    /// When the run began, by the agent's clock.
    pub at: Micros,
    pub received_at: Micros,
    pub generation: i64,
    pub seq: i64,
    /// Of the policy: problems that make a problem hard.
    pub attempts: u32,
}

impl Entry {
    /// Assigned, no result yet.
    pub fn pending(now: Micros) -> Self {
        Self {
            state: CheckState::Pending,
            hard: true,
            attempt: 0,
            state_since: now,
            freshness: Freshness::Fresh,
            freshness_since: now,
            last_run: 0,
            last_received: 0,
            generation: 0,
            seq: 0,
            result: Bytes::new(),
            revision: 0,
        }
    }

    /// Whether a result is older than what is known: its place in the spools decides, and not a clock.
    pub fn is_ahead_of(&self, generation: i64, seq: i64) -> bool {
        self.last_received != 0 && (self.generation, self.seq) >= (generation, seq)
    }

    /// The entry after a result, and whether that is a transition that watchers are told of.
    pub fn after(&self, arrival: Arrival<'_>) -> (Self, bool) {
        let state = arrival.result.state();
        let previous = (self.state != CheckState::Pending).then_some(Attempts {
            state: self.state,
            attempt: self.attempt,
            hard: self.hard,
        });
        let next = attempts::next(previous, state, arrival.attempts);
        let changed = state != self.state || next.hard != self.hard;
        let refreshed = self.freshness != Freshness::Fresh;
        let transition = changed || refreshed || next.attempt != self.attempt;
        let entry = Self {
            state,
            hard: next.hard,
            attempt: next.attempt,
            state_since: if state != self.state {
                arrival.received_at
            } else {
                self.state_since
            },
            freshness: Freshness::Fresh,
            freshness_since: if refreshed {
                arrival.received_at
            } else {
                self.freshness_since
            },
            last_run: arrival.at,
            last_received: arrival.received_at,
            generation: arrival.generation,
            seq: arrival.seq,
            result: arrival.encoded,
            revision: self.revision,
        };
        (entry, transition)
    }

    pub(super) fn from_row(row: StateRow) -> Result<(AgentId, String, Self), store::Error> {
        let corrupt = |problem: String| store::Error::Corrupt {
            table: "states",
            id: format!("{}/{}", row.agent_id, row.check_name),
            problem,
        };
        let number = |number: i64| i32::try_from(number).map_err(|error| corrupt(error.to_string()));
        let agent = row
            .agent_id
            .parse()
            .map_err(|_| corrupt("the agent's id is not a UUID".into()))?;
        let entry = Self {
            state: CheckState::try_from(number(row.state)?).map_err(|error| corrupt(error.to_string()))?,
            hard: row.hard,
            attempt: u32::try_from(row.attempt).map_err(|error| corrupt(error.to_string()))?,
            state_since: row.state_since,
            freshness: Freshness::try_from(number(row.freshness)?).map_err(|error| corrupt(error.to_string()))?,
            freshness_since: row.freshness_since,
            last_run: row.last_run,
            last_received: row.last_received,
            generation: row.generation,
            seq: row.seq,
            result: Bytes::copy_from_slice(&row.result),
            revision: row.revision,
        };
        Ok((agent, row.check_name, entry))
    }

    pub fn to_row(&self, agent: AgentId, check: &str) -> StateRow {
        StateRow {
            agent_id: agent.to_string(),
            check_name: check.to_owned(),
            state: self.state as i64,
            hard: self.hard,
            attempt: self.attempt.into(),
            state_since: self.state_since,
            freshness: self.freshness as i64,
            freshness_since: self.freshness_since,
            last_run: self.last_run,
            last_received: self.last_received,
            generation: self.generation,
            seq: self.seq,
            result: self.result.to_vec(),
            revision: self.revision,
        }
    }

    /// The last result; the default while pending.
    pub fn last_result(&self) -> CheckResult {
        CheckResult::decode(self.result.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(result: &CheckResult, seq: i64) -> Arrival<'_> {
        Arrival {
            result,
            encoded: Bytes::from(result.encode_to_vec()),
            at: seq * 100,
            received_at: seq * 100 + 5,
            generation: 1,
            seq,
            attempts: 3,
        }
    }

    fn result(state: CheckState) -> CheckResult {
        CheckResult {
            state: state as i32,
            ..CheckResult::default()
        }
    }

    #[test]
    fn a_problem_becomes_hard_with_its_last_attempt() {
        let (ok, critical) = (result(CheckState::Ok), result(CheckState::Critical));
        let (mut entry, transition) = Entry::pending(0).after(arrival(&ok, 1));
        assert!(transition && entry.hard);
        let mut seen = Vec::new();
        for seq in 2..=5 {
            let (next, transition) = entry.after(arrival(&critical, seq));
            seen.push((next.attempt, next.hard, transition));
            entry = next;
        }
        assert_eq!(
            seen,
            [(1, false, true), (2, false, true), (3, true, true), (3, true, false)]
        );
        assert_eq!(entry.state_since, 205, "since the first critical result");
    }

    #[test]
    fn the_place_in_the_spools_decides_which_result_is_newer() {
        let (entry, _) = Entry::pending(0).after(arrival(&result(CheckState::Ok), 7));
        assert!(entry.is_ahead_of(1, 7) && entry.is_ahead_of(1, 6) && entry.is_ahead_of(0, 99));
        assert!(!entry.is_ahead_of(1, 8) && !entry.is_ahead_of(2, 1));
        assert!(!Entry::pending(0).is_ahead_of(0, 0));
    }

    #[test]
    fn a_result_makes_a_stale_state_fresh_and_tells_watchers() {
        let ok = result(CheckState::Ok);
        let (mut entry, _) = Entry::pending(0).after(arrival(&ok, 1));
        entry.freshness = Freshness::Stale;
        let (next, transition) = entry.after(arrival(&ok, 2));
        assert!(transition);
        assert_eq!((next.freshness, next.freshness_since), (Freshness::Fresh, 205));
    }
}
