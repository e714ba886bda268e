//! Brings the entries in line with what is assigned and with the time: pending entries for new assignments, none for what
//! is no longer assigned, freshness as it is now. Every difference is a transition that watchers see.

use std::time::Duration;

use muster_proto::ids::AgentId;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Entry, States, freshness};
use crate::{
    clock::{self, Micros},
    store::{self, ChangeKind, Op},
};

/// How often freshness is looked at when nothing else happens.
const EVERY: Duration = Duration::from_secs(5);
/// Entries in one commit.
const BATCH: usize = 1_000;

#[derive(Debug)]
enum Step {
    Put(AgentId, String, Entry),
    Remove(AgentId, String),
}

impl States {
    /// Reconciles when assignments change and every few seconds, until `shutdown`.
    pub async fn run_reconcile(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut policies = self.policies.watch();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.agents.assignments.notified() => {}
                changed = policies.changed() => if changed.is_err() { return },
            }
            if let Err(error) = self.reconcile_once(clock::now()).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to write states; trying again"
                );
            }
        }
    }

    pub async fn reconcile_once(&self, now: Micros) -> Result<(), store::Error> {
        loop {
            let _writing = self.writing.lock().await;
            let steps = self.steps(now);
            if steps.is_empty() {
                return Ok(());
            }
            let more = steps.len() == BATCH;
            self.write_steps(steps, now).await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// The differences, at most one batch of them.
    fn steps(&self, now: Micros) -> Vec<Step> {
        let compiled = self.policies.current();
        let all = self.read();
        let mut steps = Vec::new();
        self.agents.each(|agent| {
            let set = compiled.set_for(|key| agent.value(key));
            let own = all.get(&agent.id);
            for policy in set.policies.values() {
                let name = &policy.key.name;
                let known = own.and_then(|entries| entries.get(name));
                let mut entry = known.cloned().unwrap_or_else(|| Entry::pending(now));
                let fresh = freshness::judge(agent, policy, &entry, self.agents.started_at(), now);
                if known.is_none() || fresh.freshness != entry.freshness {
                    entry.freshness = fresh.freshness;
                    entry.freshness_since = fresh.since;
                    steps.push(Step::Put(agent.id, name.clone(), entry));
                }
            }
            let gone = own
                .into_iter()
                .flat_map(|entries| entries.keys())
                .filter(|name| set.check(name).is_none());
            steps.extend(gone.map(|name| Step::Remove(agent.id, name.clone())));
        });
        steps.truncate(BATCH);
        steps
    }

    async fn write_steps(&self, mut steps: Vec<Step>, now: Micros) -> Result<(), store::Error> {
        let changes: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Put(agent, check, _) => (ChangeKind::State, format!("{agent}/{check}"), Op::Put),
                Step::Remove(agent, check) => (ChangeKind::State, format!("{agent}/{check}"), Op::Delete),
            })
            .collect();
        let mut tx = self.db.begin().await?;
        let first = tx.changes_add(now, &changes).await?;
        let mut rows = Vec::new();
        for (index, step) in steps.iter_mut().enumerate() {
            match step {
                Step::Put(agent, check, entry) => {
                    entry.revision = first + index as i64;
                    rows.push(entry.to_row(*agent, check));
                }
                Step::Remove(agent, check) => tx.state_delete(&agent.to_string(), check).await?,
            }
        }
        tx.state_put_all(&rows).await?;
        tx.commit().await?;
        {
            let mut all = self.write();
            for step in steps {
                match step {
                    Step::Put(agent, check, entry) => {
                        all.entry(agent).or_default().insert(check, entry);
                    }
                    Step::Remove(agent, check) => {
                        if let Some(entries) = all.get_mut(&agent) {
                            entries.remove(&check);
                        }
                    }
                }
            }
        }
        self.changes.committed();
        Ok(())
    }
}
