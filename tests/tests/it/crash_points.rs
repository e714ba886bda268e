//! Agents and controllers that are killed, and networks that are cut, at every step of how an identity comes about. Whatever
//! the step was, doing the same again makes it whole: one agent, one use of the token, no copy suspected.

mod controller;
mod enrollment;
mod forks;
mod network;
mod renewal;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use muster_certs::identity_file::IdentityFile;
use muster_proto::v1::{GetTrustBundleRequest, enrollment_service_client::EnrollmentServiceClient};
use muster_tests::{Controller, agent::Setup, dial};
use serde_json::{Value, json};

/// All of them are enrolled, each once and with one use of its token, as the agents they say they are, with identities that
/// open connections and nothing left of what was cut short. Every token of the controller is of one of them.
fn assert_enrolled_once(controller: &Controller, setups: &[Setup]) {
    let ctl = controller.ctl();
    let tokens = ctl.items(&["token", "list", "--all"]).expect("tokens");
    let once = |token: &&Value| {
        let uses = token["redemptions"].as_array().map_or(0, Vec::len);
        token["status"] == "TOKEN_STATUS_USED_UP" && token["uses"] == 1 && uses == 1
    };
    let used = tokens.iter().filter(once).count();
    assert_eq!((tokens.len(), used), (setups.len(), setups.len()), "{tokens:#?}");

    let agents = ctl.items(&["agent", "list"]).expect("agents");
    assert_eq!(agents.len(), setups.len(), "{agents:#?}");
    let ids: BTreeMap<String, &Value> = agents.iter().map(|it| (it["name"].to_string(), &it["id"])).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for setup in setups {
        let name = &setup.config["agent"]["name"];
        let id = fs::read_to_string(setup.path("agent-id")).expect("an id");
        assert_eq!(ids.get(&name.to_string()), Some(&&json!(id.trim())), "{name}");
        assert_clean(setup);
        let works = runtime.block_on(opens_a_connection(controller, setup));
        works.unwrap_or_else(|error| panic!("the identity of {name} does not work: {error}"));
    }
    let enrolled = ctl.events("AGENT_ENROLLED").expect("events");
    assert_eq!(enrolled.len(), setups.len(), "{enrolled:#?}");
}

/// What an enrolled agent has on disk is for its owner alone, and nothing of it is half of something.
fn assert_clean(setup: &Setup) {
    let state = setup.path("state");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
    assert_eq!(mode(&state), 0o700);
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&state).expect("the state directory") {
        let entry = entry.expect("an entry");
        assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["agent.lock", "identity.pem", "server.json", "trust.json"]);
    assert!(!setup.path("join-token").exists(), "the token is still there");
    let beside = fs::read_dir(setup.path("")).expect("the agent's directory");
    for entry in beside {
        let name = entry.expect("an entry").file_name();
        assert!(!name.to_string_lossy().ends_with(".tmp"), "{name:?}");
    }
}

async fn opens_a_connection(controller: &Controller, setup: &Setup) -> Result<(), Box<dyn std::error::Error>> {
    let identity = IdentityFile::load(&setup.path("state/identity.pem"))?;
    let channel = dial::channel(controller, controller.agents_port, Some(&identity)).await;
    let mut client = EnrollmentServiceClient::new(channel.map_err(|error| error.to_string())?);
    client.get_trust_bundle(GetTrustBundleRequest {}).await?;
    Ok(())
}

/// Nobody was taken for a copy of itself, nor for what a snapshot brought back.
fn assert_no_copies(controller: &Controller) {
    for event in controller.ctl().items(&["event", "list"]).expect("events") {
        let reason = event["reason"].as_str().unwrap_or_default();
        assert!(
            !reason.starts_with("AGENT_CLONE") && reason != "AGENT_SNAPSHOT_RESTORED",
            "{event}"
        );
    }
}
