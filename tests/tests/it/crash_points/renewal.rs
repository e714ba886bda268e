//! The agent is killed at the steps of a renewal, or its network is cut. It goes on with the certificate it has or with the one it was given, renews
//! again, and nobody takes it for a copy of itself.

use std::{collections::BTreeSet, fs, thread};

use muster_tests::{
    Agent, Controller, Proxy, ServerYaml,
    agent::Setup,
    poll::{self, SECOND},
    proxy::Fault,
    strace::{Followed, Strace},
};
use serde_json::Value;

use super::assert_no_copies;

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

    assert_well(&controller, agents);
}

/// Bytes after which a connection for a renewal ends: in the handshake, in the request, in the answer, after it.
const CUTS: [Fault; 14] = [
    Fault::CutUp(500),
    Fault::CutUp(1800),
    Fault::CutUp(2600),
    Fault::CutUp(3000),
    Fault::CutUp(3400),
    Fault::CutDown(500),
    Fault::CutDown(1500),
    Fault::CutDown(1900),
    Fault::CutDown(2200),
    Fault::CutDown(2500),
    Fault::CutDown(2800),
    Fault::CutDown(3100),
    Fault::CutDown(3500),
    Fault::CutDown(4000),
];

#[test]
fn a_renewal_whose_network_is_cut_anywhere_comes_with_the_next() {
    let settings = ServerYaml::new().agent_certificates("10s").heartbeat("2s");
    let controller = &Controller::start_with(&settings.to_string());
    let ended: Vec<(Agent, bool)> = thread::scope(|scope| {
        let cut: Vec<_> = CUTS
            .iter()
            .map(|&fault| scope.spawn(move || renewed_in_spite_of(controller, fault)))
            .collect();
        cut.into_iter().map(|it| it.join().expect("no panic")).collect()
    });
    let (agents, was_issued): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    assert!(was_issued.contains(&true), "no answer was lost: {was_issued:?}");
    assert!(was_issued.contains(&false), "no request was lost: {was_issued:?}");
    assert_well(controller, agents);
}

/// An agent whose renewals fail like this until the first of them has. Whether there was a certificate for it.
fn renewed_in_spite_of(controller: &Controller, fault: Fault) -> (Agent, bool) {
    let proxy = Proxy::to(&controller.endpoint());
    let name = format!("{fault:?}");
    let agent = controller.agent(&name).through(&proxy.endpoint()).start();
    poll::until("it is connected", PATIENCE, || {
        let status = agent.status()?;
        match status["connection"]["state"] == "connected" {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    proxy.set(fault);
    poll::until("a renewal has failed, or got through", PATIENCE, || {
        let status = agent.status()?;
        match status["certificate"]["lastError"].is_string() || has_renewed(&status) {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    let list = ["cert", "list", "--agent", &name, "--all"];
    let certificates = controller.ctl().items(&list).expect("certificates").len();
    let was_issued = certificates > 1;
    proxy.set(Fault::Forward);
    poll::until("it is connected and has renewed", PATIENCE, || {
        let status = agent.status()?;
        match status["connection"]["state"] == "connected" && has_renewed(&status) {
            true => Ok(()),
            false => Err(format!("{status}\n{}", agent.log())),
        }
    });
    // The proxy goes: from here on it finds the controller itself.
    let mut agent = agent;
    agent.setup_mut().config["server"]["endpoints"] = serde_json::json!([controller.endpoint()]);
    agent.reload();
    (agent, was_issued)
}

fn has_renewed(status: &Value) -> bool {
    status["certificate"]["renewals"].as_u64().unwrap_or(0) > 0
}

/// They are there, all that they left behind is whole, and none was taken for a copy.
fn assert_well(controller: &Controller, agents: Vec<Agent>) {
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
    assert_no_copies(controller);
}

fn enrolled(controller: &Controller, name: &str) -> Setup {
    let setup = controller.agent(name);
    setup.enroll().expect_code(0);
    setup
}

/// Runs until it is killed, and again until it has renewed its certificate. With what it found of the renewal.
fn killed_and_back(setup: Setup, run: std::process::Command) -> (Agent, Next) {
    let mut process = Followed::start("agent under strace", run, setup.path("killed.log"));
    process.wait(PATIENCE);
    let left = next_of(&setup);
    let agent = setup.start();
    poll::until("it is connected and has renewed", PATIENCE, || {
        let status = agent.status()?;
        match status["connection"]["state"] == "connected" && has_renewed(&status) {
            true => Ok(()),
            false => Err(format!("{status}\n{}", agent.log())),
        }
    });
    (agent, left)
}
