//! Policies ready for use: selectors parsed, sets shared. A set is computed once for each combination of the values that
//! selectors look at, and not for each agent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex},
};

use muster_proto::{
    check::{self, Timings},
    policy_set,
    selector::Selector,
    v1,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::{
    access::scope::Scope,
    clock::Micros,
    store::{self, PolicyRow},
};

/// What names a policy; shown as "Check/disk-root".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: String,
    pub name: String,
}

impl Key {
    pub const CHECK: &str = "Check";

    pub fn check(name: &str) -> Self {
        Self {
            kind: Self::CHECK.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

#[derive(Debug)]
pub struct Policy {
    pub key: Key,
    pub version: i64,
    pub labels: BTreeMap<String, String>,
    pub selector: Selector,
    /// That of whoever applied it first: it is for agents in both.
    pub scope: Scope,
    /// Who looks after it; empty: nobody in particular.
    pub owner: String,
    /// As it was applied, without defaults.
    pub check: v1::Check,
    /// With defaults.
    pub timings: Timings,
    pub signed: v1::Signed,
    pub created_at: Micros,
    pub updated_at: Micros,
    pub revision: i64,
}

impl Policy {
    pub(super) fn from_row(row: PolicyRow) -> Result<Self, store::Error> {
        let key = Key {
            kind: row.kind,
            name: row.name,
        };
        let corrupt = |problem: String| store::Error::Corrupt {
            table: "policies",
            id: key.to_string(),
            problem,
        };
        let payload = v1::PolicyPayload::decode(row.payload.as_slice()).map_err(|error| corrupt(error.to_string()))?;
        let check = v1::Check::decode(payload.body.as_slice()).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self {
            version: row.version,
            labels: serde_json::from_str(&row.labels).map_err(|error| corrupt(error.to_string()))?,
            selector: Selector::parse(&payload.selector).map_err(|error| corrupt(error.to_string()))?,
            scope: Scope::parse(&row.scope).map_err(|error| corrupt(error.to_string()))?,
            owner: row.owner,
            timings: check::timings(&check),
            check,
            signed: v1::Signed {
                payload: row.payload.into(),
                key_id: row.key_id,
                signature: row.signature,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
            revision: row.revision,
            key,
        })
    }
}

/// The policies that one agent shall have.
#[derive(Debug, Default)]
pub struct PolicySet {
    pub digest: String,
    pub policies: BTreeMap<Key, Arc<Policy>>,
}

impl PolicySet {
    fn new(policies: BTreeMap<Key, Arc<Policy>>) -> Self {
        let digest = policy_set::digest(policies.values().map(|policy| {
            (
                policy.key.kind.as_str(),
                policy.key.name.as_str(),
                policy.version,
                policy.signed.payload.as_ref(),
            )
        }));
        Self { digest, policies }
    }

    /// The check of that name.
    pub fn check(&self, name: &str) -> Option<&Arc<Policy>> {
        self.policies.get(&Key::check(name))
    }
}

/// Whom policies are for: what selectors see of an agent, and what scopes do.
pub trait Labelled {
    /// A label or, under `fact.`, a fact.
    fn value(&self, key: &str) -> Option<&str>;
    /// A label that does not rest on the agent's word.
    fn authoritative(&self, key: &str) -> Option<&str>;
}

/// The values of an agent that selectors look at, then those that scopes look at, in the order of the keys.
type Values = Vec<Option<String>>;

/// Delivery is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    pub at: Micros,
    /// As in the audit log.
    pub caller: String,
    pub reason: String,
}

/// All policies of a moment.
#[derive(Debug, Default)]
pub struct Compiled {
    pub policies: BTreeMap<Key, Arc<Policy>>,
    /// Set while agents are told nothing of any of them.
    pub freeze: Option<Arc<Freeze>>,
    /// Label keys and facts that any selector looks at.
    keys: BTreeSet<String>,
    /// Label keys that any scope looks at.
    scope_keys: BTreeSet<String>,
    sets: Mutex<HashMap<Values, Arc<PolicySet>>>,
}

/// Sets kept; a fleet with more combinations than this computes some again.
const MAX_SETS: usize = 4_096;

impl Compiled {
    pub fn new(policies: BTreeMap<Key, Arc<Policy>>) -> Self {
        let keys = policies
            .values()
            .flat_map(|policy| policy.selector.keys())
            .map(str::to_owned)
            .collect();
        let scope_keys = policies.values().flat_map(|policy| policy.scope.keys());
        Self {
            scope_keys: scope_keys.map(str::to_owned).collect(),
            policies,
            freeze: None,
            keys,
            sets: Mutex::default(),
        }
    }

    pub fn frozen(self, freeze: Option<Arc<Freeze>>) -> Self {
        Self { freeze, ..self }
    }

    /// What an agent is told now, which is nothing while delivery is stopped.
    pub fn delivered_to(&self, agent: &impl Labelled) -> Option<Arc<PolicySet>> {
        self.freeze.is_none().then(|| self.set_for(agent))
    }

    pub fn set_for(&self, agent: &impl Labelled) -> Arc<PolicySet> {
        let seen = self.keys.iter().map(|key| agent.value(key));
        let given = self.scope_keys.iter().map(|key| agent.authoritative(key));
        let values: Values = seen.chain(given).map(|value| value.map(str::to_owned)).collect();
        let mut sets = self.sets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(set) = sets.get(&values) {
            return set.clone();
        }
        let matches = |policy: &Policy| {
            policy.selector.matches(|key| agent.value(key)) && policy.scope.covers(|key| agent.authoritative(key))
        };
        let policies = self.policies.iter().filter(|(_, policy)| matches(policy));
        let set = Arc::new(PolicySet::new(
            policies.map(|(key, policy)| (key.clone(), policy.clone())).collect(),
        ));
        if sets.len() >= MAX_SETS {
            sets.clear();
        }
        sets.insert(values, set.clone());
        set
    }
}
