//! Two machines with the identity of one agent: copies, images, snapshots that are put back. All of it is seen as an operator
//! sees it, and the agent that was there first never notices.

mod admission;
mod forks;
mod machine;
mod snapshots;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use muster_tests::{
    Agent, Controller,
    agent::Setup,
    controller::Token,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

const LOAD: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: load }\nspec:\n  selector: \"*\"\n  \
                    schedule: { interval: 1s }\n  run: { load: { warning: \"100000\" } }\n";

/// The files of an agent as another machine has them that was copied from its own: state directory, id file, settings.
pub(crate) fn copy_of(original: &Setup, controller: &Controller, name: &str) -> Setup {
    let token = Token {
        secret: String::new(),
        pin: original.config["server"]["ca_pin"][0]
            .as_str()
            .expect("a pin")
            .to_owned(),
        endpoint: controller.endpoint(),
    };
    let mut copy = Setup::new(name, token);
    fs::remove_file(copy.path("join-token")).expect("a copy has no token");
    copy.config["agent"]["name"] = json!(name);
    // Hundreds of them have one disk here: what each says of itself stays in its own log, and is synced by nobody.
    copy.config["logs"] = json!({ "agent": "off" });
    put_state(&original.path("state"), &copy.path("state"));
    fs::copy(original.path("agent-id"), copy.path("agent-id")).expect("the id is copied");
    copy
}

/// Makes the directory `to` what `from` is.
fn put_state(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("the old one goes");
    }
    fs::create_dir(to).expect("a directory");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("the mode is set");
    for entry in fs::read_dir(from).expect("a state directory") {
        let entry = entry.expect("an entry");
        if entry.path().is_dir() {
            put_state(&entry.path(), &to.join(entry.file_name()));
            continue;
        }
        // Gone again while this looks: a file that was written anew.
        if fs::copy(entry.path(), to.join(entry.file_name())).is_err() {
            assert!(!entry.path().exists(), "{} is not copied", entry.path().display());
        }
    }
}

/// An agent that is online, with a check that reports each second.
pub(crate) fn original(controller: &Controller, name: &str) -> Agent {
    controller.apply(LOAD);
    let agent = controller.agent(name).start();
    controller.wait_for_agent(name, "ONLINE");
    poll::until("the check reports", 20 * SECOND, || {
        controller.ctl().state(name, "load")
    });
    agent
}

fn agent(controller: &Controller, name: &str) -> Value {
    controller.ctl().json(&["agent", "get", name])
}

pub(crate) fn session(controller: &Controller, name: &str) -> Value {
    agent(controller, name)["connection"]["sessionId"].clone()
}

/// What it says when it is well: online, by the session it had, with a result that is fresh.
pub(crate) fn is_undisturbed(controller: &Controller, name: &str, session: &Value) -> Result<(), String> {
    let agent = controller.ctl().agent_is(name, "ONLINE")?;
    if agent["connection"]["sessionId"] != *session {
        return Err(format!("another session: {agent}"));
    }
    let state = controller.ctl().state(name, "load")?;
    match state["freshness"] == "FRESHNESS_FRESH" {
        true => Ok(()),
        false => Err(state.to_string()),
    }
}

/// The agent's own word, in `muster-agent status`.
fn says_it_is_a_copy(agent: &Agent) -> Result<String, String> {
    let status = agent.status()?;
    let error = status["connection"]["lastError"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if error.contains("CLONE_DETECTED") && error.contains("muster-agent seal") {
        Ok(error)
    } else {
        Err(status.to_string())
    }
}

fn warnings(controller: &Controller, name: &str) -> String {
    agent(controller, name)["warnings"].to_string()
}
