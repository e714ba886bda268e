//! The three binaries as in production: set up, enrolled and started by hand, killed and started again.

use std::{collections::BTreeMap, fs};

use muster_tests::{
    Agent, Controller, Process, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process,
};
use serde_json::Value;

const NAMES: [&str; 3] = ["web-01", "web-02", "db-01"];

/// A check whose output counts its runs, so that a result that is lost or comes twice can be seen.
fn counting(controller: &Controller) -> String {
    let script = controller.path("count.sh");
    fs::write(
        &script,
        "#!/bin/sh\necho run >> \"$1\"\necho \"run $(wc -l < \"$1\") of $1\"\n",
    )
    .expect("the script is written");
    make_executable(&script);
    let script = script.display();
    let counter = controller.path("runs");
    let counter = counter.display();
    format!(
        "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: counter }}\nspec:\n  selector: \"name-of=web\"\n  \
         schedule: {{ interval: 1s }}\n  run: {{ command: [{script}, {counter}] }}\n---\n\
         apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: load }}\nspec:\n  selector: \"*\"\n  \
         schedule: {{ interval: 1s }}\n  run: {{ load: {{ warning: \"1000\", critical: \"2000\" }} }}\n"
    )
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the mode is set");
}

/// Agents enrolled by hand, one verb after the other.
fn three_agents(controller: &Controller) -> Vec<Agent> {
    let token = controller.token(&["--uses", "3", "--label", "env=prod"]);
    NAMES
        .iter()
        .map(|name| {
            let setup = muster_tests::agent::Setup::new(name, token.clone());
            setup.enroll().expect_code(0);
            assert!(setup.path("state/identity.pem").is_file());
            assert!(
                !setup.path("join-token").exists(),
                "the token file is still there after it was used"
            );
            setup.start()
        })
        .collect()
}

#[test]
fn agents_survive_a_killed_controller_and_nothing_acknowledged_is_lost() {
    let mut controller = Controller::start();
    controller.apply(&counting(&controller));
    let mut agents = three_agents(&controller);
    for name in NAMES {
        controller.wait_for_agent(name, "ONLINE");
    }
    controller.ctl().ok(&["agent", "label", "web-01", "name-of=web"]);
    poll::until("the counting check reports", 20 * SECOND, || {
        controller.ctl().state("web-01", "counter")
    });

    for round in 1..=3 {
        let before = states(&controller);
        assert!(before.len() >= 4, "{before:?}");
        let inventory = inventory(&controller);
        let revision = revision(&controller);
        controller.kill();
        controller.launch();

        // Everything that an operator could see is there from the first answer on, and nobody is called offline.
        poll::until("the controller answers again", 20 * SECOND, || {
            controller.ctl().items(&["agent", "list"])
        });
        assert_nothing_lost(&before, &states(&controller));
        assert_eq!(inventory, self::inventory(&controller), "round {round}");
        assert!(self::revision(&controller) >= revision, "the revision went back");
        poll::until("everybody is online again", 70 * SECOND, || {
            let agents = controller.ctl().items(&["agent", "list"])?;
            for agent in &agents {
                assert_ne!(agent["status"], "AGENT_STATUS_OFFLINE", "falsely offline: {agent}");
            }
            let waiting: Vec<&Value> = agents.iter().filter(|agent| !is_online(agent)).collect();
            if waiting.is_empty() {
                Ok(())
            } else {
                Err(format!("{waiting:?}"))
            }
        });
        // Results made while the controller was away arrive, and new ones after them.
        poll::until("results come in again", 30 * SECOND, || {
            let now = states(&controller);
            let behind: Vec<_> = before
                .iter()
                .filter(|(key, state)| last_run(&now[*key]) <= last_run(state))
                .collect();
            if behind.is_empty() {
                Ok(())
            } else {
                Err(format!("{behind:?}"))
            }
        });
    }
    for agent in &mut agents {
        assert!(agent.process().is_running(), "an agent has ended:\n{}", agent.log());
    }
}

#[test]
fn states_of_a_stopped_agent_are_unreachable_and_never_plain_ok() {
    let controller = Controller::start();
    controller.apply(&counting(&controller));
    let mut agent = controller.agent("web-01").start();
    let state = poll::until("the check reports", 20 * SECOND, || {
        controller.ctl().state("web-01", "load")
    });
    assert_eq!(
        (&state["state"], &state["freshness"]),
        (&"CHECK_STATE_OK".into(), &"FRESHNESS_FRESH".into())
    );

    agent.stop();
    let offline = controller.wait_for_agent("web-01", "OFFLINE");
    assert_eq!(offline["statusReason"], "goodbye", "{offline}");
    assert_eq!(offline["problems"]["unreachable"], 1, "{offline}");

    let state = controller.ctl().state("web-01", "load").expect("the state is kept");
    assert_eq!(state["freshness"], "FRESHNESS_UNREACHABLE", "{state}");
    assert_eq!(
        (&state["state"], &state["lastState"]),
        (&"CHECK_STATE_UNKNOWN".into(), &"CHECK_STATE_OK".into()),
        "{state}"
    );
    assert!(
        state["note"]
            .as_str()
            .is_some_and(|note| note.contains("offline since")),
        "{state}"
    );
    let table = controller.ctl().ok(&["state", "list"]).stdout;
    assert!(table.contains("unreachable (was OK)"), "{table}");
    let problems = controller
        .ctl()
        .items(&["state", "list", "--problems"])
        .expect("a list");
    assert_eq!(problems.len(), 1, "{problems:?}");

    agent.run();
    controller.wait_for_agent("web-01", "ONLINE");
    poll::until("the state is fresh again", 20 * SECOND, || {
        let state = controller.ctl().state("web-01", "load")?;
        if state["freshness"] == "FRESHNESS_FRESH" {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
}

#[test]
fn an_agent_that_is_killed_is_noticed_and_comes_back_as_the_same_agent() {
    // Offline is four heartbeats without a sign of life.
    let controller = Controller::start_with("link: { heartbeat: 1s }");
    let mut agent = controller.agent("web-01").start();
    let before = controller.wait_for_agent("web-01", "ONLINE");
    agent.kill();
    controller.wait_for_agent("web-01", "OFFLINE");
    agent.run();
    let after = controller.wait_for_agent("web-01", "ONLINE");
    assert_eq!(
        (&before["id"], &before["certificate"]),
        (&after["id"], &after["certificate"])
    );
    assert_eq!(controller.ctl().items(&["agent", "list"]).expect("a list").len(), 1);
}

#[test]
fn an_agent_works_on_with_the_policies_on_its_disk_while_the_controller_is_away() {
    let mut controller = Controller::start();
    controller.apply(&counting(&controller));
    let mut agent = controller.agent("web-01").label("name-of", "web").start();
    poll::until("the check reports", 20 * SECOND, || {
        controller.ctl().state("web-01", "counter")
    });
    agent.stop();
    controller.stop();

    let runs = || {
        fs::read_to_string(controller.path("runs"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let before = runs();
    agent.run();
    poll::until("the check runs without a controller", 20 * SECOND, || {
        if runs() > before + 1 {
            Ok(())
        } else {
            Err(format!("{} runs, as before", runs()))
        }
    });
    let alone = runs();

    controller.run();
    poll::until("what was found meanwhile arrives", 70 * SECOND, || {
        let state = controller.ctl().state("web-01", "counter")?;
        let output = state["output"].as_str().unwrap_or_default().to_owned();
        let run: usize = output.split(' ').nth(1).and_then(|run| run.parse().ok()).unwrap_or(0);
        if run >= alone { Ok(()) } else { Err(output) }
    });
}

#[test]
fn an_agent_needs_no_config_file_and_its_token_no_file() {
    let controller = Controller::start();
    let token = controller.token(&["--uses", "1"]);
    let agent = |arguments: &[&str]| {
        let mut command = process::clean_command(binaries::path("muster-agent"), &controller.path(""));
        command.args(arguments).arg("--state-dir").arg(controller.path("state"));
        command
    };
    let mut enroll = agent(&[
        "enroll",
        "--server",
        &token.endpoint,
        "--ca-pin",
        &token.pin,
        "--name",
        "bare",
    ]);
    enroll
        .arg("--id-file")
        .arg(controller.path("agent-id"))
        .env("MUSTER_TOKEN", &token.secret);
    Outcome::of(enroll).expect_code(0);

    let mut running = Process::start("agent", agent(&["run"]), controller.path("agent.log"));
    controller.wait_for_agent("bare", "ONLINE");
    assert!(running.stop().success(), "{}", running.output());
}

#[test]
fn a_second_admin_can_be_made_on_the_host_while_the_controller_runs() {
    let controller = Controller::start();
    controller.create_admin("second", "second.yaml").expect_code(0);
    let agents = controller
        .ctl_as("second.yaml")
        .items(&["agent", "list"])
        .expect("the second admin is let in");
    assert!(agents.is_empty());
}

#[test]
fn a_change_is_with_all_connected_agents_at_once() {
    let controller = Controller::start();
    let _agents = three_agents(&controller);
    for name in NAMES {
        controller.wait_for_agent(name, "ONLINE");
    }
    controller.apply(&counting(&controller));
    // Within a second, by itself; the rest is for a machine that is busy with other tests.
    poll::until("all three have the policy", 2 * SECOND, || {
        let agents = controller.ctl().items(&["agent", "list"])?;
        let have_it = agents.iter().filter(|agent| agent["policies"]["applied"] == 1).count();
        if have_it == 3 {
            Ok(())
        } else {
            Err(format!("{agents:?}"))
        }
    });
}

#[test]
fn a_policy_reaches_the_agents_whose_labels_match_and_leaves_when_they_no_longer_do() {
    let controller = Controller::start();
    let _web = controller.agent("web-01").start();
    let _db = controller.agent("db-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    controller.wait_for_agent("db-01", "ONLINE");
    controller.apply(&counting(&controller));
    poll::until("both report load", 20 * SECOND, || {
        controller.ctl().state("web-01", "load")?;
        controller.ctl().state("db-01", "load")
    });
    assert!(controller.ctl().state("web-01", "counter").is_err());

    controller.ctl().ok(&["agent", "label", "web-01", "name-of=web"]);
    poll::until("the label brings the policy", 20 * SECOND, || {
        controller.ctl().state("web-01", "counter")
    });
    controller.ctl().ok(&["agent", "label", "web-01", "name-of-"]);
    poll::until("the policy leaves with the label", 20 * SECOND, || {
        let states = controller.ctl().items(&["state", "list", "--agent", "web-01"])?;
        if states.iter().any(|state| state["check"] == "counter") {
            Err(format!("{states:?}"))
        } else {
            Ok(())
        }
    });

    controller.ctl().ok(&["policy", "delete", "load"]);
    poll::until("a deleted policy has no states", 20 * SECOND, || {
        let states = controller.ctl().items(&["state", "list"])?;
        if states.is_empty() {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    });
}

type States = BTreeMap<(String, String), Value>;

fn states(controller: &Controller) -> States {
    let items = controller.ctl().items(&["state", "list"]).expect("states are listed");
    let key = |state: &Value, field: &str| state[field].as_str().expect("a name").to_owned();
    items
        .into_iter()
        .map(|state| ((key(&state, "agentName"), key(&state, "check")), state))
        .collect()
}

/// What does not change by itself: who is there, with which labels, and which policies there are.
fn inventory(controller: &Controller) -> (Vec<[Value; 3]>, Vec<Value>) {
    let agents = controller.ctl().items(&["agent", "list"]).expect("agents are listed");
    let policies = controller
        .ctl()
        .items(&["policy", "list"])
        .expect("policies are listed");
    (
        agents
            .iter()
            .map(|agent| [agent["id"].clone(), agent["name"].clone(), agent["labels"].clone()])
            .collect(),
        policies.iter().map(|policy| policy["metadata"].clone()).collect(),
    )
}

fn revision(controller: &Controller) -> u64 {
    let list = controller.ctl().json(&["agent", "list"]);
    list["revision"]
        .as_str()
        .and_then(|revision| revision.parse().ok())
        .unwrap_or_else(|| panic!("no revision in {list}"))
}

fn is_online(agent: &Value) -> bool {
    agent["status"] == "AGENT_STATUS_ONLINE" && agent["statusUnconfirmed"] != true
}

/// An RFC 3339 time in UTC; these order as texts as long as they have the same number of digits.
fn last_run(state: &Value) -> String {
    let time = state["lastRun"].as_str().unwrap_or_default().trim_end_matches('Z');
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<9}")
}

#[track_caller]
fn assert_nothing_lost(before: &States, after: &States) {
    for (key, state) in before {
        let now = after.get(key).unwrap_or_else(|| panic!("{key:?} is gone"));
        assert!(
            last_run(now) >= last_run(state),
            "an acknowledged result is lost:\nbefore {state}\nafter {now}"
        );
        if last_run(now) == last_run(state) {
            for field in ["state", "type", "attempt", "output", "perfdata", "version"] {
                assert_eq!(now[field], state[field], "{key:?} {field}");
            }
        }
    }
}

#[test]
fn a_sealed_machine_is_a_new_one_that_keeps_its_configuration() {
    let controller = Controller::start();
    let mut agent = controller.agent("golden").start();
    controller.wait_for_agent("golden", "ONLINE");
    let before = agent.id().expect("an id");
    agent
        .verb(&["seal"])
        .expect_code(8)
        .says(&["running", "systemctl stop muster-agent"])
        .explains();
    agent.stop();
    let would = agent.verb(&["seal", "--dry-run"]).expect_code(0);
    assert!(would.stdout.contains("identity.pem"), "{would}");
    assert_eq!(agent.id().as_ref(), Ok(&before), "a dry run removes nothing");
    let sealed = agent.verb(&["seal"]).expect_code(0);
    for name in ["identity.pem", "agent-id", "trust.json", "generation"] {
        assert!(sealed.stdout.contains(name), "{name} is not told: {sealed}");
    }
    let left: Vec<_> = fs::read_dir(agent.setup().path("state"))
        .expect("a directory")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(agent.setup().path("agent.yaml").exists());
    agent.verb(&["seal"]).expect_code(0);

    agent.setup().write_token(&controller.token(&[]).secret);
    agent.run();
    poll::until("the machine enrolls as a new one", 20 * SECOND, || {
        let agents = controller.ctl().items(&["agent", "list"])?;
        let is_new = |it: &&Value| it["id"] != before.as_str() && it["status"] == "AGENT_STATUS_ONLINE";
        match agents.iter().find(is_new) {
            Some(_) if agents.len() == 2 => Ok(()),
            _ => Err(format!("{agents:?}")),
        }
    });
}
