//! Whom an enrollment is for: pure rules over the id that a machine asks with, what is on file of that id, and what the token
//! grants. That the token is good was found out before.

use std::collections::BTreeMap;

use muster_proto::{ids::AgentId, v1::AgentStatus};

use crate::{access::scope::Scope, agents::Entry};

/// What counts of a token.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// The only agent it is for.
    pub agent: Option<AgentId>,
    pub allow_reenroll: bool,
    pub labels: BTreeMap<String, String>,
    /// That of whoever made the token: no machine becomes an agent out of it.
    pub scope: Scope,
}

/// What is on file of the id.
#[derive(Clone, Copy, Debug)]
pub enum OnFile<'a> {
    Nothing,
    /// An agent with this id was deleted.
    Deleted,
    Entry(&'a Entry),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// A new entry.
    New,
    /// The entry that somebody has made for it; its name and labels stay.
    Expected,
    /// The entry that it had before.
    Again,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The id is that of another machine, as far as this one proves.
    AlreadyEnrolled,
    Deleted,
    /// The token does not grant this label, which the entry that was made for the id has.
    LabelNotGranted(String),
    /// The agent is not in the scope that the token was made in.
    OutOfScope,
}

/// `has_old_key`: the certificate request is signed with the key of a certificate of that agent that is not revoked.
pub fn decide(
    asked: Option<AgentId>,
    on_file: OnFile<'_>,
    grant: &Grant,
    has_old_key: bool,
) -> Result<Match, Mismatch> {
    let is_bound = asked.is_some() && grant.agent == asked;
    match on_file {
        OnFile::Nothing => Ok(Match::New),
        // What it was nobody knows any longer, so it takes somebody without a scope.
        OnFile::Deleted if is_bound && grant.scope.is_all() => Ok(Match::New),
        OnFile::Deleted => Err(Mismatch::Deleted),
        OnFile::Entry(entry) if !grant.scope.covers(|key| entry.authoritative(key)) => Err(Mismatch::OutOfScope),
        OnFile::Entry(entry) if entry.status == AgentStatus::Expected => {
            let missing = entry
                .operator_labels
                .iter()
                .find(|(key, value)| grant.labels.get(*key) != Some(value));
            match missing {
                Some((key, _)) if !is_bound => Err(Mismatch::LabelNotGranted(key.clone())),
                _ => Ok(Match::Expected),
            }
        }
        OnFile::Entry(entry) => {
            // Who held the key of a revoked agent may be who it was revoked for.
            let is_itself = has_old_key && entry.status != AgentStatus::Revoked;
            if is_bound || grant.allow_reenroll || is_itself {
                Ok(Match::Again)
            } else {
                Err(Mismatch::AlreadyEnrolled)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewAgent;

    fn entry(status: AgentStatus, labels: &[(&str, &str)]) -> Entry {
        let mut entry = Entry::from(&NewAgent {
            id: AgentId::random(),
            name: "db-01",
            agent_labels: "{}",
            token_labels: "{}",
            version: "",
            now: 1,
            revision: 1,
        });
        entry.status = status;
        entry.operator_labels = map(labels);
        entry
    }

    fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    fn bound(id: AgentId) -> Grant {
        Grant {
            agent: Some(id),
            ..Grant::default()
        }
    }

    fn labels(labels: &[(&str, &str)]) -> Grant {
        Grant {
            labels: map(labels),
            ..Grant::default()
        }
    }

    #[test]
    fn an_id_that_nobody_has_becomes_a_new_entry() {
        let id = AgentId::random();
        assert_eq!(
            decide(Some(id), OnFile::Nothing, &Grant::default(), false),
            Ok(Match::New)
        );
        assert_eq!(decide(None, OnFile::Nothing, &Grant::default(), false), Ok(Match::New));
    }

    #[test]
    fn an_expected_agent_is_attached_by_a_token_that_is_bound_to_it_or_grants_all_its_labels() {
        let expected = entry(AgentStatus::Expected, &[("env", "prod"), ("role", "db")]);
        let (id, on_file) = (Some(expected.id), OnFile::Entry(&expected));
        assert_eq!(decide(id, on_file, &bound(expected.id), false), Ok(Match::Expected));
        let all = labels(&[("env", "prod"), ("role", "db"), ("zone", "eu")]);
        assert_eq!(decide(id, on_file, &all, false), Ok(Match::Expected));
        for (grant, missing) in [
            (Grant::default(), "env"),
            (labels(&[("env", "prod")]), "role"),
            (labels(&[("env", "test"), ("role", "db")]), "env"),
        ] {
            let refused = Err(Mismatch::LabelNotGranted(missing.into()));
            assert_eq!(decide(id, on_file, &grant, true), refused);
        }
        let reenroll = Grant {
            allow_reenroll: true,
            ..Grant::default()
        };
        assert!(
            decide(id, on_file, &reenroll, false).is_err(),
            "it has not enrolled before"
        );
        let plain = entry(AgentStatus::Expected, &[]);
        let plain = decide(Some(plain.id), OnFile::Entry(&plain), &Grant::default(), false);
        assert_eq!(plain, Ok(Match::Expected));
    }

    #[test]
    fn an_agent_that_enrolled_before_needs_its_key_or_a_token_that_says_so() {
        for status in [AgentStatus::Pending, AgentStatus::Online, AgentStatus::Offline] {
            let known = entry(status, &[]);
            let (id, on_file) = (Some(known.id), OnFile::Entry(&known));
            let reenroll = Grant {
                allow_reenroll: true,
                ..Grant::default()
            };
            assert_eq!(decide(id, on_file, &Grant::default(), true), Ok(Match::Again));
            assert_eq!(decide(id, on_file, &bound(known.id), false), Ok(Match::Again));
            assert_eq!(decide(id, on_file, &reenroll, false), Ok(Match::Again));
            let refused = decide(id, on_file, &labels(&[("env", "prod")]), false);
            assert_eq!(refused, Err(Mismatch::AlreadyEnrolled));
        }
    }

    #[test]
    fn a_token_of_somebody_with_a_scope_is_for_agents_in_it() {
        let dev = |grant| Grant {
            scope: Scope::parse("env=dev").expect("a scope"),
            ..grant
        };
        let inside = entry(AgentStatus::Offline, &[("env", "dev")]);
        let outside = entry(AgentStatus::Offline, &[("env", "prod")]);
        let expected = entry(AgentStatus::Expected, &[("env", "prod")]);
        let mut claims = entry(AgentStatus::Offline, &[]);
        claims.agent_labels = map(&[("env", "dev")]);
        assert_eq!(
            decide(Some(inside.id), OnFile::Entry(&inside), &dev(bound(inside.id)), false),
            Ok(Match::Again)
        );
        for other in [&outside, &expected, &claims] {
            let reenroll = Grant {
                allow_reenroll: true,
                labels: map(&[("env", "prod")]),
                ..Grant::default()
            };
            for grant in [bound(other.id), reenroll] {
                let decided = decide(Some(other.id), OnFile::Entry(other), &dev(grant), true);
                assert_eq!(decided, Err(Mismatch::OutOfScope));
            }
        }
        let deleted = AgentId::random();
        let decided = decide(Some(deleted), OnFile::Deleted, &dev(bound(deleted)), false);
        assert_eq!(decided, Err(Mismatch::Deleted));
    }

    #[test]
    fn a_revoked_agent_does_not_come_back_by_its_key_alone() {
        let revoked = entry(AgentStatus::Revoked, &[]);
        let (id, on_file) = (Some(revoked.id), OnFile::Entry(&revoked));
        assert_eq!(
            decide(id, on_file, &Grant::default(), true),
            Err(Mismatch::AlreadyEnrolled)
        );
        assert_eq!(decide(id, on_file, &bound(revoked.id), false), Ok(Match::Again));
    }

    #[test]
    fn a_deleted_id_is_given_out_again_only_by_a_token_that_is_bound_to_it() {
        let id = AgentId::random();
        assert_eq!(
            decide(Some(id), OnFile::Deleted, &Grant::default(), true),
            Err(Mismatch::Deleted)
        );
        assert_eq!(decide(Some(id), OnFile::Deleted, &bound(id), false), Ok(Match::New));
    }
}
