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
    if agent.status == AgentStatus::Offline {
        return Fresh {
            freshness: Freshness::Unreachable,
            since: agent.status_since,
            note: format!("agent offline since {}", clock::to_text(agent.status_since)),
        };
    }
    // Nobody can have reported to a controller that was not running, nor for a policy that was not there.
    let heard = entry
        .last_received
        .max(started_at)
        .max(policy.updated_at)
        .max(agent.enrolled_at)
        .max(
            // An agent that has come back gets the time of a first run.
            if agent.status == AgentStatus::Online {
                agent.status_since
            } else {
                0
            },
        );
    let patience = clock::from_duration(check::stale_after(&policy.timings));
    if now - heard <= patience {
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
        since: heard + patience,
        note: format!("{silence}, expected every {expected}"),
    }
}
