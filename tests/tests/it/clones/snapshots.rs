//! State directories that are put back: an agent from before goes on as the agent it is.

use std::fs;

use muster_tests::{
    Controller, ServerYaml,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

use super::{agent, put_state, warnings};

/// A check that says what a file says.
fn says_file(controller: &Controller) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let (script, file) = (controller.path("says.sh"), controller.path("word"));
    fs::write(&file, "OK - first\n").expect("a file");
    fs::write(&script, "#!/bin/sh\ncat \"$1\"\ngrep -q ^OK \"$1\" || exit 2\n").expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the mode is set");
    controller.apply(
        &json!({
            "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": "says" },
            "spec": {
                "selector": "*", "schedule": { "interval": "1s" },
                "run": { "command": [script, file] },
            },
        })
        .to_string(),
    );
    file
}

fn says(controller: &Controller, word: &str) -> Result<Value, String> {
    let state = controller.ctl().state("web-01", "says")?;
    match state["freshness"] == "FRESHNESS_FRESH" && state.to_string().contains(word) {
        true => Ok(state),
        false => Err(state.to_string()),
    }
}

#[test]
fn results_after_a_snapshot_was_put_back_are_the_newest_at_once() {
    let controller = Controller::start();
    let file = says_file(&controller);
    let mut agent = controller.agent("web-01").start();
    poll::until("the first word is seen", 20 * SECOND, || says(&controller, "first"));
    agent.stop();
    let snapshot = agent.setup().path("snapshot");
    put_state(&agent.setup().path("state"), &snapshot);
    // Each start takes a spool of a higher generation, and states follow generations.
    for _ in 0..3 {
        agent.run();
        controller.wait_for_agent("web-01", "ONLINE");
        agent.stop();
        controller.wait_for_agent("web-01", "OFFLINE");
    }
    agent.run();
    fs::write(&file, "OK - second\n").expect("a file");
    poll::until("the second word is seen", 20 * SECOND, || says(&controller, "second"));
    agent.stop();

    put_state(&snapshot, &agent.setup().path("state"));
    fs::write(&file, "CRITICAL - third\n").expect("a file");
    agent.run();
    let state = poll::until("the third word is seen", 20 * SECOND, || says(&controller, "third"));
    assert_eq!(state["state"], "CHECK_STATE_CRITICAL", "{state}");
    assert!(
        agent.log().contains("the state directory was put back"),
        "{}",
        agent.log()
    );

    // And so it stays after the next start.
    agent.stop();
    fs::write(&file, "OK - fourth\n").expect("a file");
    agent.run();
    poll::until("the fourth word is seen", 20 * SECOND, || says(&controller, "fourth"));
}

#[test]
fn a_state_directory_from_before_several_renewals_is_renewed_when_it_is_put_back() {
    let controller = Controller::start_with(&ServerYaml::new().agent_certificates("10s").heartbeat("2s").to_string());
    let file = says_file(&controller);
    let mut host = controller.agent("web-01").start();
    poll::until("the first word is seen", 20 * SECOND, || says(&controller, "first"));
    let first = agent(&controller, "web-01");
    let snapshot = host.setup().path("snapshot");
    put_state(&host.setup().path("state"), &snapshot);

    // It lives on: its certificate is renewed, and renewed again.
    let mut serials = vec![first["certificate"]["serial"].clone()];
    poll::until("three renewals have come", 60 * SECOND, || {
        let serial = agent(&controller, "web-01")["certificate"]["serial"].clone();
        if !serials.contains(&serial) {
            serials.push(serial);
        }
        match serials.len() > 3 {
            true => Ok(()),
            false => Err(format!("{serials:?}")),
        }
    });
    fs::write(&file, "OK - second\n").expect("a file");
    poll::until("the second word is seen", 20 * SECOND, || says(&controller, "second"));
    host.kill();

    put_state(&snapshot, &host.setup().path("state"));
    fs::write(&file, "CRITICAL - third\n").expect("a file");
    host.run();
    poll::until("it is back and reports", 60 * SECOND, || says(&controller, "third"));
    let back = agent(&controller, "web-01");
    assert_eq!(back["id"], first["id"], "{back}");
    assert!(
        !serials.contains(&back["certificate"]["serial"]),
        "a new certificate: {back}"
    );
    let ctl = controller.ctl();
    let restored = ctl.events("AGENT_SNAPSHOT_RESTORED").expect("events");
    assert_eq!(restored.len(), 1, "{restored:?}");
    assert_eq!(ctl.events("AGENT_CLONE_REFUSED").expect("events").len(), 0);
    assert_eq!(warnings(&controller, "web-01"), "null");
}

#[test]
fn a_state_directory_from_before_a_renewal_beside_the_agent_that_lives_is_a_copy() {
    let controller = Controller::start_with(&ServerYaml::new().agent_certificates("12s").heartbeat("2s").to_string());
    let host = super::original(&controller, "web-01");
    let before = agent(&controller, "web-01")["certificate"]["serial"].clone();
    let old = super::copy_of(host.setup(), &controller, "web-02");
    poll::until("it is renewed", 30 * SECOND, || {
        match agent(&controller, "web-01")["certificate"]["serial"] == before {
            true => Err("the same serial"),
            false => Ok(()),
        }
    });
    let copy = old.start();
    poll::until("the copy is told what it is", 60 * SECOND, || {
        super::says_it_is_a_copy(&copy)
    });
    let state = controller.ctl().state("web-01", "load").expect("a state");
    assert_eq!(state["freshness"], "FRESHNESS_FRESH", "{state}");
    controller.ctl().agent_is("web-01", "ONLINE").expect("online");
    assert_eq!(
        controller
            .ctl()
            .events("AGENT_SNAPSHOT_RESTORED")
            .expect("events")
            .len(),
        0
    );
}

#[test]
fn an_old_image_of_an_agent_that_was_renewed_since_becomes_an_agent_where_copies_may() {
    let settings = ServerYaml::new()
        .agent_certificates("12s")
        .heartbeat("2s")
        .on_clone("fork");
    let controller = Controller::start_with(&settings.to_string());
    let host = super::original(&controller, "web-01");
    let before = agent(&controller, "web-01");
    let image = super::copy_of(host.setup(), &controller, "web-02");
    poll::until("the original is renewed", 30 * SECOND, || {
        match agent(&controller, "web-01")["certificate"]["serial"] == before["certificate"]["serial"] {
            true => Err("the same serial"),
            false => Ok(()),
        }
    });
    let _copy = image.start();
    let fork = poll::until("the image is an agent of its own", 60 * SECOND, || {
        controller.ctl().agent_is("web-02", "ONLINE")
    });
    assert_eq!(agent(&controller, "web-02")["forkedFrom"], before["id"], "{fork}");
    let original = agent(&controller, "web-01");
    assert_eq!(
        (&original["id"], &original["status"]),
        (&before["id"], &json!("AGENT_STATUS_ONLINE"))
    );
    assert_eq!(
        controller
            .ctl()
            .events("AGENT_SNAPSHOT_RESTORED")
            .expect("events")
            .len(),
        0
    );
}
