//! Agents that fall silent and checks that report no more: never shown as what they last were.

use std::{fs, os::unix::fs::PermissionsExt as _};

use muster_tests::{
    Controller,
    poll::{self, SECOND},
};
use rustix::process::Signal;
use serde_json::json;

const EVERY_SECOND: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: load }\nspec:\n  selector: \"*\"\n  \
                            schedule: { interval: 1s }\n  run: { load: { warning: \"1000\" } }\n";

#[test]
fn an_agent_that_freezes_is_late_then_offline_then_back() {
    let controller = Controller::start_with("link: { heartbeat: 2s }");
    controller.apply(EVERY_SECOND);
    let mut agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    poll::until("the check reports", 20 * SECOND, || {
        controller.ctl().state("web-01", "load")
    });

    agent.process().signal(Signal::STOP);
    let late = controller.wait_for_agent("web-01", "LATE");
    assert_eq!(late["statusReason"], "silent", "{late}");
    let offline = controller.wait_for_agent("web-01", "OFFLINE");
    assert_eq!(offline["statusReason"], "silent", "{offline}");
    let state = controller.ctl().state("web-01", "load").expect("a state");
    assert_eq!(state["freshness"], "FRESHNESS_UNREACHABLE", "{state}");

    agent.process().signal(Signal::CONT);
    poll::until("the agent is back", 70 * SECOND, || {
        controller.ctl().agent_is("web-01", "ONLINE")
    });
    poll::until("its state is fresh", 20 * SECOND, || {
        let state = controller.ctl().state("web-01", "load")?;
        if state["freshness"] == "FRESHNESS_FRESH" {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
}

#[test]
fn how_an_agent_went_is_told_with_every_change_of_its_status() {
    let controller = Controller::start_with("link: { heartbeat: 1s }");
    let mut agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    agent.kill();
    let offline = controller.wait_for_agent("web-01", "OFFLINE");
    assert_eq!(offline["statusReason"], "eof", "{offline}");
    agent.run();
    controller.wait_for_agent("web-01", "ONLINE");
    agent.stop();
    let offline = controller.wait_for_agent("web-01", "OFFLINE");
    assert_eq!(offline["statusReason"], "goodbye", "{offline}");

    let told = || -> Vec<String> {
        let events = super::drain::transitions(&controller);
        let text = |event: &serde_json::Value| {
            let reason = event["metadata"]["reason"].as_str().unwrap_or_default();
            format!("{} {reason}", event["reason"].as_str().unwrap_or_default())
        };
        events.iter().rev().map(text).collect()
    };
    let expected = [
        "AGENT_ONLINE connected",
        "AGENT_LATE eof",
        "AGENT_OFFLINE eof",
        "AGENT_ONLINE connected",
        "AGENT_OFFLINE goodbye",
    ];
    poll::until("all of it is told", 20 * SECOND, || {
        let told = told();
        if told == expected {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
}

#[test]
fn a_check_that_reports_no_more_is_stale_though_its_agent_is_online() {
    let controller = Controller::start();
    controller.apply(EVERY_SECOND);
    let mut setup = controller.agent("web-01");
    // One place to run checks, which a slow one then occupies.
    setup.config["checks"] = json!({ "max_concurrent": 1 });
    let _agent = setup.start();
    poll::until("the check reports", 20 * SECOND, || {
        controller.ctl().state("web-01", "load")
    });

    let (script, block) = (controller.path("slow.sh"), controller.path("block"));
    fs::write(&block, "").expect("the file is written");
    fs::write(
        &script,
        "#!/bin/sh\nwhile [ -e \"$1\" ]; do sleep 0.1; done\necho OK - let go\n",
    )
    .expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the mode is set");
    controller.apply(
        &json!({
            "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": "slow" },
            "spec": {
                "selector": "*", "schedule": { "interval": "1h" }, "timeout": "1h", "run": { "command": [script, block] },
            },
        })
        .to_string(),
    );
    let state = poll::until("the state is stale", 30 * SECOND, || {
        let state = controller.ctl().state("web-01", "load")?;
        if state["freshness"] == "FRESHNESS_STALE" {
            Ok(state)
        } else {
            Err(state.to_string())
        }
    });
    assert_eq!(
        (&state["state"], &state["lastState"]),
        (&"CHECK_STATE_UNKNOWN".into(), &"CHECK_STATE_OK".into())
    );
    assert!(
        state["note"]
            .as_str()
            .is_some_and(|note| note.starts_with("no result for")),
        "{state}"
    );
    let table = controller.ctl().ok(&["state", "list", "--problems"]).stdout;
    assert!(table.contains("stale (was OK)"), "{table}");
    controller
        .ctl()
        .agent_is("web-01", "ONLINE")
        .expect("the agent itself is well");

    fs::remove_file(&block).expect("the file is removed");
    poll::until("the state is fresh again", 20 * SECOND, || {
        let state = controller.ctl().state("web-01", "load")?;
        if state["freshness"] == "FRESHNESS_FRESH" {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
}
