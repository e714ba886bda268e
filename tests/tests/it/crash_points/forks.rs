//! A copy of a machine is killed at the steps of becoming an agent of its own. It becomes one, and only one, and the original
//! notices nothing.

use std::{collections::BTreeSet, fs, thread};

use muster_tests::{
    Agent, Controller, Process, ServerYaml,
    agent::Setup,
    poll::{self, SECOND},
    strace::Strace,
};
use serde_json::json;

use crate::clones;

const PATIENCE: std::time::Duration = SECOND.saturating_mul(90);

/// All that is done from the start to the fork, by the files and the connections of it; the link of the new agent comes last.
const POINTS: [(&str, usize); 3] = [("fsync", 10), ("fchmod", 5), ("connect", 3)];
/// What is removed of a fork, and of what was before it.
const REMOVALS: (&str, usize) = ("unlink,unlinkat", 4);
const REMOVED: [&str; 3] = ["state/fork-id", "state/fork.key.pem", "state/identity.next.pem"];

#[test]
fn a_copy_killed_at_any_step_of_its_fork_becomes_one_agent_of_its_own() {
    let settings = ServerYaml::new().heartbeat("2s").on_clone("fork");
    let controller = Controller::start_with(&settings.to_string());
    let Some(strace) = Strace::find(&controller.path("")) else {
        return;
    };
    let original = clones::original(&controller, "original");
    let session = clones::session(&controller, "original");
    let agents: Vec<Agent> = thread::scope(|scope| {
        let mut points = Vec::new();
        for (call, count) in POINTS {
            for nth in 1..=count {
                let copy = clones::copy_of(original.setup(), &controller, &format!("{call}-{nth}"));
                let run = strace.kill(&copy.command(&["run"]), call, nth);
                points.push(scope.spawn(move || killed_and_back(copy, run)));
            }
        }
        let (calls, count) = REMOVALS;
        for nth in 1..=count {
            let copy = clones::copy_of(original.setup(), &controller, &format!("removal-{nth}"));
            let paths = REMOVED.map(|it| copy.path(it));
            let run = strace.kill_at_path(&copy.command(&["run"]), calls, nth, &paths);
            points.push(scope.spawn(move || killed_and_back(copy, run)));
        }
        points.into_iter().map(|it| it.join().expect("no panic")).collect()
    });

    let all = poll::until("all of them are online", PATIENCE, || {
        let all = controller.ctl().items(&["agent", "list"])?;
        match all.iter().find(|it| it["status"] != "AGENT_STATUS_ONLINE") {
            Some(agent) => Err(agent.to_string()),
            None => Ok(all),
        }
    });
    let ids: BTreeSet<_> = all.iter().map(|it| it["id"].to_string()).collect();
    assert_eq!(ids.len(), agents.len() + 1, "{all:#?}");
    for agent in &agents {
        let (name, id) = (&agent.setup().config["agent"]["name"], agent.id().expect("an id"));
        let found: Vec<_> = all.iter().filter(|it| it["name"] == *name).collect();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0]["id"], json!(id), "{name}");
        let left = fs::read_dir(agent.setup().path("state")).expect("the state directory");
        for entry in left {
            let name = entry.expect("an entry").file_name();
            assert!(!name.to_string_lossy().contains("fork"), "{name:?}");
        }
    }
    assert_eq!(
        controller.ctl().events("AGENT_FORKED").expect("events").len(),
        agents.len()
    );
    clones::is_undisturbed(&controller, "original", &session).expect("the original is well");
}

/// Runs until it is killed, and again until it is an agent.
fn killed_and_back(copy: Setup, run: std::process::Command) -> Agent {
    let of_the_copy = fs::read_to_string(copy.path("agent-id")).expect("an id");
    let mut process = Process::start("copy under strace", run, copy.path("killed.log"));
    let status = process.wait(PATIENCE);
    assert_eq!(status.code(), None, "it was not killed:\n{}", process.output());
    let agent = copy.start();
    poll::until("it is an agent of its own", PATIENCE, || {
        let status = agent.status()?;
        let is_another = status["agent"]["id"] != json!(of_the_copy.trim());
        match status["connection"]["state"] == "connected" && is_another {
            true => Ok(()),
            false => Err(format!("{status}\n{}", agent.log())),
        }
    });
    agent
}
