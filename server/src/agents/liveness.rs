//! When an agent is late and when it is offline: pure rules over the time it was last heard of. Not for checks: whether
//! their states are still worth anything is decided in `states`.

use muster_proto::v1::AgentStatus;

use crate::clock::{Micros, SECOND};

/// It was stopped, and said so.
pub const GOODBYE: &str = "goodbye";
/// It went elsewhere, as it was told to, and was not seen since.
pub const DRAINED: &str = "drained";
/// It said that it would be back at once, and was not.
pub const RESTARTING: &str = "restarting";
/// Its connection broke off.
pub const EOF: &str = "eof";
/// Its connection is there, and nothing comes over it.
pub const SILENT: &str = "silent";
/// It takes nothing that it is sent; or it was not heard of since the controller's start.
pub const TIMEOUT: &str = "timeout";
pub const EXPIRED: &str = "certificate expired";
/// An operator has ended the trust in its certificate.
pub const REVOKED: &str = "revoked";
/// Another session has taken its place.
pub const SUPERSEDED: &str = "superseded";
/// It broke the protocol, or is a copy.
pub const REFUSED: &str = "refused";
/// The database did not take what it sent.
pub const NOT_STORED: &str = "not stored";

/// Why it is online: a link is active, or it is heard again on the one that it had.
pub const CONNECTED: &str = "connected";
pub const HEARD: &str = "heard";

/// The longest back-off of an agent: a fleet needs that long to come back after the controller's start.
const LONGEST_BACKOFF: Micros = 60 * SECOND;

/// Heartbeats missed before an agent is late, and before it is offline.
const LATE_AFTER: i64 = 2;
const OFFLINE_AFTER: i64 = 4;

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How often an agent is heard of.
    pub heartbeat: Micros,
    /// When the controller began to listen.
    pub started_at: Micros,
}

/// What is known of one agent.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    pub status: AgentStatus,
    pub last_seen: Micros,
    /// Heard of since the controller's start.
    pub heard: bool,
    /// It has an active link.
    pub linked: bool,
}

impl Rules {
    pub fn offline_after(&self) -> Micros {
        OFFLINE_AFTER * self.heartbeat
    }

    /// The status that follows from silence. An agent that is offline, or has never connected, stays so until it connects;
    /// one whose link has outlived the silence, since it was the controller that did not listen, is back when it is heard.
    pub fn status(&self, signs: Signs, now: Micros) -> AgentStatus {
        if !signs.linked && !matches!(signs.status, AgentStatus::Online | AgentStatus::Late) {
            return signs.status;
        }
        // A controller that has just started has missed the heartbeats itself.
        if !signs.heard && now < self.started_at + self.offline_after() + LONGEST_BACKOFF {
            return signs.status;
        }
        let silence = now - signs.last_seen;
        if silence >= self.offline_after() {
            AgentStatus::Offline
        } else if silence >= LATE_AFTER * self.heartbeat {
            AgentStatus::Late
        } else {
            AgentStatus::Online
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        heartbeat: 30 * SECOND,
        started_at: 1_000 * SECOND,
    };

    fn after(silence: i64, status: AgentStatus, heard: bool, since_start: i64) -> AgentStatus {
        let now = RULES.started_at + since_start * SECOND;
        RULES.status(
            Signs {
                status,
                last_seen: now - silence * SECOND,
                heard,
                linked: false,
            },
            now,
        )
    }

    #[test]
    fn silence_makes_late_and_then_offline() {
        let cases = [
            (0, AgentStatus::Online),
            (59, AgentStatus::Online),
            (60, AgentStatus::Late),
            (119, AgentStatus::Late),
            (120, AgentStatus::Offline),
        ];
        for (silence, expected) in cases {
            assert_eq!(
                after(silence, AgentStatus::Online, true, 5_000),
                expected,
                "after {silence} s"
            );
        }
    }

    #[test]
    fn an_agent_that_is_heard_again_is_online() {
        assert_eq!(after(1, AgentStatus::Late, true, 5_000), AgentStatus::Online);
    }

    #[test]
    fn offline_and_pending_stay_until_a_link_is_active() {
        assert_eq!(after(0, AgentStatus::Offline, true, 5_000), AgentStatus::Offline);
        assert_eq!(after(9_999, AgentStatus::Pending, false, 50_000), AgentStatus::Pending);
    }

    #[test]
    fn an_offline_agent_whose_link_goes_on_is_online_when_it_is_heard() {
        let now = RULES.started_at + 5_000 * SECOND;
        let after = |silence: i64| {
            let (status, last_seen) = (AgentStatus::Offline, now - silence * SECOND);
            let signs = Signs {
                status,
                last_seen,
                heard: true,
                linked: true,
            };
            RULES.status(signs, now)
        };
        assert_eq!(after(1), AgentStatus::Online);
        assert_eq!(after(200), AgentStatus::Offline);
    }

    #[test]
    fn nobody_is_declared_offline_while_the_fleet_may_still_come_back() {
        for since_start in [0, 60, 179] {
            assert_eq!(
                after(9_999, AgentStatus::Online, false, since_start),
                AgentStatus::Online
            );
        }
        assert_eq!(after(9_999, AgentStatus::Online, false, 180), AgentStatus::Offline);
    }
}
