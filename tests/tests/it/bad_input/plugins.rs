//! Plugins that are missing, hang, flood, fork or die: the state says so, and nothing of them stays.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use muster_tests::{
    Controller,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

use super::{check, text, write};

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

fn script(controller: &Controller, name: &str, body: &str) -> PathBuf {
    let path = write(controller, name, &format!("#!/bin/sh\n{body}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the mode is set");
    path
}

#[track_caller]
fn reported(controller: &Controller, check: &str) -> Value {
    poll::until(&format!("{check} reports"), 60 * SECOND, || {
        controller.ctl().state("host", check)
    })
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
