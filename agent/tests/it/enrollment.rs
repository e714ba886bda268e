//! How a machine becomes an agent, and what is left when it does not.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use muster_agent::{
    config::Config,
    facts::fingerprint,
    failure::Exit,
    identity::{Enrollment, Error, Identity, enroll},
    state_dir::StateDir,
};
use muster_certs::pin::Pin;
use muster_proto::{
    error::Problem,
    v1::{self, ErrorReason},
};
use tonic::Code;

use crate::controller::{Answer, Controller};

async fn attempt(config: &Config) -> Result<Identity, Error> {
    let state = StateDir::create(&config.agent.state_dir).unwrap();
    enroll(&Enrollment {
        config,
        state: &state,
        fingerprint: fingerprint("nonce"),
    })
    .await
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_machine_with_a_token_gets_an_identity_and_forgets_the_token() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let mut config = controller.config(dir.path());
    config.agent.labels.insert("zone".into(), "eu".into());
    let identity = attempt(&config).await.unwrap();

    let request = controller
        .wait("the request", |seen| seen.enrollments.first().cloned())
        .await;
    assert_eq!(request.token, *controller.token.expose());
    assert_eq!((&*request.name, &*request.labels["zone"]), ("web-01", "eu"));
    assert_eq!(request.agent_id, identity.id().to_string());
    assert_eq!(
        fs::read_to_string(&config.agent.id_file).unwrap(),
        format!("{}\n", identity.id())
    );

    let state = StateDir::at(&config.agent.state_dir);
    assert_eq!(
        (mode(state.path()), mode(&state.identity()), mode(&state.trust())),
        (0o700, 0o600, 0o600)
    );
    assert!(!state.enroll_key().exists() && !config.server.token_file.unwrap().exists());
    let loaded = Identity::load(&state).unwrap().unwrap();
    assert_eq!((loaded.id(), loaded.serial()), (identity.id(), identity.serial()));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key_and_id() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    controller.set(|seen| seen.answers.push_back(Answer::Lose));
    let config = controller.config(dir.path());
    let error = attempt(&config).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(
        config.server.token_file.as_ref().unwrap().exists(),
        "the token is needed again"
    );
    attempt(&config).await.unwrap();
    controller
        .wait("two requests", |seen| {
            let [first, second] = &seen.enrollments[..] else {
                return None;
            };
            let key = |request: &v1::EnrollRequest| muster_certs::csr::verify(&request.csr).unwrap().fingerprint();
            assert_eq!((key(first), &first.agent_id), (key(second), &second.agent_id));
            Some(())
        })
        .await;
}

#[tokio::test]
async fn a_controller_without_the_pin_never_sees_the_token() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let mut config = controller.config(dir.path());
    let wrong: Pin = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    config.server.ca_pin = vec![wrong];
    let error = attempt(&config).await.unwrap_err();
    assert!(!error.is_transient());
    let failure = error.failure();
    assert_eq!(failure.exit, Exit::Unreachable);
    let text = failure.to_string();
    assert!(
        text.contains(&wrong.to_string()) && text.contains(&controller.pin.to_string()),
        "{text}"
    );
    controller.set(|seen| assert!(seen.enrollments.is_empty()));
    assert!(
        Identity::load(&StateDir::at(&config.agent.state_dir))
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_ca_certificate_does_instead_of_a_pin() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let mut config = controller.config(dir.path());
    let path = dir.path().join("ca.pem");
    fs::write(&path, controller.root_pem()).unwrap();
    config.server.ca_pin.clear();
    config.server.ca_cert = Some(path);
    attempt(&config).await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_told_with_code_reason_and_a_way_out() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let problem = Problem::new(Code::Unauthenticated, ErrorReason::TokenInvalid, "no");
    controller.set(|seen| seen.answers.push_back(Answer::Refuse(problem)));
    let config = controller.config(dir.path());
    let error = attempt(&config).await.unwrap_err();
    assert!(!error.is_transient());
    let failure = error.failure();
    assert_eq!(failure.exit, Exit::Denied);
    assert!(
        failure.summary.ends_with(": UNAUTHENTICATED TOKEN_INVALID"),
        "{failure}"
    );
    assert!(!failure.to_string().contains(&*controller.token.expose()), "{failure}");
    assert!(config.server.token_file.unwrap().exists());
}

#[tokio::test]
async fn an_id_that_is_taken_names_the_id_and_its_file() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let problem = Problem::new(Code::AlreadyExists, ErrorReason::AgentAlreadyEnrolled, "taken");
    controller.set(|seen| seen.answers.push_back(Answer::Refuse(problem)));
    let config = controller.config(dir.path());
    let failure = attempt(&config).await.unwrap_err().failure();
    assert_eq!(failure.exit, Exit::Conflict);
    let id = fs::read_to_string(&config.agent.id_file).unwrap();
    let text = failure.to_string();
    assert!(
        text.contains(id.trim()) && text.contains(&*config.agent.id_file.to_string_lossy()),
        "{text}"
    );
}

#[tokio::test]
async fn a_controller_that_asks_for_patience_is_obeyed() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let problem = Problem::new(Code::ResourceExhausted, ErrorReason::RateLimited, "too many")
        .with_retry_after(Duration::from_secs(17));
    controller.set(|seen| seen.answers.push_back(Answer::Refuse(problem)));
    let error = attempt(&controller.config(dir.path())).await.unwrap_err();
    assert!(error.is_transient());
    let told = error.refusal().and_then(|problem| problem.retry_after);
    assert_eq!(told, Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_the_first_is_not_there() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let mut config = controller.config(dir.path());
    config.server.endpoints.insert(0, "127.0.0.1:1".parse().unwrap());
    attempt(&config).await.unwrap();
}

#[tokio::test]
async fn without_token_endpoint_or_pin_nothing_is_tried() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let good = controller.config(dir.path());
    let mut configs = [good.clone(), good.clone(), good];
    configs[0].server.token_file = Some(dir.path().join("not-there"));
    configs[1].server.endpoints.clear();
    configs[2].server.ca_pin.clear();
    for config in configs {
        let error = attempt(&config).await.unwrap_err();
        assert!(error.is_incomplete(), "{error}");
        assert_eq!(error.failure().exit, Exit::Usage);
        assert!(!config.agent.id_file.exists(), "nothing was begun");
    }
    controller.set(|seen| assert!(seen.enrollments.is_empty()));
}
