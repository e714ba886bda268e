//! Which certificates renew: pure rules. That nobody else answers under the agent's name was found out before.

use muster_certs::tls::Standing;

use crate::{clock::Micros, store::Restored};

/// What is known of a certificate and its agent.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub standing: Standing,
    pub not_before: Micros,
    pub not_after: Micros,
    /// The agent is neither revoked nor merely expected.
    pub is_trusted: bool,
    /// An operator lets it in until then; 0: nobody did.
    pub readmit_until: Micros,
    /// When the newest certificate on file that the agent has shown was issued.
    pub last_issued_at: Micros,
    pub grace: Micros,
    pub restored: Option<Restored>,
}

/// What is out of the ordinary about a renewal, and worth an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    InGrace,
    Readmitted,
    Snapshot,
    AfterRestore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Expired, and the grace is over since then.
    Expired {
        grace_end: Micros,
    },
    Revoked,
    Unknown,
}

/// Whether it renews, and what is special about that.
pub fn decide(facts: &Facts, now: Micros) -> Result<Option<Special>, Refusal> {
    if !facts.is_trusted || facts.standing == Standing::Revoked {
        return Err(Refusal::Revoked);
    }
    match facts.standing {
        Standing::Valid => return Ok(None),
        Standing::None | Standing::Revoked => return Err(Refusal::Unknown),
        Standing::Unknown if !is_lost_by_restore(facts) => return Err(Refusal::Unknown),
        Standing::Expired | Standing::Superseded | Standing::Unknown => {}
    }
    let grace_end = facts.not_after.saturating_add(facts.grace);
    if now <= grace_end {
        return Ok(Some(match facts.standing {
            Standing::Superseded => Special::Snapshot,
            Standing::Unknown => Special::AfterRestore,
            _ => Special::InGrace,
        }));
    }
    if now <= facts.readmit_until {
        return Ok(Some(Special::Readmitted));
    }
    Err(Refusal::Expired { grace_end })
}

/// A certificate that the restored backup cannot know: issued after it, and before the restore. Once for each agent:
/// what has been issued since the restore is on file again, and from its first use on it is the one that counts.
fn is_lost_by_restore(facts: &Facts) -> bool {
    facts.restored.is_some_and(|restored| {
        facts.not_before <= restored.restored_at
            && facts.not_after > restored.backup_at
            && facts.last_issued_at <= restored.backup_at
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{DAY, SECOND};

    const NOW: Micros = 20_000 * DAY;

    fn facts(standing: Standing) -> Facts {
        Facts {
            standing,
            not_before: NOW - 2 * DAY,
            not_after: NOW - DAY,
            is_trusted: true,
            readmit_until: 0,
            last_issued_at: NOW - 2 * DAY,
            grace: 90 * DAY,
            restored: None,
        }
    }

    #[test]
    fn a_valid_certificate_renews_and_nothing_is_said_of_it() {
        let facts = Facts {
            not_after: NOW + SECOND,
            ..facts(Standing::Valid)
        };
        assert_eq!(decide(&facts, NOW), Ok(None));
    }

    #[test]
    fn an_expired_certificate_renews_to_the_last_moment_of_the_grace() {
        let facts = facts(Standing::Expired);
        let grace_end = facts.not_after + facts.grace;
        assert_eq!(decide(&facts, NOW), Ok(Some(Special::InGrace)));
        assert_eq!(decide(&facts, grace_end), Ok(Some(Special::InGrace)));
        assert_eq!(decide(&facts, grace_end + 1), Err(Refusal::Expired { grace_end }));
    }

    #[test]
    fn beyond_the_grace_an_operator_can_let_it_in() {
        let long_ago = Facts {
            not_after: NOW - 400 * DAY,
            readmit_until: NOW + DAY,
            ..facts(Standing::Expired)
        };
        assert_eq!(decide(&long_ago, NOW), Ok(Some(Special::Readmitted)));
        assert!(decide(&long_ago, NOW + DAY + 1).is_err());
    }

    #[test]
    fn a_superseded_certificate_renews_as_a_snapshot_that_was_put_back() {
        assert_eq!(decide(&facts(Standing::Superseded), NOW), Ok(Some(Special::Snapshot)));
    }

    #[test]
    fn revoked_is_never_renewed_not_even_with_a_window() {
        let open = Facts {
            readmit_until: NOW + DAY,
            ..facts(Standing::Revoked)
        };
        assert_eq!(decide(&open, NOW), Err(Refusal::Revoked));
        for standing in [
            Standing::Valid,
            Standing::Expired,
            Standing::Superseded,
            Standing::Unknown,
        ] {
            let ended = Facts {
                is_trusted: false,
                readmit_until: NOW + DAY,
                ..facts(standing)
            };
            assert_eq!(decide(&ended, NOW), Err(Refusal::Revoked), "{standing}");
        }
    }

    #[test]
    fn an_unknown_certificate_renews_once_when_a_restore_can_have_lost_it() {
        let restored = Some(Restored {
            restored_at: NOW - DAY / 2,
            backup_at: NOW - 3 * DAY,
        });
        let lost = Facts {
            restored,
            last_issued_at: NOW - 4 * DAY,
            ..facts(Standing::Unknown)
        };
        assert_eq!(decide(&lost, NOW), Ok(Some(Special::AfterRestore)));
        let again = Facts {
            last_issued_at: NOW - DAY / 4,
            ..lost
        };
        assert_eq!(decide(&again, NOW), Err(Refusal::Unknown), "it has been renewed since");
        let later = Facts {
            not_before: NOW - DAY / 4,
            ..lost
        };
        assert_eq!(decide(&later, NOW), Err(Refusal::Unknown), "issued after the restore");
        assert_eq!(
            decide(&facts(Standing::Unknown), NOW),
            Err(Refusal::Unknown),
            "nothing was restored"
        );
    }
}
