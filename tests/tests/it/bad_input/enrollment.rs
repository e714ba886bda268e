//! Enrollment with something wrong: nothing is enrolled, and the token is good for a later try.

use std::{fs, os::unix::fs::PermissionsExt as _};

use muster_tests::{
    Controller,
    agent::Setup,
    poll::{self, SECOND},
};
use serde_json::json;

use super::names;

#[test]
fn a_wrong_pin_ends_the_enrollment_before_the_token_is_sent() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    let right = setup.config["server"]["ca_pin"][0].clone();
    let wrong = format!("sha256:{}", "ab".repeat(32));
    setup.config["server"]["ca_pin"] = json!([wrong]);
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    // Both: what was expected and what was found, so that they can be compared.
    outcome.explains().says(&[&wrong, right.as_str().expect("a pin")]);
    assert_not_enrolled(&controller, &setup);

    // The token was neither shown nor used up.
    setup.config["server"]["ca_pin"] = json!([right]);
    setup.enroll().expect_code(0);
}

#[test]
fn a_wrong_token_is_refused() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    let right = fs::read_to_string(setup.path("join-token")).expect("the token");
    let (id, secret) = right.rsplit_once('_').expect("a token has an id and a secret");
    let flipped: String = secret.chars().rev().collect();
    setup.write_token(&format!("{id}_{flipped}"));
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(
        !outcome.stderr.contains(&flipped),
        "the token is in the message:\n{outcome}"
    );
    outcome.explains().says(&["UNAUTHENTICATED", "TOKEN_INVALID"]);
    assert_not_enrolled(&controller, &setup);
}

#[test]
fn a_token_file_that_holds_no_token_is_refused_without_asking_the_controller() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    setup.write_token("hunter2");
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(
        !outcome.stderr.contains("hunter2"),
        "what might be a secret is in the message:\n{outcome}"
    );
    outcome.explains().says(&["join-token"]);
}

#[test]
fn a_token_that_is_used_up_is_refused() {
    let controller = Controller::start();
    let token = controller.token(&["--uses", "1"]);
    Setup::new("web-01", token.clone()).enroll().expect_code(0);
    let second = Setup::new("web-02", token);
    let outcome = second.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["UNAUTHENTICATED", "TOKEN_INVALID"]);
    assert_eq!(names(&controller), ["web-01"]);
    assert!(!second.path("state/identity.pem").exists());
}

#[test]
fn an_expired_token_is_refused() {
    let controller = Controller::start();
    let made = controller.ctl().json(&["token", "create", "--ttl", "1m"]);
    let end = made["token"]["expireTime"].as_str().expect("a time").to_owned();
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let setup = controller.agent("web-01");
    setup.write_token(&secret);
    // A minute is the shortest life of a token.
    poll::until("the token expires", 75 * SECOND, || {
        let now = controller.ctl().json(&["token", "create", "--ttl", "1m"])["token"]["createTime"].clone();
        if now.as_str() > Some(end.as_str()) {
            Ok(())
        } else {
            Err(format!("{now} is before {end}"))
        }
    });
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["UNAUTHENTICATED", "TOKEN_INVALID"]);
    assert_not_enrolled(&controller, &setup);
}

#[test]
fn an_id_file_without_a_uuid_is_an_error_and_not_replaced() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    setup.write("agent-id", "web-01\n");
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["agent-id", "UUID"]);
    assert_eq!(
        fs::read_to_string(setup.path("agent-id")).expect("the file"),
        "web-01\n"
    );
    assert_not_enrolled(&controller, &setup);
}

#[test]
fn an_id_that_is_enrolled_already_is_refused_and_uses_no_token_up() {
    let controller = Controller::start();
    let token = controller.token(&["--uses", "2"]);
    let first = Setup::new("web-01", token.clone());
    let id = "7D0C51C2-9F0E-4B57-A3A1-5E1F0C7B8D21";
    first.write("agent-id", id);
    first.enroll().expect_code(0);

    let second = Setup::new("web-02", token.clone());
    second.write("agent-id", id);
    let outcome = second.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome
        .explains()
        .says(&["ALREADY_EXISTS", &id.to_lowercase(), "agent-id"]);
    assert_eq!(names(&controller), ["web-01"]);
    assert!(
        second.path("join-token").exists(),
        "the token file is gone, though it was not used"
    );

    let third = Setup::new("web-03", token);
    third.enroll().expect_code(0);
}

#[test]
fn a_controller_that_is_not_there_is_named() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    setup.config["server"]["endpoints"] = json!(["127.0.0.1:1"]);
    let outcome = setup.enroll_once();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["127.0.0.1:1", "refused"]);
}

#[test]
fn a_token_that_others_may_read_is_refused() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    let path = setup.path("join-token");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("the mode is set");
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&[&format!("chmod 600 {}", path.display())]);
    assert_not_enrolled(&controller, &setup);
}

#[track_caller]
fn assert_not_enrolled(controller: &Controller, setup: &Setup) {
    assert_eq!(names(controller), Vec::<String>::new(), "the controller has an entry");
    assert!(!setup.path("state/identity.pem").exists(), "the agent has an identity");
    assert!(setup.path("join-token").exists(), "the token file is gone");
}
