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
/// How long after one look the next begins at the earliest: what a connecting fleet changes meanwhile is seen at once.
const PAUSE: Duration = Duration::from_millis(250);
/// Entries in one commit, give or take those of one agent.
const BATCH: usize = 1_000;
/// Agents looked at in one piece.
const PIECE: usize = 500;

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
            let look = async {
                if let Err(error) = self.reconcile_once(clock::now()).await {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to write states; trying again"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            };
            if shutdown.run_until_cancelled(look).await.is_none() {
                return;
            }
        }
    }

    /// Goes through the inventory piece by piece, so that results and links never wait for more than one of them.
    pub async fn reconcile_once(&self, now: Micros) -> Result<(), store::Error> {
        let mut first = None;
        loop {
            let writing = self.writing.lock().await;
            let (steps, next) = self.steps(first, now);
            if !steps.is_empty() {
                self.write_steps(steps, now).await?;
            }
            drop(writing);
            if next.is_none() {
                return Ok(());
            }
            first = next;
            tokio::task::yield_now().await;
        }
    }

    /// The differences of one piece of the inventory, and where the next one begins.
    fn steps(&self, first: Option<AgentId>, now: Micros) -> (Vec<Step>, Option<AgentId>) {
        let compiled = self.policies.current();
        let (mut steps, mut looked_at, mut next) = (Vec::new(), 0, None);
        self.agents.each_from(first, |agent| {
            if looked_at == PIECE || steps.len() >= BATCH {
                next = Some(agent.id);
                return false;
            }
            looked_at += 1;
            let set = compiled.set_for(|key| agent.value(key));
            // After the inventory's lock, as everywhere.
            let all = self.read();
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
            true
        });
        (steps, next)
    }

    async fn write_steps(&self, mut steps: Vec<Step>, now: Micros) -> Result<(), store::Error> {
        let changes: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Put(agent, check, _) => (ChangeKind::State, format!("{agent}/{check}"), Op::Put),
                Step::Remove(agent, check) => (ChangeKind::State, format!("{agent}/{check}"), Op::Delete),
            })
            .collect();
        let _held = self.changes.hold().await;
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
