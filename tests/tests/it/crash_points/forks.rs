//! A copy of a machine is killed at the steps of becoming an agent of its own. It becomes one, and only one, and the original
//! notices nothing.

use std::{collections::BTreeSet, fs, thread};

use muster_certs::identity_file::IdentityFile;
use muster_tests::{
    Agent, Controller, ServerYaml,
    agent::Setup,
    poll::{self, SECOND},
    strace::{Followed, Strace},
};
use serde_json::json;

use crate::clones;

const PATIENCE: std::time::Duration = SECOND.saturating_mul(90);

/// All that is done from the start to the fork, by the files and the connections of it; the link of the new agent comes last.
const POINTS: [(&str, usize); 3] = [("fsync", 12), ("fchmod", 6), ("connect", 3)];
/// What is removed of a fork, and of what was before it.
const REMOVALS: (&str, usize) = ("unlink,unlinkat", 4);
const REMOVED: [&str; 3] = ["state/fork-id", "state/fork.key.pem", "state/identity.next.pem"];

/// How far a fork has come on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    NotBegun,
    HasId,
    HasKey,
    HasIdentity,
    /// And the file that names the machine says so.
    IsNamed,
}

impl Stage {
    const ALL: [Stage; 5] = [
        Stage::NotBegun,
        Stage::HasId,
        Stage::HasKey,
        Stage::HasIdentity,
        Stage::IsNamed,
    ];
}

fn stage_of(copy: &Setup) -> Stage {
    let text = |name: &str| fs::read_to_string(copy.path(name)).unwrap_or_default();
    let id = text("state/fork-id");
    if id.is_empty() {
        return Stage::NotBegun;
    }
    let identity = IdentityFile::load(&copy.path("state/identity.pem")).expect("an identity");
    if text("agent-id") == id {
        Stage::IsNamed
    } else if identity.identity().to_string().contains(id.trim()) {
        Stage::HasIdentity
    } else if copy.path("state/fork.key.pem").exists() {
        Stage::HasKey
    } else {
        Stage::HasId
    }
}

#[test]
fn a_copy_killed_at_any_step_of_its_fork_becomes_one_agent_of_its_own() {
    let settings = ServerYaml::new().heartbeat("2s").on_clone("fork");
    let controller = Controller::start_with(&settings.to_string());
    let Some(strace) = Strace::find(&controller.path("")) else {
        return;
    };
    let original = clones::original(&controller, "original");
    let session = clones::session(&controller, "original");
    let (agents, stages): (Vec<Agent>, BTreeSet<Stage>) = thread::scope(|scope| {
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
        points.into_iter().map(|it| it.join().expect("no panic")).unzip()
    });
    assert!(stages.iter().eq(&Stage::ALL), "{stages:?}");

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

/// Runs until it is killed, and again until it is an agent. With how far it had come.
fn killed_and_back(copy: Setup, run: std::process::Command) -> (Agent, Stage) {
    let of_the_copy = fs::read_to_string(copy.path("agent-id")).expect("an id");
    let mut process = Followed::start("copy under strace", run, copy.path("killed.log"));
    process.wait(PATIENCE);
    let stage = stage_of(&copy);
    let agent = copy.start();
    poll::until("it is an agent of its own", PATIENCE, || {
        let status = agent.status()?;
        let is_another = status["agent"]["id"] != json!(of_the_copy.trim());
        match status["connection"]["state"] == "connected" && is_another {
            true => Ok(()),
            false => Err(format!("{status}\n{}", agent.log())),
        }
    });
    (agent, stage)
}
