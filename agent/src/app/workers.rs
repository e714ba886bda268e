//! What makes records and facts: the check scheduler, the metric collectors, the agent's own log, the facts, and the follower that hands a
//! changed configuration on to them. Owns their tasks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use muster_proto::{digest, v1};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::own;
use crate::{
    checks::scheduler,
    collect,
    config::{Checks, Config},
    detached, facts,
    identity::Holder,
    link::queue::{Queue, Recorder},
    logs::OwnLog,
    policy::{ActiveChecks, Policies},
};

const METRICS: Duration = Duration::from_secs(15);
const FACTS: Duration = Duration::from_secs(600);

/// Facts that take longer to gather come with the next round.
const FACTS_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Workers {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
    facts: watch::Receiver<Arc<v1::Facts>>,
}

impl Workers {
    /// Returns when the facts have been gathered once.
    pub async fn start(
        identity: &Holder,
        queue: &Arc<Queue>,
        policies: &Arc<Policies>,
        log: &OwnLog,
        config: watch::Receiver<Arc<Config>>,
    ) -> Workers {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (sender, facts) = watch::channel(Arc::new(v1::Facts::default()));
        gather_facts(&sender).await;

        let id = identity.current().id().to_string();
        let schedule = schedule(
            id.clone(),
            policies.active(),
            config.clone(),
            queue.recorder(),
            stop.clone(),
        );
        tasks.spawn(async move {
            schedule.await;
            "the check scheduler"
        });
        let (recorder, token) = (queue.recorder(), stop.clone());
        let (identity, own_queue, own_log) = (identity.clone(), queue.clone(), log.clone());
        tasks.spawn(async move {
            let own = || own::families(&identity, &own_queue, &own_log);
            collect::run(&id, METRICS, own, recorder, token).await;
            "the metric collectors"
        });
        let (log, recorder, token) = (log.clone(), queue.recorder(), stop.clone());
        tasks.spawn(async move {
            log.run(recorder, token).await;
            "the agent's own log"
        });
        let token = stop.clone();
        tasks.spawn(async move {
            token.run_until_cancelled(refresh_facts(sender)).await;
            "the facts"
        });
        let (policies, token) = (policies.clone(), stop.clone());
        tasks.spawn(async move {
            token.run_until_cancelled(follow_allow(policies, config)).await;
            "the follower of the configuration"
        });
        Workers { tasks, stop, facts }
    }

    pub fn facts(&self) -> watch::Receiver<Arc<v1::Facts>> {
        self.facts.clone()
    }

    /// Returns when a worker has ended by itself, and says which and how.
    pub async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(name)) => format!("{name} ended by itself"),
            Some(Err(error)) => error.to_string(),
            None => "there are no workers".to_owned(),
        }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a worker failed while it stopped"
                );
            }
        }
    }
}

/// The scheduler, started anew when its limits change.
async fn schedule(
    agent_id: String,
    checks: watch::Receiver<Arc<ActiveChecks>>,
    mut config: watch::Receiver<Arc<Config>>,
    recorder: Recorder,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let limits = config.borrow_and_update().checks;
        let Checks {
            default_timeout,
            max_concurrent,
        } = limits;
        let restart = stop.child_token();
        let run = scheduler::run(
            &agent_id,
            scheduler::Limits {
                max_concurrent,
                default_timeout,
            },
            checks.clone(),
            recorder.clone(),
            restart.clone(),
        );
        tokio::pin!(run);
        tokio::select! {
            () = &mut run => return,
            Ok(_) = config.wait_for(|config| config.checks != limits) => {}
        }
        restart.cancel();
        run.await;
    }
}

async fn follow_allow(policies: Arc<Policies>, mut config: watch::Receiver<Arc<Config>>) {
    loop {
        let allow = config.borrow_and_update().allow;
        policies.set_allow(allow);
        if config.wait_for(|config| config.allow != allow).await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn refresh_facts(sender: watch::Sender<Arc<v1::Facts>>) {
    let mut ticks = time::interval_at(time::Instant::now() + FACTS, FACTS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        gather_facts(&sender).await;
    }
}

/// Keeps the old facts when new ones do not come.
async fn gather_facts(sender: &watch::Sender<Arc<v1::Facts>>) {
    let gathered = match detached::call(facts::gather) {
        Ok(answer) => time::timeout(FACTS_PATIENCE, answer).await.ok().and_then(Result::ok),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to gather facts");
            None
        }
    };
    let Some(facts) = gathered else { return };
    let facts = digested(facts);
    sender.send_if_modified(|current| {
        let changed = current.digest != facts.digest;
        *current = Arc::new(facts);
        changed
    });
}

fn digested(facts: BTreeMap<String, String>) -> v1::Facts {
    v1::Facts {
        digest: digest::of_map(&facts),
        facts,
    }
}
