//! What hostile plugins and agents say must reach people as text; what is secret must not reach anybody.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use muster_tests::{
    Controller, dial,
    poll::{self, SECOND},
};
use serde_json::json;

use super::Target;

/// Fails when a terminal would act on it.
#[track_caller]
pub fn assert_inert(shown: &str) {
    let acts = |character: char| character.is_control() && character != '\n';
    assert!(!shown.contains(acts), "{shown:?}");
}

#[test]
fn what_a_plugin_prints_moves_no_cursor() {
    let mut target = Target::start();
    let controller = &target.controller;
    let plugin = controller.path("plugin");
    let script = "#!/bin/sh\n\
        printf 'OK \\033[2J\\033]0;owned\\007\\302\\2331m\\342\\200\\256red\\r | a=1;;;; \\033[31mb=2 c=1e999;~:@\\n'\n\
        printf 'long \\033]52;c;ZXZpbA==\\007 line\\n\\000\\377\\n'\n";
    fs::write(&plugin, script).expect("the plugin is written");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("the mode is set");
    let check = json!({
        "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": "hostile" },
        "spec": { "selector": "*", "schedule": { "interval": "1h" }, "timeout": "10s", "run": { "command": [plugin] } },
    });
    controller.apply(&check.to_string());
    let state = poll::until("the plugin has run", 20 * SECOND, || {
        controller.ctl().state(super::HEALTHY, "hostile")
    });
    // Kept as it was said, for whoever wants to look into it.
    assert!(state["output"].as_str().expect("a text").contains('\u{1b}'), "{state}");
    for format in ["table", "wide", "json", "yaml", "name"] {
        let shown = controller.ctl().ok(&["state", "list", "-o", format]);
        assert_inert(&shown.stdout);
        assert_inert(&shown.stderr);
    }
    assert_inert(&controller.log());
    assert_inert(&target.agent.log());
    target.is_unharmed();
}

#[test]
fn what_is_secret_is_in_no_log_no_database_and_no_list_of_processes() {
    let mut target = Target::start();
    let token = target.controller.token(&["--uses", "2"]).secret;
    let setup = muster_tests::agent::Setup::new(
        "second",
        muster_tests::controller::Token {
            secret: token.clone(),
            ..target.controller.token(&[])
        },
    );
    setup.enroll().expect_code(0);
    let operator = dial::operator(&target.controller.path("tester.yaml"));
    let secret = token.rsplit('_').next().expect("a secret").to_owned();
    let mut secrets = vec![("a token", secret)];
    for file in ["pki/root-key.pem", "pki/issuing-key.pem", "pki/policy-key.pem"] {
        secrets.push((
            file,
            secret_part(&fs::read_to_string(target.controller.data_dir().join(file)).expect("a key")),
        ));
    }
    secrets.push(("an operator's key", secret_part(&operator.to_pem())));
    let identity = fs::read_to_string(target.agent.setup().path("state/identity.pem")).expect("an identity");
    secrets.push(("an agent's key", secret_part(&identity)));

    let data_dir = target.controller.data_dir();
    let mut searched = 0;
    for path in files(&data_dir)
        .into_iter()
        .filter(|path| !path.starts_with(data_dir.join("pki")))
    {
        let bytes = fs::read(&path).expect("a file");
        for (what, secret) in &secrets {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{what} is in {}", path.display());
        }
        searched += 1;
    }
    assert!(searched >= 3, "only {searched} files");
    let command_lines = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a process");
    let pids = [target.controller.process().pid(), target.agent.process().pid()];
    let said = [
        target.controller.log(),
        target.agent.log(),
        command_lines(pids[0]),
        command_lines(pids[1]),
    ];
    for (what, secret) in &secrets {
        for text in &said {
            assert!(!text.contains(secret.as_str()), "{what} is in {text}");
        }
    }
    target.is_unharmed();
}

#[test]
fn what_a_controller_and_an_agent_keep_is_for_their_owner_alone() {
    let target = Target::start();
    let agent = target.agent.setup();
    for dir in [target.controller.data_dir(), agent.path("state")] {
        for path in std::iter::once(dir.clone()).chain(files(&dir)) {
            // The configuration holds nothing secret; it is below a directory that is closed.
            if path.ends_with("server.yaml") {
                continue;
            }
            let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        }
    }
}

#[test]
fn keys_that_others_may_read_are_refused_with_what_to_do() {
    let mut controller = Controller::set_up("");
    let key = controller.data_dir().join("pki/issuing-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("the mode is set");
    controller.launch();
    let ended = controller.process().wait(20 * SECOND);
    assert!(!ended.success());
    let log = controller.log();
    assert!(log.contains(&format!("chmod 600 {}", key.display())), "{log}");
}

/// A part of the key that no other key has: in PKCS #8 the secret begins within these digits of the first line.
fn secret_part(pem: &str) -> String {
    let key = pem.split("PRIVATE KEY-----").nth(1).expect("a key");
    let line = key.lines().find(|line| !line.is_empty()).expect("a line");
    line[48..64].to_owned()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
