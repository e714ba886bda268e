//! States: what each assigned check last found on each agent, and whether that is still worth anything. Kept in memory as
//! a whole and written through. New results come from `ingest`; assignments and freshness from a reconciler here.

pub mod entry;
mod freshness;
mod reconcile;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLock},
};

use muster_proto::{
    ids::AgentId,
    v1::{CheckState, Freshness},
};

pub use entry::Entry;
pub use freshness::Fresh;

use crate::{
    agents::{self, Agents},
    changes::Changes,
    clock::Micros,
    policies::{Compiled, Policies, Policy, PolicySet},
    store::{self, Db},
};

#[derive(Debug)]
pub struct States {
    db: Db,
    changes: Changes,
    agents: Arc<Agents>,
    policies: Arc<Policies>,
    entries: RwLock<HashMap<AgentId, BTreeMap<String, Entry>>>,
    /// Held over a write of states, by `ingest` and by the reconciler.
    pub writing: tokio::sync::Mutex<()>,
}

/// A state as it is at one moment, with what it is judged by.
#[derive(Clone, Debug)]
pub struct View {
    pub agent: AgentId,
    pub agent_name: String,
    pub policy: Arc<Policy>,
    pub entry: Entry,
    pub fresh: Fresh,
}

impl View {
    pub fn is_problem(&self) -> bool {
        self.fresh.freshness != Freshness::Fresh
            || !matches!(
                self.entry.state,
                CheckState::Ok | CheckState::Pending | CheckState::Unspecified
            )
    }

    /// Worst first: the order in which somebody on duty looks at problems.
    pub fn severity(&self) -> u8 {
        match (self.fresh.freshness, self.entry.state) {
            (Freshness::Unreachable, _) => 2,
            (Freshness::Stale, _) => 3,
            (_, CheckState::Critical) => 6,
            (_, CheckState::Unknown) => 5,
            (_, CheckState::Warning) => 4,
            (_, CheckState::Pending) => 1,
            _ => 0,
        }
    }
}

impl States {
    pub async fn load(
        db: Db,
        changes: Changes,
        agents: Arc<Agents>,
        policies: Arc<Policies>,
    ) -> Result<Self, store::Error> {
        Ok(Self {
            entries: RwLock::new(on_file(&db).await?),
            db,
            changes,
            agents,
            policies,
            writing: tokio::sync::Mutex::new(()),
        })
    }

    /// Reads all anew, when it is not known whether a commit has come about. Whoever calls holds `writing`.
    pub async fn recall(&self) -> Result<(), store::Error> {
        let entries = on_file(&self.db).await?;
        *self.write() = entries;
        Ok(())
    }

    pub fn get(&self, agent: AgentId, check: &str) -> Option<Entry> {
        self.read().get(&agent)?.get(check).cloned()
    }

    /// Of the spools that an agent's states come from; 0: there are none.
    pub fn highest_generation(&self, agent: AgentId) -> i64 {
        let all = self.read();
        let generations = all.get(&agent).into_iter().flatten().map(|(_, entry)| entry.generation);
        generations.max().unwrap_or(0)
    }

    /// Takes up entries that have just been committed.
    pub fn committed(&self, entries: impl IntoIterator<Item = (AgentId, String, Entry)>) {
        let mut all = self.write();
        for (agent, check, entry) in entries {
            all.entry(agent).or_default().insert(check, entry);
        }
    }

    /// The checks of which an agent has a state.
    pub fn checks_of(&self, agent: AgentId) -> Vec<String> {
        let all = self.read();
        all.get(&agent)
            .map(|entries| entries.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// An agent is gone, and its rows with it. The caller holds `writing` from before.
    pub fn forget(&self, agent: AgentId) {
        self.write().remove(&agent);
    }

    /// The states of one agent, in order of check.
    pub fn views(&self, agent: &agents::Entry, compiled: &Compiled, now: Micros) -> Vec<View> {
        let set = compiled.set_for(agent);
        let all = self.read();
        let own = all.get(&agent.id);
        let view = |policy: &Arc<Policy>| {
            let entry = own.and_then(|entries| entries.get(&policy.key.name));
            self.view(
                agent,
                policy.clone(),
                entry.cloned().unwrap_or_else(|| Entry::pending(now)),
                now,
            )
        };
        set.policies.values().map(view).collect()
    }

    /// One state, if the check is assigned to the agent.
    pub fn view_of(&self, agent: &agents::Entry, check: &str, compiled: &Compiled, now: Micros) -> Option<View> {
        let policy = compiled.set_for(agent).check(check)?.clone();
        let entry = self.get(agent.id, check).unwrap_or_else(|| Entry::pending(now));
        Some(self.view(agent, policy, entry, now))
    }

    fn view(&self, agent: &agents::Entry, policy: Arc<Policy>, entry: Entry, now: Micros) -> View {
        let fresh = freshness::judge(agent, &policy, &entry, self.agents.started_at(), now);
        View {
            agent: agent.id,
            agent_name: agent.name.clone(),
            policy,
            entry,
            fresh,
        }
    }

    /// The set of policies that an agent shall have now.
    pub fn assigned(&self, agent: AgentId) -> Option<Arc<PolicySet>> {
        let compiled = self.policies.current();
        self.agents.with(agent, |agent| compiled.set_for(agent))
    }

    // Entries are replaced whole, so a poisoned lock is taken all the same.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<AgentId, BTreeMap<String, Entry>>> {
        self.entries.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<AgentId, BTreeMap<String, Entry>>> {
        self.entries.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

async fn on_file(db: &Db) -> Result<HashMap<AgentId, BTreeMap<String, Entry>>, store::Error> {
    let mut entries: HashMap<AgentId, BTreeMap<String, Entry>> = HashMap::new();
    for row in db.state_list().await? {
        let (agent, check, entry) = Entry::from_row(row)?;
        entries.entry(agent).or_default().insert(check, entry);
    }
    Ok(entries)
}
