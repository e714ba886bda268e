//! Drives the schedule: follows the policy set and the clock, runs checks in tasks of its own and records their results.
//! Decides nothing itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::v1::{CheckResult, Lane, Record, record};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::schedule::{Effect, Event, RunId, Schedule};
use crate::clock::Now;
use crate::link::queue::Recorder;
use crate::policy::{ActiveCheck, ActiveChecks};

/// From agent.yaml, `checks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_concurrent: usize,
    /// Of a check that has no timeout of its own.
    pub default_timeout: Duration,
}

/// Runs until `shutdown`, or until nobody can change the checks any longer; then ends what still runs, without a result.
pub async fn run(
    agent_id: &str,
    limits: Limits,
    mut checks: watch::Receiver<Arc<ActiveChecks>>,
    recorder: Recorder,
    shutdown: CancellationToken,
) {
    let mut scheduler = Scheduler {
        schedule: Schedule::new(agent_id, limits.max_concurrent),
        limits,
        recorder,
        tasks: JoinSet::new(),
        runs: HashMap::new(),
    };
    let first = checks.borrow_and_update().clone();
    scheduler.handle(Event::Checks(first));
    loop {
        let deadline = scheduler.schedule.deadline();
        let event = tokio::select! {
            () = shutdown.cancelled() => break,
            changed = checks.changed() => match changed {
                Ok(()) => Event::Checks(checks.borrow_and_update().clone()),
                Err(_) => break,
            },
            Some(joined) = scheduler.tasks.join_next_with_id() => match scheduler.joined(joined) {
                Some(event) => event,
                None => continue,
            },
            () = until(deadline) => Event::Tick,
        };
        scheduler.handle(event);
    }
    scheduler.tasks.shutdown().await;
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

struct Scheduler {
    schedule: Schedule,
    limits: Limits,
    recorder: Recorder,
    tasks: JoinSet<CheckResult>,
    /// The runs whose results are wanted.
    runs: HashMap<Id, Run>,
}

struct Run {
    id: RunId,
    check: Arc<ActiveCheck>,
    started: Now,
    task: AbortHandle,
}

impl Scheduler {
    fn handle(&mut self, event: Event) {
        if let Event::Checks(checks) = &event {
            info!(checks = checks.len(), "following the checks of the policy set");
        }
        for effect in self.schedule.handle(event, Now::read()) {
            match effect {
                Effect::Start(id, check) => self.start(id, check),
                Effect::Kill(id) => self.kill(id),
            }
        }
    }

    fn start(&mut self, id: RunId, check: Arc<ActiveCheck>) {
        let default_timeout = self.limits.default_timeout;
        let running = check.clone();
        let started = Now::read();
        let task = self
            .tasks
            .spawn(async move { super::run_once(&running, default_timeout).await });
        self.runs.insert(
            task.id(),
            Run {
                id,
                check,
                started,
                task,
            },
        );
    }

    fn kill(&mut self, id: RunId) {
        self.runs.retain(|_, run| {
            let stays = run.id != id;
            if !stays {
                run.task.abort();
            }
            stays
        });
    }

    /// Records the result of a run, unless it was killed.
    fn joined(&mut self, joined: Result<(Id, CheckResult), JoinError>) -> Option<Event> {
        let (task, result) = match joined {
            Ok((task, result)) => (task, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        let run = self.runs.remove(&task)?;
        let result = result.unwrap_or_else(|error| {
            error!(
                check = run.check.name,
                error = &error as &dyn std::error::Error,
                "a run panicked"
            );
            let result = super::not_started("the check failed inside the agent, which is a defect of it; see its log");
            CheckResult {
                check: run.check.name.clone(),
                version: run.check.version,
                ..result
            }
        });
        let state = result.state();
        let body = Some(record::Body::CheckResult(result));
        self.recorder.record(
            Lane::Results,
            Record {
                time_unix_micros: run.started.unix_micros,
                body,
            },
        );
        Some(Event::Finished(run.id, state))
    }
}

#[cfg(test)]
mod tests;
