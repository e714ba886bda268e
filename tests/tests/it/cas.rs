//! The CA over the years, through the real binaries: rotations with agents that are there and agents that are not, keys that
//! are in other hands, CAs of somebody else's PKI, and an own certificate for the API.

mod api_certificate;
pub mod openssl;
mod own_pki;
mod rotation;

use muster_certs::{identity_file::IdentityFile, pem};
use muster_tests::{
    Controller, Ctl,
    ctl::Outcome,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

/// `musterctl` as whom this identity says, with these CAs to know the controller by.
fn ctl_with(controller: &Controller, file: &str, identity: &IdentityFile, ca: &str, server_name: Option<&str>) -> Ctl {
    let mut context = json!({
        "name": "test", "server": controller.api(), "trust_domain": "example.muster", "ca": ca,
        "certificate": pem::encode_certificates(identity.chain()), "key": *identity.key().to_pem(),
    });
    if let Some(name) = server_name {
        context["server_name"] = name.into();
    }
    let path = controller.path(file);
    let text = json!({ "contexts": [context] }).to_string();
    muster_certs::file::write_secret(&path, text.as_bytes()).expect("the context file is written");
    Ctl::new(path, controller.path("."))
}

/// A step of the rotation, as soon as the controller agrees.
#[track_caller]
fn step(controller: &Controller, step: &[&str]) -> Value {
    let arguments = [&["ca"], step, &["--yes"]].concat();
    poll::until(&format!("ca {step:?}"), 60 * SECOND, || {
        controller.ctl().try_json(&arguments)
    })
}

fn refused(controller: &Controller, step: &[&str]) -> Outcome {
    let outcome = controller.ctl().run(&[&["ca"], step, &["--yes"]].concat());
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome
}

fn status(controller: &Controller) -> Value {
    controller.ctl().json(&["ca", "status"])
}

/// The id of the CA in this phase.
fn ca(status: &Value, phase: &str) -> Option<String> {
    let items = status["items"].as_array().expect("items");
    let ca = items.iter().find(|ca| ca["phase"] == format!("CA_PHASE_{phase}"))?;
    Some(ca["id"].as_str().expect("an id").to_owned())
}

/// How many agents have their newest certificate from the CA in this phase.
fn agents(status: &Value, phase: &str) -> u64 {
    let items = status["items"].as_array().expect("items");
    let ca = items.iter().find(|ca| ca["phase"] == format!("CA_PHASE_{phase}"));
    ca.and_then(|ca| ca["agents"].as_u64()).unwrap_or(0)
}
