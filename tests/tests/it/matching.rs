//! Whom an enrollment is for: each row of the table of ids and tokens, by the real agent or by requests that no agent sends.
//! What people see of a refusal, and that it used nothing up.

mod ids;
mod tokens;

use muster_proto::v1::EnrollResponse;
use muster_tests::{
    Controller,
    peer::{self, Peer},
};
use serde_json::Value;
use tonic::Status;

const ID: &str = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";

/// `musterctl agent preregister` of [`ID`] with these arguments.
fn preregister(controller: &Controller, arguments: &[&str]) {
    controller
        .ctl()
        .ok(&[&["agent", "preregister", "--id", ID], arguments].concat());
}

fn agents(controller: &Controller) -> Vec<Value> {
    controller.ctl().items(&["agent", "list"]).expect("a list")
}

/// The id of a token, which is not secret.
fn id_of(secret: &str) -> &str {
    secret.split('_').nth(1).expect("a token has an id")
}

fn token(controller: &Controller, secret: &str) -> Value {
    controller.ctl().json(&["token", "get", id_of(secret)])
}

#[track_caller]
fn assert_uses_left(controller: &Controller, secret: &str, left: u64) {
    let token = token(controller, secret);
    assert_eq!(token["usesLeft"].as_u64().unwrap_or(0), left, "{token}");
}

/// The label of an agent: its value and who gave it.
fn label(agent: &Value, key: &str) -> Option<(String, String)> {
    let labels = agent["labels"].as_array()?;
    let label = labels.iter().find(|label| label["key"] == key)?;
    let text = |field: &str| label[field].as_str().unwrap_or_default().to_owned();
    Some((text("value"), text("source")))
}

#[track_caller]
fn assert_refused(answer: Result<EnrollResponse, Status>, reason: &str) -> Status {
    let refusal = answer.expect_err("it is refused");
    assert_eq!(peer::reason(&refusal), reason, "{refusal}");
    refusal
}

/// A machine that has enrolled as [`ID`].
fn enrolled(controller: &Controller) -> Peer {
    let machine = Peer::new("db-01");
    let token = controller.token(&[]).secret;
    machine.enroll_as(controller, &token, ID).expect("it enrolls");
    machine
}
