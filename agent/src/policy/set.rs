//! The policy set as a value: differences are applied to it, its digest is compared, each member has a verdict. A member
//! that is refused still belongs to the set, or the digest would never be the controller's. Knows no file and no task.

use std::collections::BTreeMap;

use muster_proto::{digest, policy_set, v1};
use prost::Message as _;

use super::{
    ActiveChecks,
    judge::{self, Key, Unreadable, Verdict},
    keep::{Kept, Mark},
};
use crate::{config::Allow, identity::Trust};

/// So that the status of all of them fits into one frame.
const MAX_POLICIES: usize = 2_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Why a set did not come out as the controller said it would.
#[derive(Debug, thiserror::Error)]
pub enum Differs {
    #[error("it is a change to another set than this agent holds")]
    Base,
    #[error("the digest afterwards is {found} instead of {wanted}")]
    Digest { found: String, wanted: String },
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("it is larger than {MAX_POLICIES} policies or {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
}

#[derive(Debug)]
pub(super) struct Set {
    trust: Trust,
    allow: Allow,
    held: BTreeMap<Key, Held>,
    /// The highest genuine version of everything that was ever seen.
    seen: BTreeMap<Key, i64>,
    /// Empty: the whole set is wanted.
    digest: String,
}

#[derive(Debug, Clone)]
struct Held {
    signed: v1::Signed,
    version: i64,
    /// None only until the set is judged.
    verdict: Option<Verdict>,
}

impl Set {
    pub fn restore(trust: Trust, allow: Allow, kept: Kept) -> Set {
        let mark = |mark: Mark| {
            (
                Key {
                    kind: mark.kind,
                    name: mark.name,
                },
                mark.version,
            )
        };
        let seen = kept.marks.into_iter().map(mark).collect();
        let mut set = Set {
            trust,
            allow,
            held: BTreeMap::new(),
            seen,
            digest: String::new(),
        };
        if set.add_all(kept.policies).is_ok() && kept.complete {
            set.digest = digest_of(&set.held);
        }
        set.judge();
        set
    }

    pub fn kept(&self) -> Kept {
        let mark = |(key, version): (&Key, &i64)| Mark {
            kind: key.kind.clone(),
            name: key.name.clone(),
            version: *version,
        };
        Kept {
            policies: self.held.values().map(|held| held.signed.clone()).collect(),
            marks: self.seen.iter().map(mark).collect(),
            complete: !self.digest.is_empty(),
        }
    }

    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn apply(&mut self, sync: v1::PolicySync) -> Result<(), Differs> {
        let before = self.held.clone();
        let result = self.change(sync);
        if result.is_err() {
            self.held = before;
            self.digest.clear();
        } else {
            self.judge();
        }
        result
    }

    fn change(&mut self, sync: v1::PolicySync) -> Result<(), Differs> {
        if sync.base_digest.is_empty() {
            self.held.clear();
        } else if sync.base_digest != self.digest {
            return Err(Differs::Base);
        }
        for removed in sync.removed {
            self.held.remove(&Key {
                kind: removed.kind,
                name: removed.name,
            });
        }
        self.add_all(sync.added)?;
        let found = digest_of(&self.held);
        if found != sync.set_digest {
            return Err(Differs::Digest {
                found,
                wanted: sync.set_digest,
            });
        }
        self.digest = found;
        Ok(())
    }

    fn add_all(&mut self, policies: Vec<v1::Signed>) -> Result<(), Differs> {
        for signed in policies {
            let (key, payload) = judge::payload(&signed)?;
            self.held.insert(
                key,
                Held {
                    signed,
                    version: payload.version,
                    verdict: None,
                },
            );
        }
        let bytes: usize = self.held.values().map(|held| held.signed.payload.len()).sum();
        if self.held.len() > MAX_POLICIES || bytes > MAX_BYTES {
            return Err(Differs::TooLarge);
        }
        Ok(())
    }

    pub fn set_allow(&mut self, allow: Allow) {
        self.allow = allow;
        self.held.values_mut().for_each(|held| held.verdict = None);
        self.judge();
    }

    /// Gives every member that has none its verdict.
    fn judge(&mut self) {
        for (key, held) in self.held.iter_mut().filter(|(_, held)| held.verdict.is_none()) {
            let Ok((_, payload)) = judge::payload(&held.signed) else {
                continue;
            };
            let seen = self.seen.get(key).copied();
            let judgement = judge::judge(&held.signed, &payload, &self.trust, self.allow, seen);
            if judgement.genuine {
                self.seen.insert(key.clone(), payload.version);
            }
            if let Verdict::Refused(why) | Verdict::NotSupported(why) = &judgement.verdict {
                tracing::warn!(
                    policy.kind = key.kind,
                    policy.name = key.name,
                    policy.version = payload.version,
                    why,
                    "a policy is not applied"
                );
            }
            held.verdict = Some(judgement.verdict);
        }
    }

    pub fn active(&self) -> ActiveChecks {
        let applied = self.held.values().filter_map(|held| match &held.verdict {
            Some(Verdict::Applied(check)) => Some((check.name.clone(), check.clone())),
            _ => None,
        });
        applied.collect()
    }

    pub fn status(&self) -> v1::PolicyStatus {
        let policies = self.held.iter().map(|(key, held)| {
            let (outcome, reason) = match &held.verdict {
                Some(Verdict::Applied(_)) => (v1::PolicyOutcome::Applied, ""),
                Some(Verdict::Refused(why)) => (v1::PolicyOutcome::Refused, &**why),
                Some(Verdict::NotSupported(why)) => (v1::PolicyOutcome::NotSupported, &**why),
                None => (v1::PolicyOutcome::Unspecified, ""),
            };
            v1::PolicyReport {
                kind: key.kind.clone(),
                name: key.name.clone(),
                version: held.version,
                outcome: outcome.into(),
                reason: reason.to_owned(),
            }
        });
        let mut status = v1::PolicyStatus {
            policy_set_digest: self.digest.clone(),
            policies: policies.collect(),
            digest: String::new(),
        };
        status.digest = digest::of_bytes(&status.encode_to_vec());
        status
    }
}

fn digest_of(held: &BTreeMap<Key, Held>) -> String {
    let members = held
        .iter()
        .map(|(key, held)| (&*key.kind, &*key.name, held.version, &*held.signed.payload));
    policy_set::digest(members)
}
