//! An agent that runs in the test, and what it leaves behind.

use std::{sync::Arc, time::Duration};

use muster_agent::{
    app::{self, Error},
    config::Config,
    state_dir::StateDir,
    status::{self, State, Status},
};
use muster_proto::{error::Problem, v1::ErrorReason};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::controller::{Answer, Controller};

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Life {
    dir: TempDir,
    config: watch::Sender<Arc<Config>>,
    stop: CancellationToken,
    task: JoinSet<Result<(), Error>>,
}

impl Life {
    pub fn start(controller: &Controller) -> Life {
        let dir = tempfile::tempdir().unwrap();
        let config = controller.config(dir.path());
        Life::resume(dir, config)
    }

    pub fn resume(dir: TempDir, config: Config) -> Life {
        let (config, receiver) = watch::channel(Arc::new(config));
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(app::run_reloading(receiver, Default::default(), stop.clone()));
        Life {
            dir,
            config,
            stop,
            task,
        }
    }

    pub fn change(&self, change: impl FnOnce(&mut Config)) {
        let mut config = Config::clone(&self.config.borrow());
        change(&mut config);
        self.config.send_replace(Arc::new(config));
    }

    pub fn status(&self) -> Status {
        status::read(&StateDir::at(&self.config.borrow().agent.state_dir).status()).unwrap()
    }

    /// Waits for its end, which must be a good one.
    pub async fn stop(mut self) -> (TempDir, Config) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.task.join_next()).await.expect("the agent stops");
        ended.unwrap().unwrap().unwrap();
        let config = Config::clone(&self.config.borrow());
        (self.dir, config)
    }
}

#[tokio::test]
async fn the_status_file_tells_of_the_connection_and_of_its_end() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    controller
        .wait("heartbeats", |seen| seen.heartbeats.get(4).map(drop))
        .await;
    let path = StateDir::at(&life.config.borrow().agent.state_dir).status();
    let running = status::read(&path).unwrap();
    assert_eq!(running.connection.state, State::Connected, "{running:?}");
    assert_eq!(running.connection.endpoint, controller.address.to_string());
    assert_eq!(running.connection.controller, "controller1");
    assert_eq!(running.agent.trust_domain, crate::controller::DOMAIN);
    assert!(running.certificate.is_some());
    let (_dir, _config) = life.stop().await;
    assert_eq!(status::read(&path).unwrap().connection.state, State::Stopped);
}

#[tokio::test]
async fn an_agent_that_is_refused_stays_and_joins_when_the_mistake_is_mended() {
    let controller = Controller::start().await;
    let problem = Problem::new(Code::Unauthenticated, ErrorReason::TokenInvalid, "no");
    controller.set(|seen| seen.answers.push_back(Answer::Refuse(problem)));
    let life = Life::start(&controller);
    controller
        .wait("the refusal", |seen| seen.enrollments.first().map(drop))
        .await;
    // A reload ends the wait of a minute.
    life.change(|_| {});
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    life.stop().await;
}

#[tokio::test]
async fn an_agent_stops_at_once_while_it_waits_to_enroll() {
    let controller = Controller::start().await;
    let problem = Problem::new(Code::Unauthenticated, ErrorReason::TokenInvalid, "no");
    controller.set(|seen| seen.answers.push_back(Answer::Refuse(problem)));
    let life = Life::start(&controller);
    controller
        .wait("the refusal", |seen| seen.enrollments.first().map(drop))
        .await;
    life.stop().await;
}

#[tokio::test]
async fn a_second_agent_does_not_start_on_the_same_state() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    let config = Config::clone(&life.config.borrow());
    let error = app::run(config, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("another agent is running"), "{error}");
    life.stop().await;
}

#[tokio::test]
async fn an_agent_with_nothing_to_enroll_with_says_what_is_missing() {
    let controller = Controller::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = controller.config(dir.path());
    config.server.token_file = None;
    let failure = app::run(config, CancellationToken::new()).await.unwrap_err().failure();
    assert!(failure.to_string().contains("MUSTER_TOKEN"), "{failure}");
}

#[tokio::test]
async fn a_refused_link_is_tried_again() {
    let controller = Controller::start().await;
    let problem = Problem::new(Code::Unavailable, ErrorReason::ShuttingDown, "later");
    controller.set(|seen| seen.refuses_links = Some(problem));
    let life = Life::start(&controller);
    controller
        .wait("heartbeats on the second link", |seen| {
            seen.heartbeats.first().map(drop)
        })
        .await;
    controller.set(|seen| assert_eq!(seen.links, 2));
    life.stop().await;
}

#[tokio::test]
async fn the_next_controller_is_tried_when_the_first_is_not_there() {
    let controller = Controller::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = controller.config(dir.path());
    config.server.endpoints.insert(0, "127.0.0.1:1".parse().unwrap());
    let life = Life::resume(dir, config);
    controller
        .wait("heartbeats", |seen| seen.heartbeats.first().map(drop))
        .await;
    life.stop().await;
}
