//! The first hour of somebody who has been given a context file, with the real programs: what each command says is what is typed
//! next.

use std::fs;

use muster_tests::{Controller, Ctl, poll, poll::SECOND};

/// The home of somebody new, in which nothing is yet.
fn home(controller: &Controller) -> Ctl {
    Ctl::new(controller.path("home/config.yaml"), controller.path("home"))
}

fn check(limit: &str) -> String {
    format!(
        "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: memory, owner: me }}\nspec:\n  selector: env=dev\n  \
         schedule: {{ interval: 1s }}\n  timeout: 1s\n  run: {{ memory: {{ warning: \"{limit}\", critical: \"{limit}\" }} }}\n"
    )
}

#[test]
fn a_newcomer_gets_from_the_login_to_a_verified_audit_log() {
    let controller = Controller::start();
    let _web = controller.agent("web-01").start();
    let _db = controller.agent("db-01").start();
    for name in ["web-01", "db-01"] {
        controller.wait_for_agent(name, "ONLINE");
    }
    fs::create_dir_all(controller.path("home")).expect("a home");
    let me = home(&controller);
    let write = |text: &str| fs::write(controller.path("home/memory.yaml"), text).expect("a file");
    let manifest = controller.path("home/memory.yaml").display().to_string();

    // Log in, and see who one is and that all is well.
    me.run(&["agent", "list"])
        .expect_code(1)
        .says(&["no context file", "muster-server admin create"]);
    let given = controller.path("tester.yaml").display().to_string();
    me.ok(&["login", "--from", &given, "--name", "here"]);
    assert!(me.ok(&["whoami"]).stdout.contains("tester"));
    me.ok(&["doctor"]);

    // Find an agent, as fingers are used to, and say what it is for.
    let found = me.ok(&["get", "agents"]);
    assert!(
        found.stdout.contains("web-01") && found.stderr.contains("musterctl agent list"),
        "{found}"
    );
    me.ok(&["agent", "label", "web-01", "env=dev"]);
    let listed = me.ok(&["agent", "list", "-l", "env=dev", "-o", "name"]).stdout;
    assert_eq!(listed, "web-01\n");

    // Write a check with a mistake; what is said of it is enough to correct it.
    write(&check("1%").replace("schedule", "shedule"));
    me.run(&["validate", "-f", &manifest])
        .expect_code(2)
        .says(&["memory.yaml:6:3: unknown field `shedule`", "did you mean `schedule`?"]);
    write(&check("1%"));
    me.ok(&["validate", "-f", &manifest]);
    let plan = me.ok(&["plan", "-f", &manifest]);
    assert!(
        plan.stdout.contains("+ Check/memory\n    starts on 1 agent: web-01\n"),
        "{plan}"
    );
    me.ok(&["apply", "-f", &manifest]);
    me.ok(&["wait", "agent", "web-01", "--for", "policy-applied", "--timeout", "30s"]);
    let turns_to = |wanted: &str| {
        poll::until("the state turns", 30 * SECOND, || {
            let state = me.state("web-01", "memory")?;
            match state["state"] == wanted {
                true => Ok(()),
                false => Err(state.to_string()),
            }
        });
    };
    turns_to("CHECK_STATE_OK");

    // Break it, see it, find out why, and go back.
    write(&check("100%"));
    let plan = me.run(&["plan", "-f", &manifest, "--exit-code"]).expect_code(7);
    assert!(
        plan.stdout.contains("spec.run.memory.critical  \"1%\" -> \"100%\""),
        "{plan}"
    );
    me.ok(&["apply", "-f", &manifest]);
    turns_to("CHECK_STATE_CRITICAL");
    let problems = me.ok(&["state", "list", "--problems"]);
    assert!(problems.stdout.contains("memory"), "{problems}");
    let why = me.ok(&["explain", "check", "memory", "--agent", "web-01"]);
    assert!(why.stdout.starts_with("yes Check/memory runs on web-01\n"), "{why}");
    let why = me.ok(&["explain", "check", "memory", "--agent", "db-01"]);
    assert!(why.stdout.contains("no  env=dev: there is no env\n"), "{why}");
    me.ok(&["rollback", "check", "memory"]);
    turns_to("CHECK_STATE_OK");
    let versions = me.items(&["versions", "check", "memory"]).expect("versions");
    assert_eq!(versions.len(), 3, "{versions:?}");

    // A colleague for these machines, who sees them and no others.
    let colleague = controller.path("home/carl.yaml").display().to_string();
    me.ok(&[
        "user", "create", "carl", "--role", "operator", "--scope", "env=dev", "--out", &colleague,
    ]);
    let carl = Ctl::new(controller.path("home/carl.yaml"), controller.path("home"));
    assert_eq!(carl.ok(&["agent", "list", "-o", "name"]).stdout, "web-01\n");
    carl.run(&["agent", "label", "db-01", "env=dev"]).expect_code(5);
    let may = me.ok(&["explain", "access", "carl", "agents.label", "--agent", "web-01"]);
    assert!(
        may.stdout.starts_with("yes user/carl may agents.label for web-01\n"),
        "{may}"
    );

    // What was done is on file, and the file is what was written.
    let done = me.ok(&["audit", "list"]).stdout;
    for what in ["ApplyManifests", "UpdateAgentLabels", "CreateUser"] {
        assert!(done.contains(what), "{what}: {done}");
    }
    me.ok(&["audit", "verify"]);
}
