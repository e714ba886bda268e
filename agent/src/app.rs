//! The one place that builds the agent from its parts, runs them and stops them in order: first what makes records, then
//! the link that still sends them. Knows no signals, no terminal and no arguments.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::tls;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

pub use self::reload::needs_restart;
use self::{report::Reporter, workers::Workers};
use crate::{
    config::Config,
    dial::causes,
    endpoints::Endpoints,
    facts::{fingerprint, host_name},
    failure::{Exit, Failure},
    identity::{self, Holder, Identity, Renewer},
    link::{
        Left, Link,
        queue::{Directory, Lanes, Limits, Queue, keeper::Keeper},
    },
    logs::OwnLog,
    policy::Policies,
    state_dir::{self, StateDir},
    status::Board,
};

mod join;
mod own;
mod reload;
mod report;
mod workers;

/// How long what makes records may take to stop, and then the link, with its goodbye.
const WORKERS_STOP: Duration = Duration::from_secs(2);
const LINK_STOP: Duration = Duration::from_millis(2500);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state_dir::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("failed to set up TLS for the link")]
    Tls(#[from] tls::Error),
    /// A part of the agent ended that should have run on.
    #[error("a part of the agent has stopped: {0}")]
    Part(String),
}

impl Error {
    pub fn failure(&self) -> Failure {
        match self {
            Error::Identity(error) => error.failure(),
            Error::State(error) => state_failure(error),
            Error::Tls(source) => Failure::new(Exit::Failure, self.to_string())
                .what("connect to the controller")
                .why(causes(source))
                .remedy("remove the state directory and the id file, and enroll again with a new token"),
            Error::Part(_) => Failure::new(Exit::Failure, self.to_string())
                .what("keep all parts of the agent running")
                .why("this is a defect of the agent; its log tells more")
                .remedy("start the agent again; systemd does so by itself"),
        }
    }
}

/// Errors of the state directory, for the commands that use it too.
pub(crate) fn state_failure(error: &state_dir::Error) -> Failure {
    let what = "use the state directory";
    if let state_dir::Error::File(error) = error
        && let Some(failure) = Failure::too_open(error, what)
    {
        return failure;
    }
    match error {
        state_dir::Error::InUse { .. } => Failure::new(Exit::Conflict, error.to_string())
            .what("be the one agent that uses this state directory")
            .why("two agents with one identity would take each other's place at the controller")
            .remedy("stop the other one, or give this one its own agent.state_dir and agent.id_file"),
        _ => Failure::new(Exit::Failure, error.to_string())
            .what(what)
            .why(std::error::Error::source(error).map_or_else(|| error.to_string(), causes))
            .remedy("run as root, or choose another directory (agent.yaml: agent.state_dir; enroll: --state-dir)"),
    }
}

/// Enrolls first when there is a token and no identity, then runs until cancelled. Says goodbye before it returns.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let (_sender, receiver) = watch::channel(Arc::new(config));
    run_reloading(receiver, OwnLog::default(), shutdown).await
}

/// As [`run`], with a configuration that may change, and with what the process says of itself.
pub async fn run_reloading(
    mut config: watch::Receiver<Arc<Config>>,
    log: OwnLog,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    // A copy that has become an agent of its own begins anew as that one.
    while run_as_one(&mut config, &log, &shutdown).await? == Left::Forked {}
    Ok(())
}

/// Until `shutdown`, or until the identity on disk is that of another agent.
async fn run_as_one(
    config: &mut watch::Receiver<Arc<Config>>,
    log: &OwnLog,
    shutdown: &CancellationToken,
) -> Result<Left, Error> {
    let settings = config.borrow_and_update().clone();
    let state = StateDir::create(&settings.agent.state_dir)?;
    let _lock = state.lock()?;
    let board = Board::default();
    board.named(&if settings.agent.name.is_empty() {
        host_name()
    } else {
        settings.agent.name.clone()
    });
    let mut reporter = Reporter::new(board.clone(), state.clone(), config.clone());
    let fingerprint = fingerprint(&format!("{:016x}", rand::random::<u64>()));

    let Some(identity) = join::join(config, &state, &fingerprint, &reporter, shutdown).await? else {
        reporter.stopped();
        return Ok(Left::Stopped);
    };
    identity::enroll::finish(&identity, &settings, &state);
    identity::fork::finish(&identity, &settings, &state);
    let trust = identity.trust();
    board.enrolled(
        identity.id(),
        trust.trust_domain().as_str(),
        identity.serial(),
        identity.expires(),
    );

    let directory = Directory::new(state.queue());
    let queue = Arc::new(Queue::new(open_queue(&directory, &state, &identity, &settings)));
    let keeper = Keeper::new(queue.clone(), directory.path().to_owned(), config.clone());
    keeper.begin();
    let policies = Arc::new(Policies::load(state.policies(), trust.clone(), settings.allow));
    let warnings = join::warnings(&identity, &settings);
    reporter.follow(queue.clone(), policies.status(), warnings.clone());
    let identity = Holder::new(identity);
    let workers = Workers::start(&identity, &queue, &policies, log, config.clone()).await;
    let endpoints = Endpoints::load(&state);
    let renewer = Renewer {
        holder: identity.clone(),
        state: state.clone(),
        config: config.clone(),
        endpoints: endpoints.clone(),
        board: board.clone(),
        fingerprint: fingerprint.clone(),
    };
    let link = Link {
        identity,
        state,
        endpoints,
        queue,
        policies,
        facts: workers.facts(),
        config: config.clone(),
        board,
        fingerprint,
        warnings,
    };
    let result = supervise(link, renewer, workers, keeper, &reporter, shutdown).await;
    reporter.stopped();
    result
}

/// What earlier starts have left to be sent, and room for more. A disk that takes nothing keeps nobody from running: the queue
/// is in memory then.
fn open_queue(directory: &Directory, state: &StateDir, identity: &Identity, config: &Config) -> Lanes {
    let agent = identity.id().to_string();
    let now = SystemTime::now();
    let limits = |lane| Limits {
        bytes: usize::try_from(config.queue.of(lane)).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    // What waits can be read from a disk that takes nothing.
    let id = state.next_spool_id(0, now);
    directory.open(&agent, &id, limits).unwrap_or_else(|error| {
        let error = causes(&error);
        tracing::error!(error, "the queue cannot be on disk; it is in memory until it can");
        directory.open_broken(&agent, &id, limits, &io::Error::other(error))
    })
}

/// Runs all parts until `shutdown`, or until one of them ends that should not.
async fn supervise(
    link: Link,
    renewer: Renewer,
    mut workers: Workers,
    keeper: Keeper,
    reporter: &Reporter,
    shutdown: &CancellationToken,
) -> Result<Left, Error> {
    let leave = CancellationToken::new();
    let mut links = JoinSet::new();
    let stop = leave.clone();
    let kept = CancellationToken::new();
    let mut keepers = JoinSet::new();
    keepers.spawn(keeper.run(kept.clone()));
    links.spawn(async move {
        stop.run_until_cancelled(renewer.settle()).await;
        tokio::select! {
            left = link.run(stop) => left,
            // It never ends by itself.
            () = renewer.run() => Ok(Left::Stopped),
        }
    });
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(Left::Stopped),
        ended = workers.ended() => Err(Error::Part(ended)),
        Some(ended) = links.join_next() => match ended {
            Ok(Ok(Left::Forked)) => Ok(Left::Forked),
            Ok(Ok(Left::Stopped)) => Err(Error::Part("the link ended by itself".to_owned())),
            Ok(Err(error)) => Err(Error::Tls(error)),
            Err(error) => Err(Error::Part(format!("the link: {error}"))),
        },
        Some(ended) = keepers.join_next() => Err(Error::Part(format!("the keeper of the queue: {ended:?}"))),
        () = reporter.run() => Ok(Left::Stopped),
    };
    // What makes records stops first, so that the link can send the last of them.
    if timeout(WORKERS_STOP, workers.stop()).await.is_err() {
        tracing::warn!("checks or collectors did not stop in time and were left");
    }
    leave.cancel();
    if timeout(LINK_STOP, links.join_next()).await.is_err() {
        tracing::warn!("the link did not end in time and was cut");
    }
    // What the link has not sent waits on disk.
    kept.cancel();
    if timeout(LINK_STOP, keepers.join_next()).await.is_err() {
        tracing::warn!("the disk did not take the queue in time");
    }
    result
}
