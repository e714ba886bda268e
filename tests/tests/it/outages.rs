//! What is recorded while nobody listens: it waits on disk, over every end of the agent, and is there once in the end.

use std::fs;

use muster_tests::{
    Agent, Controller, Proxy, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process,
    proxy::Fault,
    turn,
};
use serde_json::Value;

use super::counting;

const FILE: &str = "host";

fn runs(controller: &Controller, more: u64) {
    let before = counting::runs(controller, FILE);
    poll::until("checks run", 30 * SECOND, || {
        let now = counting::runs(controller, FILE);
        if now >= before + more { Ok(()) } else { Err(now) }
    });
}

/// Until nothing waits any longer.
fn delivered(agent: &Agent) {
    poll::until("all that waited is stored", 40 * SECOND, || {
        let status = agent.status()?;
        let waiting = counting::results(&status, "records");
        let connected = status["connection"]["state"] == "connected";
        if connected && waiting <= 1 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
}

#[test]
fn results_of_an_outage_survive_kills_of_the_agent_and_are_stored_once() {
    let mut controller = Controller::start();
    counting::apply(&controller, FILE);
    let mut agent = controller.agent("host").start();
    runs(&controller, 2);
    controller.stop();
    let mut kills = 0;
    for _ in 0..3 {
        runs(&controller, 3);
        agent.kill();
        kills += 1;
        agent.run();
    }
    runs(&controller, 2);
    agent.stop();
    agent.run();
    controller.run();
    delivered(&agent);
    agent.stop();
    let id = agent.id().expect("an id");
    let stored = counting::stored(&controller, &id);
    let mut once = stored.clone();
    once.dedup();
    assert_eq!(stored, once, "nothing is there twice");
    // A run that its agent's end has cut off has no result.
    let made = counting::runs(&controller, FILE);
    let missing = made - stored.len() as u64;
    assert!(missing <= kills + 2, "{missing} of {made} are missing: {stored:?}");
}

#[test]
fn what_waits_is_sent_by_an_agent_that_starts_where_nothing_can_be_written() {
    let mut controller = Controller::start();
    counting::apply(&controller, FILE);
    let mut agent = controller.agent("host").start();
    runs(&controller, 2);
    controller.stop();
    runs(&controller, 6);
    agent.stop();
    // The count of its starts cannot be written.
    let generation = agent.setup().path("state/generation");
    fs::remove_file(&generation).expect("removed");
    fs::create_dir(&generation).expect("a directory");
    agent.run();
    controller.run();
    delivered(&agent);
    agent.stop();
    let stored = counting::stored(&controller, &agent.id().expect("an id"));
    let made = counting::runs(&controller, FILE);
    let missing = made - stored.len() as u64;
    assert!(missing <= 2, "{missing} of {made} are missing: {stored:?}");
}

#[test]
fn a_record_survives_whatever_kills_its_process_right_after_it() {
    let _turn = turn::of_heavy_tests();
    let mut command = process::clean_command(binaries::path("spool-kills"), std::path::Path::new("/"));
    command.arg("60");
    let outcome = Outcome::of(command).expect_code(0);
    let figures: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert!(figures["records"].as_u64() > Some(1_000), "{figures}");
}

#[test]
fn a_link_that_carries_nothing_is_left_and_another_one_is_made() {
    let controller = Controller::start();
    let proxy = Proxy::to(&controller.endpoint());
    let agent = controller.agent("host").through(&proxy.endpoint()).start();
    controller.wait_for_agent("host", "ONLINE");
    proxy.set(Fault::Stall);
    poll::until("the agent gives the link up", 60 * SECOND, || {
        let status = agent.status()?;
        if status["connection"]["state"] == "connecting" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    proxy.set(Fault::Forward);
    controller.wait_for_agent("host", "ONLINE");
}

#[test]
fn what_waits_is_of_this_agent_alone_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let controller = Controller::start();
    let agent = controller.agent("host").start();
    controller.wait_for_agent("host", "ONLINE");
    let queue = agent.setup().path("state/queue");
    let own = queue.join(agent.id().expect("an id"));
    for dir in [&queue, &own, &own.join("results"), &own.join("metrics")] {
        let mode = fs::metadata(dir).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
    }
    let files = poll::until("metrics are on disk", 20 * SECOND, || {
        let files: Vec<_> = fs::read_dir(own.join("metrics"))
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        if files.is_empty() { Err("not yet") } else { Ok(files) }
    });
    for file in files {
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
    }
}

#[test]
fn a_full_disk_leaves_checks_running_and_their_results_arriving() {
    let controller = Controller::start();
    counting::apply(&controller, FILE);
    let setup = controller.agent("host");
    // Where the queue should be made, something else is.
    let state = setup.path("state");
    fs::create_dir(&state).expect("a directory");
    fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    fs::write(state.join("queue"), "in the way").expect("a file");
    let agent = setup.start();
    runs(&controller, 3);
    delivered(&agent);
    let status = agent.status().expect("a status");
    let queues = status["queues"].as_array().expect("queues");
    assert!(queues.iter().all(|queue| queue["inMemory"] != Value::Null), "{status}");
    let id = agent.id().expect("an id");
    assert!(counting::stored(&controller, &id).len() >= 2);
}
