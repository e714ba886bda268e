//! The policy sets of a swarm. Agents with the same labels have the same set, so each set is kept once for all; its digest is
//! checked as every agent does, its signatures are left to the real ones.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use muster_proto::{digest, policy_set, v1};
use prost::Message as _;

/// More than these came and went: the oldest are of no use to anybody.
const MAX_SETS: usize = 64;

/// What an agent holds.
#[derive(Debug)]
pub struct Set {
    pub digest: String,
    pub status: Arc<v1::PolicyStatus>,
    members: BTreeMap<(String, String), Member>,
}

#[derive(Debug, Clone)]
struct Member {
    version: i64,
    payload: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Sets(Mutex<HashMap<String, Arc<Set>>>);

impl Sets {
    /// The set of an agent that has none.
    pub fn none() -> Arc<Set> {
        Arc::new(Set::of(String::new(), BTreeMap::new()))
    }

    /// What a change makes of a set; how it differs from what the controller said, when it does.
    pub fn apply(&self, held: &Set, sync: &v1::PolicySync) -> Result<Arc<Set>, String> {
        if !sync.base_digest.is_empty() && sync.base_digest != held.digest {
            return Err("it is a change to another set than this agent holds".to_owned());
        }
        if let Some(known) = self.lock().get(&sync.set_digest) {
            return Ok(known.clone());
        }
        let mut members = match sync.base_digest.is_empty() {
            true => BTreeMap::new(),
            false => held.members.clone(),
        };
        for removed in &sync.removed {
            members.remove(&(removed.kind.clone(), removed.name.clone()));
        }
        for signed in &sync.added {
            let payload = v1::PolicyPayload::decode(&*signed.payload).map_err(|error| error.to_string())?;
            let member = Member {
                version: payload.version,
                payload: signed.payload.to_vec(),
            };
            members.insert((payload.kind, payload.name), member);
        }
        let parts = members
            .iter()
            .map(|((kind, name), member)| (&**kind, &**name, member.version, &*member.payload));
        let found = policy_set::digest(parts);
        if found != sync.set_digest {
            return Err(format!(
                "the digest afterwards is {found} instead of {}",
                sync.set_digest
            ));
        }
        let set = Arc::new(Set::of(found, members));
        let mut sets = self.lock();
        if sets.len() >= MAX_SETS {
            sets.clear();
        }
        sets.insert(set.digest.clone(), set.clone());
        Ok(set)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Set>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn of(digest: String, members: BTreeMap<(String, String), Member>) -> Self {
        let report = |((kind, name), member): (&(String, String), &Member)| v1::PolicyReport {
            kind: kind.clone(),
            name: name.clone(),
            version: member.version,
            outcome: v1::PolicyOutcome::Applied.into(),
            reason: String::new(),
        };
        let mut status = v1::PolicyStatus {
            policy_set_digest: digest.clone(),
            policies: members.iter().map(report).collect(),
            digest: String::new(),
        };
        status.digest = digest::of_bytes(&status.encode_to_vec());
        Self {
            digest,
            status: Arc::new(status),
            members,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(name: &str, version: i64) -> v1::Signed {
        let payload = v1::PolicyPayload {
            kind: "Check".to_owned(),
            name: name.to_owned(),
            version,
            ..Default::default()
        };
        v1::Signed {
            payload: payload.encode_to_vec().into(),
            ..Default::default()
        }
    }

    fn digest_of(policies: &[(&str, i64)]) -> String {
        let payloads: Vec<_> = policies
            .iter()
            .map(|(name, version)| signed(name, *version).payload)
            .collect();
        let parts = policies.iter().zip(&payloads);
        policy_set::digest(parts.map(|((name, version), payload)| ("Check", *name, *version, &**payload)))
    }

    #[test]
    fn a_change_gives_the_set_that_the_controller_means_or_says_how_it_differs() {
        let sets = Sets::default();
        let first = v1::PolicySync {
            base_digest: String::new(),
            set_digest: digest_of(&[("a", 1), ("b", 1)]),
            added: vec![signed("a", 1), signed("b", 1)],
            removed: Vec::new(),
        };
        let held = sets.apply(&Sets::none(), &first).expect("a set");
        assert_eq!(held.status.policies.len(), 2);
        let second = v1::PolicySync {
            base_digest: held.digest.clone(),
            set_digest: digest_of(&[("a", 2)]),
            added: vec![signed("a", 2)],
            removed: vec![v1::PolicyRef {
                kind: "Check".to_owned(),
                name: "b".to_owned(),
            }],
        };
        assert!(sets.apply(&Sets::none(), &second).is_err(), "another base");
        let held = sets.apply(&held, &second).expect("a set");
        assert_eq!(held.status.policies[0].version, 2);
        let wrong = v1::PolicySync {
            set_digest: digest_of(&[("c", 1)]),
            ..first
        };
        assert!(sets.apply(&held, &wrong).is_err());
    }
}
