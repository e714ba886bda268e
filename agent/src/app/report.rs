//! Writes `status.json` when something changed and every quarter of a minute.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_proto::v1;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    config::Config,
    link::queue::Queue,
    state_dir::StateDir,
    status::{self, Board, State, Status},
};

const PERIOD: Duration = Duration::from_secs(15);

/// Changes come in bursts; one write is enough for each.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Reporter {
    pub board: Board,
    state: StateDir,
    config: watch::Receiver<Arc<Config>>,
    started: SystemTime,
    /// Once the agent has joined.
    sources: Option<Sources>,
}

#[derive(Debug)]
struct Sources {
    queue: Arc<Queue>,
    policies: watch::Receiver<Arc<v1::PolicyStatus>>,
    warnings: Vec<String>,
}

impl Reporter {
    pub fn new(board: Board, state: StateDir, config: watch::Receiver<Arc<Config>>) -> Reporter {
        Reporter {
            board,
            state,
            config,
            started: SystemTime::now(),
            sources: None,
        }
    }

    pub fn follow(
        &mut self,
        queue: Arc<Queue>,
        policies: watch::Receiver<Arc<v1::PolicyStatus>>,
        warnings: Vec<String>,
    ) {
        self.sources = Some(Sources {
            queue,
            policies,
            warnings,
        });
    }

    /// Never returns.
    pub async fn run(&self) {
        loop {
            self.write();
            let _ = timeout(PERIOD, self.board.changed()).await;
            sleep(SETTLE).await;
        }
    }

    pub fn stopped(&self) {
        self.board.enter(State::Stopped, SystemTime::now(), |_| {});
        self.write();
    }

    /// A status that cannot be written harms nobody but the one who wants to see it.
    pub fn write(&self) {
        if let Err(error) = status::write(&self.status(), &self.state.status()) {
            tracing::debug!(%error, "failed to write the status file");
        }
    }

    fn status(&self) -> Status {
        let notes = self.board.notes();
        let mut warnings: Vec<String> = self.config.borrow().warnings.iter().map(ToString::to_string).collect();
        let sources = self.sources.as_ref();
        warnings.extend(sources.iter().flat_map(|sources| sources.warnings.iter().cloned()));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: status::time(self.started),
            written: status::time(SystemTime::now()),
            agent: notes.agent,
            connection: notes.connection,
            endpoints: notes.endpoints,
            certificate: notes.certificate,
            queues: sources.map_or_else(Vec::new, |it| status::Queue::all(&it.queue.lock(), SystemTime::now())),
            policies: sources
                .map(|it| status::Policies::of(&it.policies.borrow()))
                .unwrap_or_default(),
            warnings,
        }
    }
}
