//! What an operator types, on the controller's side and on a machine: forms of output, labels, watches, host commands.

use std::fs;

use muster_proto::document;
use muster_tests::{
    Controller, Ctl, Process, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process,
};
use rustix::process::Signal;
use serde_json::Value;

const CHECKS: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: load }\nspec:\n  selector: \"*\"\n  \
                      schedule: { interval: 1s }\n  run: { load: { warning: \"1000\" } }\n---\n\
                      apiVersion: muster/v1\nkind: Check\nmetadata: { name: full }\nspec:\n  selector: \"*\"\n  \
                      schedule: { interval: 1s, attempts: 3 }\n  run: { disk: { warning: \"100%\", critical: \"100%\" } }\n";

#[test]
fn every_list_comes_in_every_form_with_data_on_stdout_and_notes_on_stderr() {
    let controller = Controller::start();
    controller.apply(CHECKS);
    let _agent = controller.agent("web-01").start();
    let ctl = controller.ctl();
    poll::until("the checks report", 20 * SECOND, || {
        ctl.state("web-01", "load").and(ctl.state("web-01", "full"))
    });
    poll::until("metrics arrive", 30 * SECOND, || {
        match ctl.items(&["metric", "query", "node_load1"])?.as_slice() {
            [] => Err("no value yet".to_owned()),
            _ => Ok(()),
        }
    });

    let lists: [(&[&str], &str); 4] = [
        (&["agent", "list"], "web-01"),
        (&["state", "list"], "load"),
        (&["policy", "list"], "load"),
        (&["metric", "query", "node_load1"], "node_load1"),
    ];
    for (list, shown) in lists {
        let list = |format| ctl.ok(&[list, &["-o", format]].concat());
        let json: Value = serde_json::from_str(&list("json").stdout).expect("JSON and nothing else");
        assert!(
            json["items"].as_array().is_some_and(|items| !items.is_empty()),
            "{json}"
        );
        assert!(
            json["revision"]
                .as_str()
                .is_some_and(|revision| revision.parse::<u64>().is_ok()),
            "{json}"
        );
        let yaml = document::parse(&list("yaml").stdout).expect("YAML and nothing else");
        // Values move; what there is does not.
        let names = |list: &Value| {
            let items = list["items"].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| item["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&yaml[0].to_json()), names(&json));

        let (table, wide, name) = (list("table"), list("wide"), list("name"));
        assert!(
            table.stdout.contains(shown) && wide.stdout.contains(shown),
            "{table}\n{wide}"
        );
        let header = |text: &str| text.lines().next().unwrap_or_default().split_whitespace().count();
        assert!(header(&wide.stdout) > header(&table.stdout), "{table}\n{wide}");
        assert!(!table.stderr.is_empty(), "{table}");
        assert!(name.stdout.lines().any(|line| line.contains(shown)), "{name}");
        assert!(!name.stdout.contains("  "), "{name}");
    }
}

#[test]
fn an_empty_list_is_an_empty_list() {
    let controller = Controller::start();
    for list in [["agent", "list"], ["state", "list"], ["policy", "list"]] {
        let json = controller.ctl().json(&list);
        assert_eq!(json["items"], serde_json::json!([]), "{json}");
    }
}

#[test]
fn a_problem_becomes_hard_after_its_attempts_and_heads_the_problems() {
    let controller = Controller::start();
    controller.apply(CHECKS);
    let _agent = controller.agent("web-01").start();
    let state = poll::until("the problem is hard", 30 * SECOND, || {
        let state = controller.ctl().state("web-01", "full")?;
        if state["type"] == "STATE_TYPE_HARD" {
            Ok(state)
        } else {
            Err(state.to_string())
        }
    });
    assert_eq!(
        (&state["state"], &state["attempt"]),
        (&"CHECK_STATE_CRITICAL".into(), &3.into()),
        "{state}"
    );
    let problems = controller.ctl().ok(&["state", "list", "--problems"]);
    assert!(
        problems.stdout.contains("3/3 hard") && !problems.stdout.contains("load"),
        "{problems}"
    );
    let agents = controller.ctl().ok(&["agent", "list"]);
    assert!(agents.stdout.contains("1 crit"), "{agents}");
}

#[test]
fn an_operators_label_wins_over_the_tokens_which_wins_over_the_agents() {
    let controller = Controller::start();
    let token = controller.token(&["--label", "env=prod"]);
    let setup = muster_tests::agent::Setup::new("web-01", token)
        .label("env", "claimed")
        .label("zone", "eu");
    let _agent = setup.start();
    let env = |wanted: &str| {
        poll::until(wanted, 10 * SECOND, || {
            let agents = controller
                .ctl()
                .items(&["agent", "list", "-l", &format!("env={wanted},zone=eu")])?;
            if agents.len() == 1 {
                Ok(())
            } else {
                Err(format!("{} agents with env={wanted}", agents.len()))
            }
        });
    };
    env("prod");
    controller.ctl().ok(&["agent", "label", "web-01", "env=test"]);
    env("test");
    controller.ctl().ok(&["agent", "label", "web-01", "env-"]);
    env("prod");
}

#[test]
fn watches_show_what_there_is_and_then_what_changes() {
    let controller = Controller::start();
    controller.apply(CHECKS);
    let _agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    let mut agents = watch(&controller, "agent");
    let mut states = watch(&controller, "state");
    let shows = |watch: &Process, text: &str| {
        if watch.output().contains(text) {
            Ok(())
        } else {
            Err(watch.output())
        }
    };
    poll::until("the watch shows the agent", 10 * SECOND, || shows(&agents, "web-01"));
    controller.ctl().ok(&["agent", "label", "web-01", "new=label"]);
    poll::until("the watch shows its new label", 10 * SECOND, || shows(&agents, "label"));
    poll::until("the watch shows a hard problem", 30 * SECOND, || {
        shows(&states, "STATE_TYPE_HARD")
    });

    for watch in [&mut agents, &mut states] {
        watch.signal(Signal::INT);
        assert_eq!(watch.wait(5 * SECOND).code(), Some(130), "{}", watch.output());
    }
}

#[test]
fn what_policy_get_shows_is_what_apply_takes() {
    let controller = Controller::start();
    controller.apply(CHECKS);
    let shown = controller.ctl().ok(&["policy", "get", "full", "-o", "yaml"]).stdout;
    let again = controller.apply(&shown);
    assert!(again.stdout.contains("unchanged"), "{again}");
    let changed = controller.apply(&shown.replace("100%", "99%"));
    assert!(changed.stdout.contains("updated"), "{changed}");
}

#[test]
fn on_its_machine_an_agent_tells_its_status_facts_and_checks() {
    let controller = Controller::start();
    controller.apply(CHECKS);
    let agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    poll::until("a check reports", 20 * SECOND, || {
        controller.ctl().state("web-01", "load")
    });

    let status = poll::until("the status says that it is connected", 20 * SECOND, || {
        let status: Value =
            serde_json::from_str(&agent.verb(&["status", "-o", "json"]).stdout).map_err(|error| error.to_string())?;
        if status["connection"]["state"] == "connected" {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(status["agent"]["name"], "web-01", "{status}");

    let facts: Value = serde_json::from_str(&agent.verb(&["facts", "-o", "json"]).stdout).expect("JSON");
    let known = controller.ctl().json(&["agent", "get", "web-01"])["facts"].clone();
    assert_eq!(facts["kernel.release"], known["kernel.release"], "{facts}");

    let ok = agent.verb(&["check", "load"]).expect_code(0);
    assert!(ok.stdout.starts_with("LOAD OK"), "{ok}");
    let critical = agent.verb(&["check", "full"]).expect_code(2);
    assert!(critical.stdout.starts_with("DISK CRITICAL"), "{critical}");
    assert_ne!(agent.verb(&["check", "nothing"]).code, 0);
}

#[test]
fn a_hangup_makes_an_agent_read_its_config_again() {
    let controller = Controller::start();
    let mut agent = controller.agent("web-01").label("zone", "eu").start();
    controller.wait_for_agent("web-01", "ONLINE");
    let path = agent.setup().path("agent.yaml");
    let config = fs::read_to_string(&path)
        .expect("the config")
        .replace("\"eu\"", "\"us\"");
    fs::write(&path, config).expect("the config is written");
    agent.process().signal(Signal::HUP);
    poll::until("the new label is known", 20 * SECOND, || {
        let agents = controller.ctl().items(&["agent", "list", "-l", "zone=us"])?;
        if agents.len() == 1 {
            Ok(())
        } else {
            Err(controller.ctl().json(&["agent", "list"]).to_string())
        }
    });
    assert!(agent.process().is_running());
}

#[test]
fn the_context_file_is_found_by_variable_and_at_its_usual_place() {
    let controller = Controller::start();
    let file = controller.path("tester.yaml");
    let musterctl = || {
        let mut command = process::clean_command(binaries::path("musterctl"), &controller.path("home"));
        command.args(["agent", "list"]);
        command
    };
    Outcome::of(musterctl()).expect_code(1).explains();
    let mut by_variable = musterctl();
    by_variable.env("MUSTER_CONFIG", &file);
    Outcome::of(by_variable).expect_code(0);

    let usual = controller.path("home").join(".config/muster");
    fs::create_dir_all(&usual).expect("a directory");
    fs::copy(&file, usual.join("config.yaml")).expect("a copy");
    Outcome::of(musterctl()).expect_code(0);
}

#[test]
fn completion_is_there_for_every_shell() {
    let home = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let script = Ctl::new(home.path().join("none"), home.path()).ok(&["completion", shell]);
        assert!(script.stdout.contains("musterctl"), "{script}");
    }
}

/// `musterctl KIND watch -o json`, which goes on until it is interrupted.
fn watch(controller: &Controller, kind: &str) -> Process {
    let mut command = process::clean_command(binaries::path("musterctl"), "/".as_ref());
    command
        .arg("--config")
        .arg(controller.path("tester.yaml"))
        .args([kind, "watch", "-o", "json"]);
    Process::start(kind, command, controller.path(&format!("{kind}.watch")))
}
