//! The agent is killed at the steps of a renewal. It goes on with the certificate it has or with the one it was given, renews
//! again, and nobody takes it for a copy of itself.

use std::{collections::BTreeSet, fs, thread};

use muster_tests::{
    Agent, Controller, Process, ServerYaml,
    agent::Setup,
    poll::{self, SECOND},
    strace::Strace,
};

const PATIENCE: std::time::Duration = SECOND.saturating_mul(90);

/// What a start and the first renewal do, and the beginning of the second: the files of the new identity, and the
/// connections that ask for it, prove it and use it.
const POINTS: [(&str, usize); 3] = [("fsync", 13), ("fchmod", 6), ("connect", 5)];

/// By its path, the last step: before the new identity takes the place of the old one.
const RENAME: &str = "rename,renameat,renameat2";

/// What `identity.next.pem` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Nothing,
    Key,
    Certificate,
}

fn next_of(setup: &Setup) -> Next {
    match fs::read_to_string(setup.path("state/identity.next.pem")) {
        Err(_) => Next::Nothing,
        Ok(text) if text.contains("CERTIFICATE") => Next::Certificate,
        Ok(_) => Next::Key,
    }
}

#[test]
fn an_agent_killed_at_any_step_of_a_renewal_goes_on_and_is_no_copy_of_itself() {
    let settings = ServerYaml::new().agent_certificates("10s").heartbeat("2s");
    let controller = Controller::start_with(&settings.to_string());
    let Some(strace) = Strace::find(&controller.path("")) else {
        return;
    };
    let (agents, left): (Vec<Agent>, BTreeSet<Next>) = thread::scope(|scope| {
        let mut points = Vec::new();
        for (call, count) in POINTS {
            for nth in 1..=count {
                let setup = enrolled(&controller, &format!("{call}-{nth}"));
                let run = strace.kill(&setup.command(&["run"]), call, nth);
                points.push(scope.spawn(move || killed_and_back(setup, run)));
            }
        }
        let setup = enrolled(&controller, "rename");
        let next = [setup.path("state/identity.next.pem")];
        let run = strace.kill_at_path(&setup.command(&["run"]), RENAME, 1, &next);
        points.push(scope.spawn(move || {
            let (agent, left) = killed_and_back(setup, run);
            assert_eq!(left, Next::Certificate);
            (agent, left)
        }));
        points.into_iter().map(|it| it.join().expect("no panic")).unzip()
    });
    let all = [Next::Nothing, Next::Key, Next::Certificate];
    assert!(left.iter().eq(&all), "{left:?}");

    let ctl = controller.ctl();
    let count = poll::until("all of them are online", PATIENCE, || {
        let all = ctl.items(&["agent", "list"])?;
        match all.iter().find(|it| it["status"] != "AGENT_STATUS_ONLINE") {
            Some(agent) => Err(agent.to_string()),
            None => Ok(all.len()),
        }
    });
    assert_eq!(count, agents.len());
    for mut agent in agents {
        agent.stop();
        let left = fs::read_dir(agent.setup().path("state")).expect("the state directory");
        for entry in left {
            let name = entry.expect("an entry").file_name();
            assert!(!name.to_string_lossy().ends_with(".tmp"), "{name:?}");
        }
    }
    for event in ctl.items(&["event", "list"]).expect("events") {
        let reason = event["reason"].as_str().unwrap_or_default();
        assert!(
            !reason.starts_with("AGENT_CLONE") && reason != "AGENT_SNAPSHOT_RESTORED",
            "{event}"
        );
    }
}

fn enrolled(controller: &Controller, name: &str) -> Setup {
    let setup = controller.agent(name);
    setup.enroll().expect_code(0);
    setup
}

/// Runs until it is killed, and again until it has renewed its certificate. With what it found of the renewal.
fn killed_and_back(setup: Setup, run: std::process::Command) -> (Agent, Next) {
    let mut process = Process::start("agent under strace", run, setup.path("killed.log"));
    let status = process.wait(PATIENCE);
    assert_eq!(status.code(), None, "it was not killed:\n{}", process.output());
    let left = next_of(&setup);
    let agent = setup.start();
    poll::until("it is connected and has renewed", PATIENCE, || {
        let status = agent.status()?;
        let renewals = status["certificate"]["renewals"].as_u64().unwrap_or(0);
        match status["connection"]["state"] == "connected" && renewals > 0 {
            true => Ok(()),
            false => Err(format!("{status}\n{}", agent.log())),
        }
    });
    (agent, left)
}
