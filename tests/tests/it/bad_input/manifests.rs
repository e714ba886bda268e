//! Manifests, selectors, names and context files with something wrong: the place of it, and nothing applied.

use std::{fs, os::unix::fs::PermissionsExt as _};

use muster_proto::ids::AgentId;
use muster_tests::Controller;
use serde_json::{Value, json};

use super::{check, write};

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
fn labels_beyond_what_an_agent_may_have_are_refused_one_by_one_as_well() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let id = AgentId::random().to_string();
    ctl.ok(&["agent", "preregister", "--id", &id, "--name", "web-01"]);
    let labels: Vec<String> = (0..64).map(|number| format!("label-{number}=x")).collect();
    let label = |labels: &[&str]| ctl.run(&[&["agent", "label", "web-01"], labels].concat());
    label(&labels.iter().map(String::as_str).collect::<Vec<_>>()).expect_code(0);
    label(&["one=more"])
        .expect_code(2)
        .explains()
        .says(&["65 labels", "64 are allowed"]);
    label(&["label-7=y"]).expect_code(0);
    label(&["label-7-", "one=more"]).expect_code(0);
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
    let outcome = controller.ctl().run(&["agent", "list"]).expect_code(1);
    outcome.explains().says(&[&format!("chmod 600 {}", path.display())]);
}
