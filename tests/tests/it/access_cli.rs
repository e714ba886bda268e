//! Who may do what, as people and scripts meet it on the command line: roles, grants and scopes, API keys, and the audit log with
//! what is found when somebody has edited it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use muster_tests::{
    Controller, Ctl, Process, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process, tools,
};
use serde_json::Value;

/// A controller that knows two machines, one of each environment.
fn controller() -> Controller {
    let controller = Controller::start();
    for (id, name, env) in [(1, "dev-1", "dev"), (2, "prod-1", "prod")] {
        let id = format!("7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d2{id}");
        let label = format!("env={env}");
        let preregister = ["agent", "preregister", "--id", &id, "--name", name, "--label", &label];
        controller.ctl().ok(&preregister);
    }
    controller
}

/// An operator with this role and scope.
fn operator(controller: &Controller, name: &str, role: &str, scope: &str) -> Ctl {
    let file = format!("{name}.yaml");
    let path = text(controller.path(&file));
    let create = ["user", "create", name, "--role", role, "--scope", scope, "--out", &path];
    controller.ctl().ok(&create);
    controller.ctl_as(&file)
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("a path is text")
}

fn names(ctl: &Ctl, arguments: &[&str]) -> Vec<String> {
    let named = ctl.ok(&[arguments, &["-o", "name"]].concat());
    named.stdout.lines().map(str::to_owned).collect()
}

/// A field of each item, in order.
fn fields(items: &[Value], key: &str) -> Vec<String> {
    let field = |item: &Value| item[key].as_str().unwrap_or_default().to_owned();
    items.iter().map(field).collect()
}

#[test]
fn an_operator_with_a_scope_sees_and_changes_what_is_in_it_and_nothing_else() {
    let controller = controller();
    let dora = operator(&controller, "dora", "operator", "env=dev");
    assert_eq!(names(&dora, &["agent", "list"]), ["dev-1"]);
    assert_eq!(names(&controller.ctl(), &["agent", "list"]).len(), 2);

    let who = dora.ok(&["whoami"]).stdout;
    for part in [
        "user/dora",
        "127.0.0.1",
        "example.muster",
        "operator",
        "env=dev",
        "agents.label",
    ] {
        assert!(who.contains(part), "{part}: {who}");
    }
    let who = dora.json(&["whoami"]);
    assert_eq!(who["user"], "dora");
    let permissions = who["permissions"].as_array().expect("permissions");
    assert!(
        permissions
            .iter()
            .all(|it| it["scopes"] == serde_json::json!(["env=dev"])),
        "{who}"
    );
    assert!(!fields(permissions, "name").contains(&"users.read".to_owned()), "{who}");

    // What is not in the scope is not there.
    dora.run(&["agent", "get", "prod-1"]).expect_code(5).explains();
    dora.run(&["agent", "label", "prod-1", "rack=1"]).expect_code(5);
    dora.ok(&["agent", "label", "dev-1", "rack=1"]);
    // Nor is there a way out of it.
    let out = dora
        .run(&["agent", "label", "dev-1", "env=prod"])
        .expect_code(4)
        .explains();
    out.says(&["OUT_OF_SCOPE", "env=dev", "musterctl whoami"]);
    let out = dora.run(&["token", "create", "--label", "env=prod"]);
    out.expect_code(4).explains().says(&["OUT_OF_SCOPE"]);
    dora.ok(&["token", "create", "--label", "env=dev"]);
    let table = controller.ctl().ok(&["token", "list"]).stdout;
    assert!(table.contains("SCOPE") && table.contains("env=dev"), "{table}");

    // What is about the whole is for others.
    let refused = dora.run(&["user", "list"]).expect_code(4).explains();
    refused.says(&["PERMISSION_MISSING", "users.read", "musterctl whoami"]);
    dora.run(&["grant", "create", "--role", "admin", "--user", "dora"])
        .expect_code(4);
    // Its own certificate it renews, whatever it may do else.
    dora.ok(&["user", "renew"]);
    let path = text(controller.path("tester-2.yaml"));
    let renew = dora
        .run(&["user", "renew", "tester", "--out", &path])
        .expect_code(4)
        .explains();
    renew.says(&["PERMISSION_MISSING", "users.write"]);
    let refused = controller
        .ctl()
        .items(&["audit", "list", "--refused", "--caller", "user/dora"])
        .expect("entries");
    assert_eq!(
        fields(&refused, "method"),
        [
            "/muster.v1.UserService/RenewUser",
            "/muster.v1.GrantService/CreateGrant",
            "/muster.v1.UserService/ListUsers",
            "/muster.v1.TokenService/CreateToken",
            "/muster.v1.AgentService/UpdateAgentLabels",
        ]
    );
    assert_eq!(refused[2]["reason"], "PERMISSION_MISSING");

    let page = controller.ctl().ok(&["user", "get", "dora"]).stdout;
    assert!(page.contains("Grants") && page.contains("env=dev"), "{page}");
    let table = controller.ctl().ok(&["user", "list"]).stdout;
    assert!(table.contains("operator for env=dev"), "{table}");
}

#[test]
fn a_policy_of_a_scope_reads_back_as_the_same_policy() {
    let controller = controller();
    let dora = operator(&controller, "dora", "operator", "env=dev");
    let manifest = controller.path("load.yaml");
    let spec = "spec:\n  selector: \"*\"\n  run: { load: { warning: \"5\", critical: \"10\" } }\n";
    fs::write(
        &manifest,
        format!("apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: load }}\n{spec}"),
    )
    .expect("a manifest");
    let manifest = text(manifest);
    dora.ok(&["apply", "-f", &manifest]);
    let shown = dora.ok(&["policy", "get", "load", "-o", "yaml"]).stdout;
    assert!(shown.contains("scope: env=dev"), "{shown}");
    // By somebody who has no scope, what is said of it stays.
    fs::write(&manifest, shown).expect("a manifest");
    for ctl in [&controller.ctl(), &dora] {
        let again = ctl.ok(&["apply", "-f", &manifest]).stdout;
        assert!(again.contains("Check/load unchanged"), "{again}");
    }
    let table = controller.ctl().ok(&["policy", "list"]).stdout;
    assert!(table.contains("SCOPE") && table.contains("env=dev"), "{table}");
}

#[test]
fn a_watch_goes_on_with_other_rights_and_ends_with_the_last() {
    let controller = controller();
    let dora = operator(&controller, "dora", "viewer", "env=dev");
    let mut command = process::clean_command(binaries::path("musterctl"), &controller.path("."));
    command
        .arg("--config")
        .arg(controller.path("dora.yaml"))
        .args(["agent", "watch", "-o", "name"]);
    let mut watch = Process::start("musterctl", command, controller.path("watch.log"));
    let seen = |watch: &Process, name: &str| match watch.output() {
        output if output.lines().any(|line| line == name) => Ok(()),
        output => Err(output),
    };
    poll::until("the watch is there", 20 * SECOND, || seen(&watch, "dev-1"));
    assert!(seen(&watch, "prod-1").is_err(), "{}", watch.output());
    controller
        .ctl()
        .ok(&["grant", "create", "--role", "viewer", "--user", "dora"]);
    poll::until("what has come into sight is seen", 20 * SECOND, || {
        seen(&watch, "prod-1")
    });

    for id in names(&controller.ctl(), &["grant", "list", "--user", "dora"]) {
        controller.ctl().ok(&["grant", "delete", &id]);
    }
    assert_eq!(watch.wait(20 * SECOND).code(), Some(4), "{}", watch.output());
    let none = dora.ok(&["whoami"]);
    none.says(&["nothing is granted"]);
}

#[test]
fn roles_are_made_changed_and_deleted_as_long_as_that_is_safe() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let listed = ctl.ok(&["role", "permissions", "-o", "name"]).stdout;
    assert!(listed.contains("policies.write\n"), "{listed}");
    let deployer = [
        "role",
        "create",
        "deployer",
        "--permission",
        "policies.*",
        "--description",
        "checks",
    ];
    ctl.ok(&deployer);
    ctl.run(&deployer).expect_code(8).explains().says(&["ALREADY_EXISTS"]);
    let wrong = ["role", "create", "typo", "--permission", "polices.*"];
    ctl.run(&wrong)
        .expect_code(2)
        .explains()
        .says(&["polices.*", "musterctl role permissions"]);

    let revision = ctl.json(&["role", "get", "deployer"])["revision"].clone();
    let revision = revision.as_str().expect("a revision");
    ctl.ok(&[
        "role",
        "update",
        "deployer",
        "--permission",
        "policies.*",
        "--permission",
        "agents.read",
    ]);
    let role = ctl.json(&["role", "get", "deployer"]);
    assert_eq!(role["description"], "checks", "what is not given stays");
    assert_eq!(role["permissions"], serde_json::json!(["agents.read", "policies.*"]));
    let stale = [
        "role",
        "update",
        "deployer",
        "--description",
        "x",
        "--revision",
        revision,
    ];
    ctl.run(&stale)
        .expect_code(8)
        .explains()
        .says(&["CONFLICT", "--revision"]);

    let eve = operator(&controller, "eve", "deployer", "env=dev");
    ctl.run(&["role", "delete", "deployer"])
        .expect_code(8)
        .explains()
        .says(&["IN_USE"]);
    ctl.run(&["role", "delete", "admin"])
        .expect_code(8)
        .explains()
        .says(&["BUILT_IN"]);
    ctl.run(&["grant", "get", "none"]).expect_code(5).explains();
    let grants = names(&ctl, &["grant", "list", "--role", "deployer"]);
    ctl.ok(&["grant", "delete", &grants[0]]);
    eve.run(&["policy", "list"])
        .expect_code(4)
        .says(&["PERMISSION_MISSING"]);
    ctl.ok(&["role", "delete", "deployer"]);

    // Nobody gives what they do not have.
    ctl.ok(&[
        "role",
        "create",
        "clerk",
        "--permission",
        "grants.*",
        "--permission",
        "users.*",
        "--permission",
        "roles.*",
    ]);
    let path = text(controller.path("carl.yaml"));
    ctl.ok(&["user", "create", "carl", "--role", "clerk", "--out", &path]);
    let carl = controller.ctl_as("carl.yaml");
    let grant = ["grant", "create", "--role", "admin", "--user", "carl"];
    carl.run(&grant)
        .expect_code(4)
        .explains()
        .says(&["ESCALATION", "whoami"]);
    let role = ["role", "update", "clerk", "--permission", "*"];
    carl.run(&role).expect_code(4).says(&["ESCALATION"]);
}

/// `musterctl` with a key in its environment.
fn with_variable(controller: &Controller, key: &str, arguments: &[&str]) -> Outcome {
    let mut command = process::clean_command(binaries::path("musterctl"), &controller.path("."));
    command
        .arg("--config")
        .arg(controller.path("tester.yaml"))
        .args(arguments);
    command.env("MUSTER_API_KEY", key);
    Outcome::of(command)
}

#[test]
fn an_api_key_is_shown_once_and_opens_what_was_granted_to_it() {
    let controller = controller();
    let ctl = controller.ctl();
    let made = ctl.ok(&[
        "apikey", "create", "--role", "viewer", "--scope", "env=dev", "-o", "name",
    ]);
    let key = made.stdout.trim().to_owned();
    let (id, secret) = key
        .strip_prefix("mk_")
        .and_then(|rest| rest.split_once('_'))
        .expect("a key");
    let file = controller.path("key");
    fs::write(&file, &made.stdout).expect("a file");
    let file = text(file);
    let with_file = |arguments: &[&str]| ctl.run(&[&["--api-key-file", &file], arguments].concat());
    // Who can read the file is the key's bearer.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    with_file(&["whoami"]).expect_code(2).explains().says(&["0644"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");

    // It takes the place of the certificate in the context.
    let who = with_file(&["whoami", "-o", "name"]).expect_code(0);
    assert_eq!(who.stdout, format!("apikey/{id}\n"));
    let who = with_variable(&controller, &key, &["whoami", "-o", "name"]).expect_code(0);
    assert_eq!(who.stdout, format!("apikey/{id}\n"));
    let agents = with_variable(&controller, &key, &["agent", "list", "-o", "name"]).expect_code(0);
    assert_eq!(agents.stdout, "dev-1\n");
    let refused = with_file(&["token", "create", "--label", "env=dev"])
        .expect_code(4)
        .explains();
    refused.says(&["PERMISSION_MISSING", "tokens.write"]);
    let wrong = with_variable(&controller, &key[..key.len() - 1], &["whoami"])
        .expect_code(2)
        .explains();
    assert!(!wrong.stderr.contains(&secret[..40]), "{wrong}");
    // A file comes before the environment.
    let mut both = process::clean_command(binaries::path("musterctl"), &controller.path("."));
    both.arg("--config").arg(controller.path("tester.yaml"));
    both.args(["--api-key-file", &file, "whoami", "-o", "name"])
        .env("MUSTER_API_KEY", "mk_nonsense");
    Outcome::of(both).expect_code(0);

    // A context of its own.
    let own = text(controller.path("ci.yaml"));
    let create = [
        "apikey",
        "create",
        "--role",
        "operator",
        "--source",
        "127.0.0.0/8",
        "--out",
        &own,
    ];
    let made = ctl.ok(&create);
    assert!(!made.stdout.contains("mk_") && !made.stderr.contains("mk_"), "{made}");
    let mode = fs::metadata(&own).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(names(&controller.ctl_as("ci.yaml"), &["agent", "list"]).len(), 2);
    controller
        .ctl_as("ci.yaml")
        .run(&["user", "renew"])
        .expect_code(2)
        .explains();
    let elsewhere = text(controller.path("elsewhere.yaml"));
    ctl.ok(&[
        "apikey",
        "create",
        "--role",
        "operator",
        "--source",
        "192.0.2.0/24",
        "--out",
        &elsewhere,
    ]);
    let refused = controller
        .ctl_as("elsewhere.yaml")
        .run(&["agent", "list"])
        .expect_code(4)
        .explains();
    refused.says(&["API_KEY_INVALID", "musterctl apikey"]);

    let page = ctl.ok(&["apikey", "get", id]).stdout;
    assert!(
        page.contains("viewer") && page.contains("env=dev") && page.contains("Last used"),
        "{page}"
    );
    let whole = ctl.run(&["apikey", "revoke", &key]).expect_code(2).explains();
    assert!(!whole.stderr.contains(secret), "{whole}");
    ctl.ok(&["apikey", "revoke", id]);
    with_file(&["whoami"])
        .expect_code(4)
        .explains()
        .says(&["API_KEY_INVALID"]);
    assert!(!names(&ctl, &["apikey", "list"]).contains(&id.to_owned()));
    assert!(names(&ctl, &["apikey", "list", "--all"]).contains(&id.to_owned()));

    // The secret is with its bearer alone.
    let shown = ctl.ok(&["audit", "list", "-o", "json"]).stdout + &controller.log();
    assert!(!shown.contains(secret));
    for database in ["control.db", "control.db-wal"] {
        let bytes = fs::read(controller.data_dir().join(database)).unwrap_or_default();
        assert!(
            !bytes.windows(secret.len()).any(|window| window == secret.as_bytes()),
            "{database}"
        );
    }
}

#[test]
fn the_audit_log_is_good_until_somebody_edits_it_and_then_the_entry_is_named() {
    let mut controller = controller();
    let ctl = controller.ctl();
    let head = text(controller.path("head.json"));
    ctl.ok(&["audit", "head", "--file", &head]);
    ctl.run(&["audit", "head", "--file", &head]).expect_code(2).explains();
    ctl.ok(&["agent", "label", "dev-1", "rack=1"]);

    let listed = ctl
        .items(&["audit", "list", "--method", "UpdateAgentLabels"])
        .expect("entries");
    assert_eq!(
        fields(&listed, "outcome"),
        ["AUDIT_OUTCOME_DONE", "AUDIT_OUTCOME_BEGUN"]
    );
    assert_eq!(listed[0]["caller"], "user/tester");
    assert_eq!(listed[0]["requestId"], listed[1]["requestId"]);
    assert!(
        listed[0]["resource"]
            .as_str()
            .is_some_and(|it| it.starts_with("agent/7d0c51c2"))
    );
    assert!(
        ctl.items(&["audit", "list", "--until", "1h"])
            .expect("entries")
            .is_empty()
    );
    assert_eq!(ctl.items(&["audit", "list", "--limit", "3"]).expect("entries").len(), 3);

    let good = ctl.ok(&["audit", "verify", "--head", &head]);
    assert!(good.stdout.contains("good") && good.stderr.is_empty(), "{good}");
    ctl.ok(&["audit", "verify"])
        .says(&["the controller's own word", "musterctl audit head"]);
    let export = text(controller.path("audit.jsonl"));
    ctl.ok(&["audit", "export", "--file", &export]);

    // Offline, and in a file that was cut short.
    controller.stop();
    let offline = ["audit", "verify", "--from", &export, "--head", &head];
    ctl.ok(&offline);
    let lines = fs::read_to_string(&export).expect("an export");
    let short: Vec<&str> = lines.lines().take(4).collect();
    fs::write(controller.path("short.jsonl"), short.join("\n") + "\n").expect("a file");
    let cut = ctl
        .run(&["audit", "verify", "--from", &text(controller.path("short.jsonl"))])
        .expect_code(9);
    assert!(cut.stdout.contains("the log ends with entry 3, and entry "), "{cut}");
    controller.run();

    let edit = "UPDATE audit SET entry = (SELECT entry FROM audit WHERE seq = 1) WHERE seq = 3";
    if !controller.tamper(edit) {
        return tools::skipped("an audit log that was edited", "sqlite3 is not installed");
    }
    let found = ctl.run(&["audit", "verify"]).expect_code(9).explains();
    assert_eq!(
        found.stdout,
        "entry 3 was changed\nentry 3 is found under what it does not say\n"
    );
    found.says(&["2 findings", "musterctl audit export"]);
    let found = ctl.run(&["audit", "verify", "-o", "json"]).expect_code(9);
    let document: Value = serde_json::from_str(&found.stdout).expect("JSON");
    assert_eq!(document["good"], false);
    assert_eq!(document["findings"][0], "entry 3 was changed");

    assert!(controller.tamper("DELETE FROM audit WHERE seq = 3"));
    let found = ctl.run(&["audit", "verify"]).expect_code(9);
    assert_eq!(found.stdout, "entry 3 is missing\n");
    assert!(controller.tamper("DELETE FROM audit"));
    let found = ctl.run(&["audit", "verify", "--head", &head]).expect_code(9);
    assert!(
        found.stdout.contains("the log ends with entry 0, and entry "),
        "{found}"
    );
    // What was taken out of reach in time is as good as before.
    ctl.ok(&offline);
}

#[test]
fn a_log_of_another_controller_is_not_the_one_of_which_a_head_was_kept() {
    let (one, other) = (controller(), controller());
    let head = text(one.path("head.json"));
    one.ctl().ok(&["audit", "head", "--file", &head]);
    let found = other
        .ctl()
        .run(&["audit", "verify", "--head", &head])
        .expect_code(9)
        .explains();
    assert!(found.stdout.contains("a key that no head that was kept has"), "{found}");
    assert!(found.stdout.contains("written anew"), "{found}");
    // With nothing else it is that controller's own word.
    other.ctl().ok(&["audit", "verify"]);
}
