//! Whether a state is still worth anything: pure rules over the agent's status and the time of the last result.

use muster_proto::{
    check,
    v1::{AgentStatus, Freshness},
};

use super::Entry;
use crate::{
    agents,
    clock::{self, Micros},
    policies::Policy,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    pub freshness: Freshness,
    /// Since when.
    pub since: Micros,
    /// For people; empty when fresh.
    pub note: String,
}

pub(super) fn judge(agent: &agents::Entry, policy: &Policy, entry: &Entry, started_at: Micros, now: Micros) -> Fresh {
    let away = match agent.status {
        AgentStatus::Offline => Some("offline"),
        AgentStatus::Revoked => Some("revoked"),
        _ => None,
    };
    if let Some(away) = away {
        return Fresh {
            freshness: Freshness::Unreachable,
            since: agent.status_since,
            note: format!("agent {away} since {}", clock::to_text(agent.status_since)),
        };
    }
    let patience = clock::from_duration(check::stale_after(&policy.timings));
    let reported = match (entry.last_received, agent.status) {
        // Nothing is expected of an agent that has never connected, and a first result only from when it has.
        (0, AgentStatus::Pending | AgentStatus::Expected) => now,
        (0, AgentStatus::Online) => entry.state_since.max(agent.status_since),
        (0, _) => entry.state_since,
        (last, _) => last,
    };
    // Nobody can have reported to a controller that was not running, nor for a policy that was not there. What lies ahead
    // is from before the clock was set back, and proves nothing.
    let heard = [reported, started_at, policy.updated_at]
        .into_iter()
        .filter(|time| *time - now <= patience)
        .max();
    if heard.is_some_and(|heard| now - heard <= patience) {
        let since = if entry.freshness == Freshness::Fresh {
            entry.freshness_since
        } else {
            now
        };
        return Fresh {
            freshness: Freshness::Fresh,
            since,
            note: String::new(),
        };
    }
    let expected = clock::to_span(clock::from_duration(policy.timings.interval));
    let silence = match entry.last_received {
        0 => "no result yet".to_owned(),
        last => format!("no result for {}", clock::to_span(now - last)),
    };
    Fresh {
        freshness: Freshness::Stale,
        since: heard.map_or(now, |heard| heard + patience),
        note: format!("{silence}, expected every {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use muster_proto::{ids::AgentId, selector::Selector, v1};

    use super::*;
    use crate::{
        access::scope::Scope,
        clock::{DAY, MINUTE, SECOND},
        policies::Key,
        store::NewAgent,
    };

    const START: Micros = 1_000 * DAY;
    /// Twice the interval and the timeout.
    const PATIENCE: Micros = 150 * SECOND;

    /// Judged by a controller and a policy that have been there for long.
    fn freshness(status: AgentStatus, entry: &Entry, now: Micros) -> Freshness {
        let new = NewAgent {
            id: AgentId::random(),
            name: "db-01",
            agent_labels: "{}",
            token_labels: "{}",
            version: "",
            now: START,
            revision: 1,
        };
        let mut agent = agents::Entry::from(&new);
        // It has just become what it is.
        (agent.status, agent.status_since) = (status, now);
        let check = v1::Check::default();
        let mut timings = check::timings(&check);
        (timings.interval, timings.timeout) = (Duration::from_secs(60), Duration::from_secs(30));
        let policy = Policy {
            key: Key::check("disk"),
            version: 1,
            labels: BTreeMap::new(),
            selector: Selector::all(),
            scope: Scope::ALL,
            owner: String::new(),
            check,
            timings,
            signed: v1::Signed::default(),
            created_at: START,
            updated_at: START,
            revision: 1,
        };
        judge(&agent, &policy, entry, START, now).freshness
    }

    fn reported_at(at: Micros) -> Entry {
        Entry {
            last_received: at,
            ..Entry::pending(START)
        }
    }

    #[test]
    fn silence_makes_a_state_stale() {
        let entry = reported_at(START + DAY);
        let after = |silence| freshness(AgentStatus::Online, &entry, START + DAY + silence);
        assert_eq!(after(PATIENCE), Freshness::Fresh);
        assert_eq!(after(PATIENCE + 1), Freshness::Stale);
        assert_eq!(
            freshness(AgentStatus::Offline, &entry, START + DAY),
            Freshness::Unreachable
        );
    }

    #[test]
    fn an_agent_that_is_back_does_not_vouch_for_what_it_said_before() {
        let entry = reported_at(START + DAY);
        assert_eq!(
            freshness(AgentStatus::Online, &entry, START + 3 * DAY),
            Freshness::Stale
        );
    }

    #[test]
    fn a_first_result_is_expected_from_when_the_agent_connects() {
        let (assigned, now) = (Entry::pending(START + DAY), START + 2 * DAY);
        assert_eq!(freshness(AgentStatus::Pending, &assigned, now), Freshness::Fresh);
        assert_eq!(freshness(AgentStatus::Online, &assigned, now), Freshness::Fresh);
        assert_eq!(freshness(AgentStatus::Late, &assigned, now), Freshness::Stale);
    }

    #[test]
    fn a_check_that_was_just_assigned_is_not_late_yet() {
        let now = START + 9 * DAY;
        let after = |age| freshness(AgentStatus::Late, &Entry::pending(now - age), now);
        assert_eq!(after(MINUTE), Freshness::Fresh);
        assert_eq!(after(PATIENCE + 1), Freshness::Stale);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_fresh() {
        let now = START + DAY;
        assert_eq!(
            freshness(AgentStatus::Online, &reported_at(now + SECOND), now),
            Freshness::Fresh
        );
        assert_eq!(
            freshness(AgentStatus::Online, &reported_at(now + DAY), now),
            Freshness::Stale
        );
        // The controller itself had started by the wrong clock.
        assert_eq!(
            freshness(AgentStatus::Online, &reported_at(START - DAY), START - DAY),
            Freshness::Fresh
        );
    }
}
