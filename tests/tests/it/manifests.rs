//! Configuration as files, through the real programs: what is planned is what is done, and what was done can be undone.

use std::fs;

use muster_tests::{Controller, poll, poll::SECOND};
use serde_json::Value;

fn check(name: &str, selector: &str, interval: &str) -> String {
    format!(
        "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: {name} }}\nspec:\n  selector: \"{selector}\"\n  \
         schedule: {{ interval: {interval} }}\n  run: {{ memory: {{ warning: \"1%\", critical: \"1%\" }} }}\n"
    )
}

/// The folder of manifests of a controller, and what is written into it.
struct Folder<'a> {
    controller: &'a Controller,
}

impl Folder<'_> {
    fn put(&self, name: &str, text: &str) {
        let folder = self.controller.path("manifests");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), text).expect("a file");
    }

    fn path(&self) -> String {
        self.controller.path("manifests").display().to_string()
    }
}

/// Runs on the agent, as the agent says itself.
fn applied(controller: &Controller) -> Vec<String> {
    let items = controller.ctl().items(&["policy", "list"]).expect("policies");
    let is_applied = |item: &&Value| item["status"]["applied"] == 1;
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    items.iter().filter(is_applied).map(name).collect()
}

#[test]
fn a_folder_is_planned_applied_pruned_and_rolled_back() {
    let controller = Controller::start();
    let _agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    let (ctl, folder) = (
        controller.ctl(),
        Folder {
            controller: &controller,
        },
    );
    folder.put("memory.yaml", &check("memory", "*", "30s"));
    folder.put("nowhere.yaml", &check("nowhere", "env=none", "30s"));
    let path = folder.path();

    let plan = ctl
        .run(&["plan", "-f", &path, "--owner", "base", "--exit-code"])
        .expect_code(7);
    assert!(
        plan.stdout.contains("+ Check/memory\n    starts on 1 agent: web-01\n"),
        "{plan}"
    );
    assert!(
        plan.stdout.contains("+ Check/nowhere\n    matches no agent now\n"),
        "{plan}"
    );
    assert!(plan.stdout.ends_with("2 to create; touches 1 of 1 agent.\n"), "{plan}");
    assert!(applied(&controller).is_empty(), "a plan changes nothing");

    ctl.ok(&["apply", "-f", &path, "--owner", "base"]);
    poll::until("the agent runs it", 20 * SECOND, || match applied(&controller) {
        names if names == ["memory"] => Ok(()),
        names => Err(names.join(",")),
    });
    ctl.run(&["plan", "-f", &path, "--owner", "base", "--exit-code"])
        .expect_code(0);

    // One goes, one changes; kept in a file, and the world moves on before it is applied.
    fs::remove_file(controller.path("manifests/nowhere.yaml")).expect("a file");
    folder.put("memory.yaml", &check("memory", "*", "31s"));
    let kept = controller.path("change.plan").display().to_string();
    let plan = ctl.ok(&["plan", "-f", &path, "--owner", "base", "--prune", "--out", &kept]);
    assert!(
        plan.stdout
            .contains("~ Check/memory\n    spec.schedule.interval  \"30s\" -> \"31s\"\n"),
        "{plan}"
    );
    assert!(plan.stdout.contains("- Check/nowhere\n"), "{plan}");
    let _other = controller.agent("web-02").start();
    controller.wait_for_agent("web-02", "ONLINE");
    let refused = ctl.run(&["apply", "--plan", &kept]).expect_code(8);
    assert!(
        refused.stderr.contains("PLAN_OUTDATED") && refused.stderr.contains("plan again"),
        "{refused}"
    );
    ctl.ok(&["plan", "-f", &path, "--owner", "base", "--prune", "--out", &kept]);
    let done = ctl.ok(&["apply", "--plan", &kept]);
    assert_eq!(done.stdout, "Check/memory updated\nCheck/nowhere deleted\n");

    // Back, and back again.
    let versions = ctl.items(&["versions", "check", "memory"]).expect("versions");
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert_eq!(versions[0]["caller"], "user/tester", "{versions:?}");
    assert_eq!(
        versions[1]["manifest"]["spec"]["schedule"]["interval"], "30s",
        "{versions:?}"
    );
    ctl.ok(&["rollback", "check", "memory"]);
    let now = ctl.json(&["policy", "get", "memory"]);
    assert_eq!(now["spec"]["schedule"]["interval"], "30s", "{now}");
    ctl.ok(&["rollback", "check", "nowhere"]);
    assert!(ctl.ok(&["policy", "get", "nowhere"]).stdout.contains("nowhere"));
    ctl.run(&["rollback", "check", "memory", "--to-version", "1"])
        .expect_code(5);
    ctl.run(&["versions", "check", "never-was"]).expect_code(5);
}

#[test]
fn what_is_exported_is_what_apply_takes() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let role = "apiVersion: muster/v1\nkind: Role\nmetadata: { name: on-call, owner: team-a }\nspec: { permissions: [states.read] }\n";
    let grant = "apiVersion: muster/v1\nkind: Grant\nspec: { user: tester, role: on-call, scope: env=dev }\n";
    let texts = [check("memory", "*", "30s").as_str(), role, grant].join("---\n");
    controller.apply(&texts).expect_code(0);
    let exported = ctl.ok(&["export"]).stdout;
    for part in [
        "kind: Check",
        "kind: Role",
        "kind: Grant",
        "owner: team-a",
        "scope: env=dev",
    ] {
        assert!(exported.contains(part), "{part}: {exported}");
    }
    assert!(!exported.contains("revision"), "{exported}");
    fs::write(controller.path("all.yaml"), &exported).expect("a file");
    let all = controller.path("all.yaml").display().to_string();
    ctl.run(&["plan", "-f", &all, "--exit-code"]).expect_code(0);
    ctl.run(&["validate", "-f", &all]).expect_code(0);
    let names = ctl.ok(&["export", "role", "--owner", "team-a", "-o", "name"]);
    assert_eq!(names.stdout, "Role/on-call\n");
    // Everything of an owner goes, when no manifest has it any longer.
    fs::write(controller.path("none.yaml"), "items: []\n").expect("a file");
    let none = controller.path("none.yaml").display().to_string();
    let refused = ctl
        .run(&["apply", "-f", &none, "--owner", "team-a", "--prune"])
        .expect_code(8);
    assert!(refused.stderr.contains("IN_USE"), "{refused}");

    // What is named goes, a role after the grant that gives it, and what is gone is gone.
    fs::write(controller.path("all.yaml"), &texts).expect("a file");
    let plan = ctl.run(&["plan", "--delete", "-f", &all, "--exit-code"]).expect_code(7);
    assert!(plan.stdout.contains("- Check/memory\n"), "{plan}");
    assert!(plan.stdout.contains("3 to delete; touches no agent.\n"), "{plan}");
    let done = ctl.ok(&["delete", "-f", &all]).stdout;
    for gone in ["Check/memory deleted\n", "Role/on-call deleted\n"] {
        assert!(done.contains(gone), "{done}");
    }
    assert_eq!(ctl.items(&["policy", "list"]).expect("policies").len(), 0);
    ctl.ok(&["delete", "-f", &all]);
    ctl.run(&["plan", "--delete", "-f", &all, "--exit-code"]).expect_code(0);
    ctl.ok(&["rollback", "role", "on-call"]);
    ctl.run(&["plan", "--delete", "-f", &all, "--exit-code"]).expect_code(7);
}

#[test]
fn who_may_see_policies_plans_them_and_does_not_apply() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    ctl.ok(&[
        "user",
        "create",
        "vera",
        "--role",
        "viewer",
        "--out",
        &controller.path("vera.yaml").display().to_string(),
    ]);
    let vera = controller.ctl_as("vera.yaml");
    let folder = Folder {
        controller: &controller,
    };
    folder.put("memory.yaml", &check("memory", "*", "30s"));
    let path = folder.path();
    vera.run(&["plan", "-f", &path, "--exit-code"]).expect_code(7);
    let refused = vera.run(&["apply", "-f", &path]).expect_code(4);
    assert!(refused.stderr.contains("policies.write"), "{refused}");
    folder.put(
        "role.yaml",
        "apiVersion: muster/v1\nkind: Role\nmetadata: { name: x }\nspec: { permissions: [states.read] }\n",
    );
    vera.run(&["plan", "-f", &path]).expect_code(4);
}

#[test]
fn while_policies_are_frozen_nobody_gets_any_and_afterwards_everybody_gets_the_latest() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let mut agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    controller.apply(&check("first", "*", "30s")).expect_code(0);
    poll::until("the agent runs it", 20 * SECOND, || match applied(&controller) {
        names if names == ["first"] => Ok(()),
        names => Err(names.join(",")),
    });
    ctl.ok(&["policy", "freeze", "--reason", "wait for me"]);
    controller.apply(&check("second", "*", "30s")).expect_code(0);
    ctl.ok(&["policy", "delete", "first"]);
    // Neither now, nor to one that comes back, nor to one that is new, nor from a controller that starts.
    agent.stop();
    agent.run();
    let newcomer = controller.agent("web-02").start();
    controller.wait_for_agent("web-02", "ONLINE");
    let held = |agent: &muster_tests::Agent| -> Result<u64, String> {
        agent.status()?["policies"]["applied"]
            .as_u64()
            .ok_or("no number".to_owned())
    };
    poll::all_through("they hold what they had", 4 * SECOND, || {
        match (held(&agent)?, held(&newcomer)?) {
            (1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let note = ctl.ok(&["policy", "list"]).stderr;
    assert!(note.contains("by user/tester: wait for me"), "{note}");
    ctl.ok(&["policy", "unfreeze"]);
    poll::until("both run the second", 20 * SECOND, || {
        let items = ctl.items(&["policy", "list"])?;
        match items.len() == 1 && items[0]["status"]["applied"] == 2 {
            true => Ok(()),
            false => Err(format!("{items:?}")),
        }
    });
}

#[test]
fn what_is_decided_is_explained_step_by_step() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let _agent = controller.agent("web-01").label("team", "web").start();
    controller.wait_for_agent("web-01", "ONLINE");
    ctl.ok(&["agent", "label", "web-01", "env=dev"]);
    let texts = [
        check("here", "env=dev", "30s"),
        check("elsewhere", "env=prod,team=web,!spot", "30s"),
    ]
    .join("---\n");
    controller.apply(&texts).expect_code(0);
    poll::until("the agent runs it", 20 * SECOND, || match applied(&controller) {
        names if names == ["here"] => Ok(()),
        names => Err(names.join(",")),
    });
    let told = ctl.ok(&["explain", "check", "here", "--agent", "web-01"]).stdout;
    assert!(told.starts_with("yes Check/here runs on web-01\n"), "{told}");
    assert!(told.contains("yes env=dev: env is dev, by an operator\n"), "{told}");
    assert!(told.contains("yes the agent has applied version "), "{told}");
    let told = ctl.ok(&["explain", "check", "elsewhere", "--agent", "web-01"]).stdout;
    assert!(told.starts_with("no  Check/elsewhere is not for web-01\n"), "{told}");
    for term in [
        "no  env=prod: env is dev, by an operator\n",
        "yes team=web: team is web, as the machine says\n",
        "yes !spot: there is no spot\n",
    ] {
        assert!(told.contains(term), "{term}: {told}");
    }
    ctl.ok(&["policy", "freeze", "--reason", "wait"]);
    controller.apply(&check("later", "*", "30s")).expect_code(0);
    let told = ctl.ok(&["explain", "check", "later", "--agent", "web-01"]).stdout;
    assert!(told.contains("and does not run there as it is now\n"), "{told}");
    assert!(told.contains("stopped by user/tester: wait\n"), "{told}");
    ctl.run(&["explain", "check", "none", "--agent", "web-01"])
        .expect_code(5);

    let path = controller.path("dora.yaml").display().to_string();
    ctl.ok(&[
        "user", "create", "dora", "--role", "operator", "--scope", "env=dev", "--out", &path,
    ]);
    let told = ctl
        .ok(&[
            "explain",
            "access",
            "dora",
            "PolicyService/DeletePolicy",
            "--agent",
            "web-01",
        ])
        .stdout;
    assert!(
        told.starts_with("yes user/dora may PolicyService/DeletePolicy for web-01\n"),
        "{told}"
    );
    assert!(
        told.contains("yes role operator has policies.*, which includes policies.write\n"),
        "{told}"
    );
    assert!(told.contains("yes its scope env=dev matches\n"), "{told}");
    let told = ctl.ok(&["explain", "access", "dora", "policies.freeze"]).stdout;
    assert!(told.starts_with("no  user/dora may not policies.freeze\n"), "{told}");
    // What it says is what happens.
    let dora = controller.ctl_as("dora.yaml");
    dora.run(&["policy", "unfreeze"]).expect_code(4);
    let own = dora.ok(&["explain", "access", "dora", "agents.read"]).stdout;
    assert!(own.starts_with("yes user/dora may agents.read\n"), "{own}");
    dora.run(&["explain", "access", "tester", "agents.read"]).expect_code(4);
    ctl.run(&["explain", "access", "dora", "agents.raed"]).expect_code(2);
}

#[test]
fn what_was_applied_or_refused_is_in_the_audit_log_with_what_it_was_before_and_after() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let role = |permission: &str| {
        format!(
            "apiVersion: muster/v1\nkind: Role\nmetadata: {{ name: on-call }}\nspec: {{ permissions: [{permission}] }}\n"
        )
    };
    controller.apply(&role("states.read")).expect_code(0);
    controller.apply(&role("events.read")).expect_code(0);
    let path = controller.path("max.yaml").display().to_string();
    ctl.ok(&["role", "create", "maker", "--permission", "roles.*"]);
    ctl.ok(&["user", "create", "max", "--role", "maker", "--out", &path]);
    let file = controller.path("role.yaml");
    fs::write(&file, role("states.read")).expect("a file");
    let max = controller.ctl_as("max.yaml");
    max.run(&["apply", "-f", &file.display().to_string()]).expect_code(4);
    let entries = ctl.items(&["audit", "list"]).expect("entries");
    let applied: Vec<&Value> = entries
        .iter()
        .filter(|entry| {
            entry["method"]
                .as_str()
                .is_some_and(|it| it.ends_with("/ApplyManifests"))
        })
        .filter(|entry| entry["outcome"] != "AUDIT_OUTCOME_BEGUN")
        .collect();
    assert_eq!(applied.len(), 3, "{entries:#?}");
    for entry in &applied {
        assert_eq!(entry["resource"], "manifests/Role/on-call", "{entry}");
    }
    let digests = |caller: &str, reason: &str| {
        let of = |entry: &&&Value| entry["caller"] == caller && entry["reason"].as_str().unwrap_or_default() == reason;
        let digest = |entry: &Value, which: &str| entry[which].as_str().unwrap_or_default().to_owned();
        let both = |entry: &&Value| (digest(entry, "beforeDigest"), digest(entry, "afterDigest"));
        applied.iter().filter(of).map(both).collect::<Vec<_>>()
    };
    let mut own = digests("user/tester", "");
    own.sort_unstable();
    let [(nothing, made), (found, left)] = own.as_slice() else {
        panic!("{own:?}")
    };
    assert_eq!(nothing, "", "there was no role before the first");
    assert!(found == made && left != made && !left.is_empty(), "{own:?}");
    assert_eq!(digests("user/max", "ESCALATION"), [(left.clone(), String::new())]);
}

#[test]
fn tokens_are_made_by_a_template_and_stay_as_they_were_made() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let template = |uses: u32| {
        format!(
            "apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: {{ name: web, labels: {{ team: base }} }}\nspec:\n  ttl: 2h\n  \
             uses: {uses}\n  labels: {{ env: prod, role: web }}\n  source: 127.0.0.0/8\n  allowReenroll: true\n  onClone: fork\n  \
             ephemeral: 1d\n"
        )
    };
    controller.apply(&template(5)).expect_code(0);
    let create = |more: &[&str]| {
        let made = ctl.json(&[&["token", "create", "--template", "web"][..], more].concat());
        ctl.json(&["token", "get", made["token"]["id"].as_str().expect("an id")])
    };
    let plain = create(&[]);
    assert_eq!(
        (&plain["uses"], &plain["labels"]["role"]),
        (&5.into(), &"web".into()),
        "{plain}"
    );
    assert_eq!(
        (&plain["source"], &plain["onClone"]),
        (&"127.0.0.0/8".into(), &"ON_CLONE_FORK".into()),
        "{plain}"
    );
    assert_eq!(
        (&plain["allowReenroll"], &plain["ephemeral"]),
        (&true.into(), &"86400s".into()),
        "{plain}"
    );
    // What is said wins, and nothing can be said too.
    let other = create(&[
        "--uses",
        "1",
        "--label",
        "role=db",
        "--source",
        "",
        "--no-reenroll",
        "--ephemeral",
        "never",
        "--on-clone",
        "configured",
    ]);
    assert_eq!(
        (&other["uses"], &other["labels"]["role"], &other["labels"]["env"]),
        (&1.into(), &"db".into(), &"prod".into()),
        "{other}"
    );
    for gone in ["source", "onClone", "allowReenroll", "ephemeral"] {
        assert!(other[gone].is_null(), "{gone}: {other}");
    }
    // As user data, and for a machine.
    let data = ctl
        .ok(&["token", "create", "--template", "web", "--format", "cloud-init"])
        .stdout;
    assert!(
        data.starts_with("#cloud-config") && data.contains("labels env=prod,role=web"),
        "{data}"
    );
    let token = controller.token(&["--template", "web"]);
    let _agent = muster_tests::agent::Setup::new("web-01", token).start();
    controller.wait_for_agent("web-01", "ONLINE");
    let of_web = ctl
        .items(&["agent", "list", "-l", "env=prod,role=web"])
        .expect("agents");
    assert_eq!(of_web.len(), 1, "{of_web:?}");

    // Planned, changed, and what was made stays.
    let file = controller.path("template.yaml");
    fs::write(&file, template(7)).expect("a file");
    let path = file.display().to_string();
    let planned = ctl.run(&["plan", "-f", &path, "--exit-code"]).expect_code(7).stdout;
    assert!(
        planned.contains("~ TokenTemplate/web\n    spec.uses  5 -> 7\n"),
        "{planned}"
    );
    ctl.ok(&["apply", "-f", &path]);
    let id = plain["id"].as_str().expect("an id");
    assert_eq!(ctl.json(&["token", "get", id])["uses"], 5);
    assert_eq!(create(&[])["uses"], 7);
    let exported = ctl.ok(&["export", "tokentemplate"]).stdout;
    assert!(
        exported.contains("team: base") && exported.contains("uses: 7"),
        "{exported}"
    );
    fs::write(&file, exported).expect("a file");
    ctl.run(&["plan", "-f", &path, "--exit-code"]).expect_code(0);
    ctl.ok(&["rollback", "tokentemplate", "web"]);
    assert_eq!(ctl.json(&["tokentemplate", "get", "web"])["spec"]["uses"], 5);
    ctl.ok(&["tokentemplate", "delete", "web"]);
    ctl.run(&["token", "create", "--template", "web"]).expect_code(5);
    assert_eq!(
        ctl.items(&["versions", "tokentemplate", "web"])
            .expect("versions")
            .len(),
        4
    );
    // A mistake is shown with its line before anything is sent.
    fs::write(&file, template(7).replace("127.0.0.0/8", "127.0.0.0/80")).expect("a file");
    let refused = ctl.run(&["validate", "-f", &path]).expect_code(2);
    assert!(refused.stderr.contains("template.yaml:8:11: source"), "{refused}");
}
