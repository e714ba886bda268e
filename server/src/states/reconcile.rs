//! Brings the entries in line with what is assigned and with the time: pending entries for new assignments, none for what
//! is no longer assigned, freshness as it is now. Every difference is a transition that watchers see.

use std::{collections::BTreeSet, ops::Bound, sync::Arc, time::Duration};

use muster_proto::ids::AgentId;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Entry, States, freshness};
use crate::{
    agents,
    clock::{self, Micros},
    policies::Compiled,
    store::{self, ChangeKind, Op},
};

/// How often all agents are looked at when nothing else happens.
const EVERY: Duration = Duration::from_secs(5);
/// How long a look waits: what a fleet that connects changes meanwhile is seen at once, and links that are given other policies
/// have them by then.
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

/// The differences of so many agents as one commit may hold.
struct Piece<'a> {
    states: &'a States,
    compiled: Arc<Compiled>,
    now: Micros,
    looked_at: usize,
    steps: Vec<Step>,
}

impl<'a> Piece<'a> {
    fn new(states: &'a States, now: Micros) -> Self {
        Self {
            states,
            compiled: states.policies.current(),
            now,
            looked_at: 0,
            steps: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.looked_at == PIECE || self.steps.len() >= BATCH
    }

    fn look_at(&mut self, agent: &agents::Entry) {
        self.looked_at += 1;
        let set = self.compiled.set_for(agent);
        let started_at = self.states.agents.started_at();
        // After the inventory's lock, as everywhere.
        let all = self.states.read();
        let own = all.get(&agent.id);
        for policy in set.policies.values() {
            let name = &policy.key.name;
            let known = own.and_then(|entries| entries.get(name));
            let pending = known.is_none().then(|| Entry::pending(self.now));
            let Some(entry) = known.or(pending.as_ref()) else {
                continue;
            };
            let fresh = freshness::judge(agent, policy, entry, started_at, self.now);
            if known.is_none() || fresh.freshness != entry.freshness {
                let entry = Entry {
                    freshness: fresh.freshness,
                    freshness_since: fresh.since,
                    ..entry.clone()
                };
                self.steps.push(Step::Put(agent.id, name.clone(), entry));
            }
        }
        let gone = own
            .into_iter()
            .flat_map(|entries| entries.keys())
            .filter(|name| set.check(name).is_none());
        self.steps.extend(gone.map(|name| Step::Remove(agent.id, name.clone())));
    }
}

impl States {
    /// Reconciles agents that change, and all when policies change and every few seconds, until `shutdown`.
    pub async fn run_reconcile(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut policies = self.policies.watch();
        loop {
            let changed = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => None,
                changed = policies.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                changed = self.agents.assignments.next() => Some(changed),
            };
            let look = async {
                tokio::time::sleep(PAUSE).await;
                let now = clock::now();
                let looked = match changed {
                    Some(changed) => self.reconcile(changed, now).await,
                    None => self.reconcile_once(now).await,
                };
                // What could not be written is found again by the next look at all.
                if let Err(error) = looked {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to write states; trying again"
                    );
                }
            };
            if shutdown.run_until_cancelled(look).await.is_none() {
                return;
            }
        }
    }

    /// Goes through the inventory piece by piece, so that results and links never wait for more than one of them.
    pub async fn reconcile_once(&self, now: Micros) -> Result<(), store::Error> {
        let mut first = Bound::Unbounded;
        loop {
            let mut piece = Piece::new(self, now);
            let _writing = self.writing.lock().await;
            let mut last = None;
            self.agents.each_from(first, |agent| {
                piece.look_at(agent);
                last = Some(agent.id);
                !piece.is_full()
            });
            let is_whole = !piece.is_full();
            self.write_steps(piece.steps, now).await?;
            match last {
                Some(last) if !is_whole => first = Bound::Excluded(last),
                _ => return Ok(()),
            }
            tokio::task::yield_now().await;
        }
    }

    /// The same for these agents.
    async fn reconcile(&self, agents: BTreeSet<AgentId>, now: Micros) -> Result<(), store::Error> {
        let mut agents = agents.into_iter().peekable();
        while agents.peek().is_some() {
            let mut piece = Piece::new(self, now);
            let _writing = self.writing.lock().await;
            while !piece.is_full()
                && let Some(agent) = agents.next()
            {
                self.agents.with(agent, |agent| piece.look_at(agent));
            }
            self.write_steps(piece.steps, now).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn write_steps(&self, mut steps: Vec<Step>, now: Micros) -> Result<(), store::Error> {
        if steps.is_empty() {
            return Ok(());
        }
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
