//! What people and programs get wrong: each mistake is named with what, why and do, has its code, and changes nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use muster_tests::{
    Agent, Controller,
    agent::Setup,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

// Enrollment

#[test]
fn a_wrong_pin_ends_the_enrollment_before_the_token_is_sent() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    let right = setup.config["server"]["ca_pin"][0].clone();
    let wrong = format!("sha256:{}", "ab".repeat(32));
    setup.config["server"]["ca_pin"] = json!([wrong]);
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    // Both: what was expected and what was found, so that they can be compared.
    outcome.explains().says(&[&wrong, right.as_str().expect("a pin")]);
    assert_not_enrolled(&controller, &setup);

    // The token was neither shown nor used up.
    setup.config["server"]["ca_pin"] = json!([right]);
    setup.enroll().expect_code(0);
}

#[test]
fn a_wrong_token_is_refused() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    let right = fs::read_to_string(setup.path("join-token")).expect("the token");
    let (id, secret) = right.rsplit_once('_').expect("a token has an id and a secret");
    let flipped: String = secret.chars().rev().collect();
    setup.write_token(&format!("{id}_{flipped}"));
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(
        !outcome.stderr.contains(&flipped),
        "the token is in the message:\n{outcome}"
    );
    outcome.explains().says(&["UNAUTHENTICATED", "TOKEN_INVALID"]);
    assert_not_enrolled(&controller, &setup);
}

#[test]
fn a_token_file_that_holds_no_token_is_refused_without_asking_the_controller() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    setup.write_token("hunter2");
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(
        !outcome.stderr.contains("hunter2"),
        "what might be a secret is in the message:\n{outcome}"
    );
    outcome.explains().says(&["join-token"]);
}

#[test]
fn a_token_that_is_used_up_is_refused() {
    let controller = Controller::start();
    let token = controller.token(&["--uses", "1"]);
    Setup::new("web-01", token.clone()).enroll().expect_code(0);
    let second = Setup::new("web-02", token);
    let outcome = second.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["UNAUTHENTICATED", "TOKEN_INVALID"]);
    assert_eq!(names(&controller), ["web-01"]);
    assert!(!second.path("state/identity.pem").exists());
}

#[test]
fn an_expired_token_is_refused() {
    let controller = Controller::start();
    let made = controller.ctl().json(&["token", "create", "--ttl", "1m"]);
    let end = made["token"]["expireTime"].as_str().expect("a time").to_owned();
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let setup = controller.agent("web-01");
    setup.write_token(&secret);
    // A minute is the shortest life of a token.
    poll::until("the token expires", 75 * SECOND, || {
        let now = controller.ctl().json(&["token", "create", "--ttl", "1m"])["token"]["createTime"].clone();
        if now.as_str() > Some(end.as_str()) {
            Ok(())
        } else {
            Err(format!("{now} is before {end}"))
        }
    });
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["UNAUTHENTICATED", "TOKEN_INVALID"]);
    assert_not_enrolled(&controller, &setup);
}

#[test]
fn an_id_file_without_a_uuid_is_an_error_and_not_replaced() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    setup.write("agent-id", "web-01\n");
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["agent-id", "UUID"]);
    assert_eq!(
        fs::read_to_string(setup.path("agent-id")).expect("the file"),
        "web-01\n"
    );
    assert_not_enrolled(&controller, &setup);
}

#[test]
fn an_id_that_is_enrolled_already_is_refused_and_uses_no_token_up() {
    let controller = Controller::start();
    let token = controller.token(&["--uses", "2"]);
    let first = Setup::new("web-01", token.clone());
    let id = "7D0C51C2-9F0E-4B57-A3A1-5E1F0C7B8D21";
    first.write("agent-id", id);
    first.enroll().expect_code(0);

    let second = Setup::new("web-02", token.clone());
    second.write("agent-id", id);
    let outcome = second.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome
        .explains()
        .says(&["ALREADY_EXISTS", &id.to_lowercase(), "agent-id"]);
    assert_eq!(names(&controller), ["web-01"]);
    assert!(
        second.path("join-token").exists(),
        "the token file is gone, though it was not used"
    );

    let third = Setup::new("web-03", token);
    third.enroll().expect_code(0);
}

#[test]
fn a_controller_that_is_not_there_is_named() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    setup.config["server"]["endpoints"] = json!(["127.0.0.1:1"]);
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&["127.0.0.1:1", "refused"]);
}

#[test]
fn a_token_that_others_may_read_is_refused() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    let path = setup.path("join-token");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("the mode is set");
    let outcome = setup.enroll();
    assert_ne!(outcome.code, 0, "{outcome}");
    outcome.explains().says(&[&format!("chmod 600 {}", path.display())]);
    assert_not_enrolled(&controller, &setup);
}

// Manifests and selectors

#[test]
fn a_misspelt_key_in_a_manifest_is_named_with_file_line_and_what_was_meant() {
    let controller = Controller::start();
    let good = check("good", json!({ "disk": {} }));
    let text = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: bad }\nspec:\n  selector: \"*\"\n  schedule:\n    \
                retryIntervall: 15s\n  run: { load: { warning: \"1\", critical: \"2\" } }\n";
    let path = write(&controller, "policies.yaml", &format!("{text}---\n{good}\n"));
    let outcome = controller
        .ctl()
        .run(&["apply".as_ref(), "-f".as_ref(), path.as_os_str()])
        .expect_code(2);
    outcome.explains().says(&[
        &format!("{}:7", path.display()),
        "retryIntervall",
        "did you mean",
        "retryInterval",
    ]);
    // Not even the good one of the two.
    assert_eq!(
        controller.ctl().items(&["policy", "list"]).expect("a list"),
        Vec::<Value>::new()
    );
}

#[test]
fn what_the_controller_refuses_in_a_manifest_applies_none_of_the_set() {
    let controller = Controller::start();
    let good = check("good", json!({ "disk": {} }));
    let bad = check("bad", json!({ "disk": { "path": "/", "warning": "120%" } }));
    let path = write(&controller, "policies.yaml", &format!("{good}\n---\n{bad}\n"));
    let outcome = controller
        .ctl()
        .run(&["apply".as_ref(), "-f".as_ref(), path.as_os_str()])
        .expect_code(2);
    outcome.explains().says(&["policies.yaml", "warning"]);
    assert_eq!(
        controller.ctl().items(&["policy", "list"]).expect("a list"),
        Vec::<Value>::new()
    );
}

#[test]
fn a_selector_with_a_syntax_error_is_shown_with_the_place_of_it() {
    let controller = Controller::start();
    let outcome = controller
        .ctl()
        .run(&["agent", "list", "-l", "env=prod,zone in (eu"])
        .expect_code(2);
    outcome.explains().says(&["env=prod,zone in (eu"]);

    let text = check("bad", json!({ "disk": {} })).replace("\"*\"", "\"env==\"");
    let path = write(&controller, "policies.yaml", &text);
    controller
        .ctl()
        .run(&["apply".as_ref(), "-f".as_ref(), path.as_os_str()])
        .expect_code(2)
        .explains()
        .says(&["env=="]);

    let text = check("bad", json!({ "disk": {} })).replace("\"*\"", "\"\"");
    let path = write(&controller, "policies.yaml", &text);
    controller
        .ctl()
        .run(&["apply".as_ref(), "-f".as_ref(), path.as_os_str()])
        .expect_code(2)
        .explains()
        .says(&["selector"]);
}

#[test]
fn names_that_are_not_there_are_not_found() {
    let controller = Controller::start();
    controller
        .ctl()
        .run(&["agent", "get", "nobody"])
        .expect_code(5)
        .explains()
        .says(&["nobody", "NOT_FOUND"]);
    controller
        .ctl()
        .run(&["policy", "delete", "nothing"])
        .expect_code(5)
        .explains()
        .says(&["nothing", "NOT_FOUND"]);
}

#[test]
fn a_name_that_two_agents_have_is_answered_with_their_ids() {
    let controller = Controller::start();
    let setups = [controller.agent("twin"), controller.agent("twin")];
    for setup in &setups {
        setup.enroll().expect_code(0);
    }
    let outcome = controller.ctl().run(&["agent", "get", "twin"]).expect_code(8);
    for setup in &setups {
        let id = fs::read_to_string(setup.path("agent-id")).expect("an id");
        assert!(outcome.stderr.contains(id.trim()), "{outcome}");
    }
    outcome.explains().says(&["AMBIGUOUS_NAME"]);
}

#[test]
fn a_controller_that_does_not_run_gives_the_exit_code_for_it() {
    let controller = Controller::set_up("");
    controller
        .ctl()
        .run(&["agent", "list"])
        .expect_code(3)
        .explains()
        .says(&["cannot reach", "refused"]);
}

#[test]
fn a_context_file_that_others_may_read_is_refused() {
    let controller = Controller::set_up("");
    let path = controller.path("tester.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("the mode is set");
    let outcome = controller.ctl().run(&["agent", "list"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    outcome.explains().says(&[&format!("chmod 600 {}", path.display())]);
}

// Plugins

#[test]
fn a_plugin_that_does_not_exist_is_unknown_and_named() {
    let controller = Controller::start();
    let path = "/usr/lib/nagios/plugins/check_nothing_of_the_kind";
    controller.apply(&check("missing", json!({ "command": [path] })));
    let _agent = controller.agent("host").start();
    let state = reported(&controller, "missing");
    assert_eq!(
        (&state["state"], &state["end"]),
        (&"CHECK_STATE_UNKNOWN".into(), &"RUN_END_NOT_STARTED".into())
    );
    assert!(text(&state, "output").contains(path), "{state}");
}

#[test]
fn a_plugin_that_hangs_is_killed_with_all_its_children() {
    let controller = Controller::start();
    let script = script(
        &controller,
        "hang.sh",
        "sleep 86000 &\necho $! > \"$1\"\ntrap '' TERM\nwhile :; do sleep 1000; done",
    );
    let child = controller.path("child.pid");
    let manifest = json!({
        "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": "hang" },
        "spec": { "selector": "*", "schedule": { "interval": "1h" }, "timeout": "2s", "run": { "command": [script, child] } },
    });
    controller.apply(&manifest.to_string());
    let _agent = controller.agent("host").start();
    let state = reported(&controller, "hang");
    assert_eq!(
        (&state["state"], &state["end"]),
        (&"CHECK_STATE_UNKNOWN".into(), &"RUN_END_TIMED_OUT".into())
    );
    assert!(text(&state, "output").contains("2s"), "{state}");
    assert_gone(&child);
}

#[test]
fn of_a_hundred_megabytes_of_output_head_and_tail_are_kept() {
    let controller = Controller::start();
    let script = script(
        &controller,
        "loud.sh",
        "echo 'LOUD OK - the head'\nhead -c 100000000 /dev/zero | tr '\\0' 'x'\necho\necho 'the tail'",
    );
    controller.apply(&check("loud", json!({ "command": [script] })));
    let mut agent = controller.agent("host").start();
    let state = reported(&controller, "loud");
    assert_eq!(state["state"], "CHECK_STATE_OK", "{state}");
    assert_eq!(text(&state, "output"), "LOUD OK - the head");
    assert!(
        text(&state, "longOutput").ends_with("the tail"),
        "{}",
        text(&state, "longOutput").len()
    );
    assert!(
        state.to_string().len() < 256 * 1024,
        "{} bytes were kept",
        state.to_string().len()
    );
    assert!(agent.process().is_running());
}

#[test]
fn a_plugin_that_leaves_a_process_behind_reports_at_once_and_the_process_goes() {
    let controller = Controller::start();
    // The one that stays holds standard output open.
    let script = script(
        &controller,
        "fork.sh",
        "sleep 86001 &\necho $! > \"$1\"\necho 'FORK OK - left one behind'",
    );
    let child = controller.path("child.pid");
    controller.apply(&check("fork", json!({ "command": [script, child] })));
    let _agent = controller.agent("host").start();
    let state = reported(&controller, "fork");
    assert_eq!(
        (&state["state"], text(&state, "output")),
        (&"CHECK_STATE_OK".into(), "FORK OK - left one behind")
    );
    assert_gone(&child);
}

#[test]
fn a_plugin_that_says_nothing_or_dies_is_unknown() {
    let controller = Controller::start();
    let silent = script(&controller, "silent.sh", "exit 7");
    let killed = script(&controller, "killed.sh", "kill -SEGV $$");
    let manifests = [
        check("silent", json!({ "command": [silent] })),
        check("killed", json!({ "command": [killed] })),
    ];
    controller.apply(&manifests.join("\n---\n"));
    let _agent = controller.agent("host").start();
    let silent = reported(&controller, "silent");
    assert_eq!(
        (&silent["state"], &silent["exitCode"]),
        (&"CHECK_STATE_UNKNOWN".into(), &7.into()),
        "{silent}"
    );
    let killed = reported(&controller, "killed");
    assert_eq!(
        (&killed["state"], &killed["end"]),
        (&"CHECK_STATE_UNKNOWN".into(), &"RUN_END_SIGNALED".into())
    );
    assert!(text(&killed, "output").contains("SIGSEGV"), "{killed}");
}

#[test]
fn a_parameter_stays_inside_its_element() {
    let controller = Controller::start();
    let script = script(
        &controller,
        "count.sh",
        "echo \"ARGS OK - $# arguments, the first is $1\"",
    );
    let value = "a b; touch /tmp/never $(id) | x";
    let manifest = json!({
        "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": "args" },
        "spec": {
            "selector": "*", "parameters": { "text": value },
            "run": { "command": [script, "<${text}>", "$${text}"] },
        },
    });
    controller.apply(&manifest.to_string());
    let _agent = controller.agent("host").start();
    let state = reported(&controller, "args");
    // What comes after the bar is performance data, in every plugin's output.
    assert!(
        text(&state, "output").starts_with("ARGS OK - 2 arguments, the first is <a b; touch /tmp/never $(id)"),
        "{state}"
    );
}

// agent.yaml

#[test]
fn an_unknown_key_is_a_warning_in_the_inventory_and_under_allow_it_is_fatal() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    setup.config["checks"] = json!({ "max_concurent": 5 });
    let mut agent: Agent = setup.start();
    let entry = controller.wait_for_agent("web-01", "ONLINE");
    assert!(entry["warnings"].to_string().contains("max_concurent"), "{entry}");
    agent.stop();

    let mut setup = controller.agent("web-02");
    setup.config["allow"] = json!({ "cheks": false });
    let mut agent = setup.start();
    let status = agent.process().wait(10 * SECOND);
    assert!(!status.success());
    assert!(
        agent.log().contains("cheks") && agent.log().contains("checks"),
        "{}",
        agent.log()
    );
    assert_eq!(names(&controller), ["web-01"]);
}

#[test]
fn an_agent_that_does_not_allow_checks_runs_none_and_says_so() {
    let controller = Controller::start();
    controller.apply(&check("disk", json!({ "disk": {} })));
    let mut setup = controller.agent("web-01");
    setup.config["allow"] = json!({ "checks": false });
    let _agent = setup.start();
    let report = poll::until("the agent refuses the policy", 20 * SECOND, || {
        let agent = controller.ctl().try_json(&["agent", "get", "web-01"])?;
        let reports = agent["policies"]["reports"].as_array().cloned().unwrap_or_default();
        reports.first().cloned().ok_or_else(|| agent.to_string())
    });
    assert_eq!(report["outcome"], "POLICY_OUTCOME_REFUSED", "{report}");
    assert!(text(&report, "reason").contains("allow"), "{report}");
}

fn check(name: &str, run: Value) -> String {
    json!({
        "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": name },
        "spec": { "selector": "*", "schedule": { "interval": "1h" }, "timeout": "60s", "run": run },
    })
    .to_string()
}

fn script(controller: &Controller, name: &str, body: &str) -> PathBuf {
    let path = write(controller, name, &format!("#!/bin/sh\n{body}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the mode is set");
    path
}

fn write(controller: &Controller, name: &str, text: &str) -> PathBuf {
    let path = controller.path(name);
    fs::write(&path, text).expect("the file is written");
    path
}

#[track_caller]
fn reported(controller: &Controller, check: &str) -> Value {
    poll::until(&format!("{check} reports"), 60 * SECOND, || {
        controller.ctl().state("host", check)
    })
}

#[track_caller]
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn names(controller: &Controller) -> Vec<String> {
    let agents = controller.ctl().items(&["agent", "list"]).expect("a list");
    agents.iter().map(|agent| text(agent, "name").to_owned()).collect()
}

#[track_caller]
fn assert_not_enrolled(controller: &Controller, setup: &Setup) {
    assert_eq!(names(controller), Vec::<String>::new(), "the controller has an entry");
    assert!(!setup.path("state/identity.pem").exists(), "the agent has an identity");
    assert!(setup.path("join-token").exists(), "the token file is gone");
}

/// The process whose id a script wrote there does not run any longer.
#[track_caller]
fn assert_gone(pid_file: &Path) {
    let pid = fs::read_to_string(pid_file).expect("the script wrote a pid");
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    poll::until("the child is gone", 10 * SECOND, || match fs::read_to_string(&stat) {
        // A zombie that nobody has reaped yet does nothing any more.
        Ok(stat) if !stat.contains(") Z ") => Err(stat),
        _ => Ok(()),
    });
}
