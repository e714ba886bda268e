//! Applying manifests: from files to the controller, and from its complaints back to lines.

use std::fs;

use muster_proto::{
    error::{ErrorReason, FieldViolation, Problem},
    v1::{self, PlannedAction},
};
use musterctl::exit::Exit;
use tonic::Code;

use crate::fake::{Fake, Script};

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: {name} }}\nspec:\n  selector: env=prod\n  \
         schedule: {{ interval: 60s }}\n  run: {{ load: {{ warning: \"5\", critical: \"10\" }} }}\n"
    )
}

/// A controller, and a folder `policies` with a file for each of `files`.
async fn with_files(script: Script, files: &[(&str, &str)]) -> (Fake, String) {
    let fake = Fake::start(script).await;
    let folder = fake.folder().join("policies");
    fs::create_dir(&folder).unwrap();
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    (fake, folder.display().to_string())
}

fn planned(actions: &[(&str, PlannedAction)]) -> Script {
    let changes = actions.iter().map(|(name, action)| v1::PlannedChange {
        kind: "Check".to_owned(),
        name: (*name).to_owned(),
        action: (*action).into(),
        starts: i32::from(*name != "load"),
        ..Default::default()
    });
    Script {
        plan: v1::Plan {
            changes: changes.collect(),
            agents_touched: 1,
            agents_total: 3,
            digest: "sha256:plan".to_owned(),
            revision: 8,
        },
        ..Default::default()
    }
}

#[tokio::test]
async fn every_policy_of_a_folder_is_applied_in_one_call() {
    let script = planned(&[
        ("disk-root", PlannedAction::Create),
        ("load", PlannedAction::Create),
        ("web", PlannedAction::Update),
    ]);
    let (a, b) = (manifest("disk-root"), manifest("load") + "---\n" + &manifest("web"));
    let files = [("a.yaml", a.as_str()), ("b.yml", &b), ("notes.txt", "nothing")];
    let (fake, folder) = with_files(script, &files).await;

    let run = fake.run(&["apply", "-f", &folder]).await.expect(Exit::Success);
    assert_eq!(
        run.out,
        "Check/disk-root created\nCheck/load created\nCheck/web updated\n"
    );
    assert_eq!(run.err, "Check/load matches no agent now\n");
    let asked = fake.asked();
    assert_eq!(asked.len(), 2, "a plan, and that plan");
    assert!(asked[1].contains("sha256:plan"), "{asked:?}");
    let order: Vec<_> = ["disk-root", "load", "web"]
        .map(|name| asked[0].find(&format!("name: \"{name}\"")))
        .to_vec();
    assert!(order.is_sorted() && order[0].is_some(), "{asked:?}");

    let run = fake
        .run(&["apply", "-f", &folder, "-o", "json"])
        .await
        .expect(Exit::Success);
    assert_eq!(run.json()["items"][0]["action"], "PLANNED_ACTION_CREATE");
    assert_eq!(run.json()["items"][0]["name"], "disk-root");
    assert_eq!(
        (&run.json()["revision"], run.err.as_str()),
        (&serde_json::json!("8"), "")
    );
    let run = fake
        .run(&["apply", "-f", &folder, "-o", "name"])
        .await
        .expect(Exit::Success);
    assert_eq!(run.out, "Check/disk-root\nCheck/load\nCheck/web\n");
}

#[tokio::test]
async fn a_mistake_is_shown_with_its_line_and_nothing_is_sent() {
    let misspelt = manifest("b").replace("interval:", "intervall:");
    let wrong = manifest("c").replace("env=prod", "\"env=prod,\"");
    let good = manifest("a");
    let files = [("a.yaml", good.as_str()), ("b.yaml", &misspelt), ("c.yaml", &wrong)];
    let (fake, folder) = with_files(Script::default(), &files).await;

    let run = fake
        .run(&["apply", "-f", &folder])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(
        run.err.contains("2 mistakes in 2 manifest files; nothing was applied"),
        "{}",
        run.err
    );
    let place = format!("{folder}/b.yaml:6:15: unknown field `intervall`");
    assert!(run.err.contains(&place), "{}", run.err);
    let excerpt = "    6 |   schedule: { intervall: 60s }\n      |               ^ did you mean `interval`?";
    assert!(run.err.contains(excerpt), "{}", run.err);
    assert!(run.err.contains(&format!("{folder}/c.yaml:5:")), "{}", run.err);
    fake.was_left_alone();
}

#[tokio::test]
async fn what_the_controller_refuses_is_shown_at_its_line() {
    let status = Problem::invalid_fields(vec![
        FieldViolation::new("manifests[1].check.selector", "label env is taken"),
        FieldViolation::new("manifests[0].metadata.name", "no such name, please"),
    ]);
    let both = manifest("a") + "---\n" + &manifest("b");
    let script = Script {
        failures: [status.into()].into(),
        ..Default::default()
    };
    let (fake, folder) = with_files(script, &[("x.yaml", &both)]).await;

    let run = fake
        .run(&["apply", "-f", &folder])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(
        run.err
            .contains("says INVALID_ARGUMENT INVALID_FIELD; nothing was applied"),
        "{}",
        run.err
    );
    let excerpt = "x.yaml:13:13: selector: label env is taken\n   13 |   selector: env=prod\n      |             ^\n";
    assert!(run.err.contains(excerpt), "{}", run.err);
    assert!(
        run.err.contains("x.yaml:3:19: metadata.name: no such name, please\n"),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn a_refusal_that_is_about_no_line_is_told_as_it_is() {
    let status = Problem::new(Code::Unavailable, ErrorReason::Unavailable, "the database is away");
    let script = Script {
        failures: [status.into()].into(),
        ..Default::default()
    };
    let (fake, folder) = with_files(script, &[("x.yaml", &manifest("a"))]).await;
    let run = fake
        .run(&["apply", "-f", &folder])
        .await
        .expect(Exit::Unreachable)
        .explained();
    assert!(run.err.contains("the database is away"), "{}", run.err);
}

#[tokio::test]
async fn standard_input_is_a_manifest_too() {
    let fake = Fake::start(planned(&[("disk-root", PlannedAction::Create)])).await;
    let run = fake
        .run_with_input(&["apply", "-f", "-"], &manifest("disk-root"))
        .await
        .expect(Exit::Success);
    assert_eq!(run.out, "Check/disk-root created\n");
    let run = fake
        .run_with_input(&["apply", "-f", "-"], "kind: Chek\n")
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(run.err.contains("standard input:1:7: "), "{}", run.err);
    assert!(run.err.contains("did you mean `Check`?"), "{}", run.err);
}

#[tokio::test]
async fn nothing_to_apply_is_a_mistake() {
    let (fake, folder) = with_files(Script::default(), &[("notes.txt", "nothing")]).await;
    let run = fake
        .run(&["apply", "-f", &folder])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(run.err.contains("no .yaml or .yml file is in"), "{}", run.err);
    let run = fake
        .run_with_input(&["apply", "-f", "-"], "# later\n---\n")
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(run.err.contains("nothing can be applied"), "{}", run.err);
    let run = fake
        .run(&["apply", "-f", &format!("{folder}/none.yaml")])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(run.err.contains("none.yaml: No such file"), "{}", run.err);
    fake.was_left_alone();
}

#[tokio::test]
async fn mistakes_in_json_are_one_object() {
    let (fake, folder) = with_files(Script::default(), &[("a.yaml", &manifest("a").replace("spec", "spek"))]).await;
    let run = fake
        .run(&["apply", "-f", &folder, "-o", "json"])
        .await
        .expect(Exit::Usage);
    let error: serde_json::Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!((error["exitCode"].as_i64(), run.err.lines().count()), (Some(2), 1));
    assert!(
        error["details"][0]
            .as_str()
            .unwrap()
            .contains("a.yaml:4:1: unknown field `spek`"),
        "{error}"
    );
}

#[tokio::test]
async fn what_touches_many_machines_is_applied_by_who_says_so() {
    let mut script = planned(&[("disk-root", PlannedAction::Create)]);
    (script.plan.agents_touched, script.plan.agents_total) = (51, 1_000);
    let (fake, folder) = with_files(script, &[("x.yaml", &manifest("disk-root"))]).await;
    let run = fake
        .run(&["apply", "-f", &folder])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(run.err.contains("touches 51 of 1,000 agents"), "{}", run.err);
    assert_eq!(fake.asked().len(), 1, "nothing was applied");
    fake.run(&["apply", "-f", &folder, "--yes"]).await.expect(Exit::Success);
}

#[tokio::test]
async fn a_plan_is_shown_kept_and_answered_by_an_exit_code() {
    let script = planned(&[("disk-root", PlannedAction::Update), ("web", PlannedAction::Unchanged)]);
    let (fake, folder) = with_files(script, &[("x.yaml", &manifest("disk-root"))]).await;
    let file = fake.folder().join("change.plan").display().to_string();
    let run = fake
        .run(&["plan", "-f", &folder, "--exit-code", "--out", &file])
        .await
        .expect(Exit::Changes);
    assert_eq!(
        run.out,
        "~ Check/disk-root\n    starts on 1 agent\n1 to update, 1 unchanged; touches 1 of 3 agents.\n"
    );
    let run = fake.run(&["apply", "--plan", &file]).await.expect(Exit::Success);
    assert_eq!(run.out, "Check/disk-root updated\nCheck/web unchanged\n");
    let asked = fake.asked();
    assert!(
        asked[1].contains("sha256:plan") && asked[1].contains("disk-root"),
        "{asked:?}"
    );
    fs::write(&file, "{}").unwrap();
    let run = fake
        .run(&["apply", "--plan", &file])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(run.err.contains("is no plan that can be applied"), "{}", run.err);
}

#[tokio::test]
async fn manifests_are_found_valid_without_a_controller() {
    let role = "apiVersion: muster/v1\nkind: Role\nmetadata: { name: on-call }\nspec: { permissions: [agents.read] }\n";
    let grant = "apiVersion: muster/v1\nkind: Grant\nspec: { user: mira, role: on-call, scope: env=dev }\n";
    let template = "apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: { name: web }\nspec: { ttl: 1h, labels: { env: prod } }\n";
    let text = [manifest("disk-root").as_str(), role, grant, template].join("---\n");
    let (fake, folder) = with_files(Script::default(), &[("x.yaml", &text)]).await;
    let run = fake.run(&["validate", "-f", &folder]).await.expect(Exit::Success);
    assert_eq!(run.out, "4 manifests in 1 file: valid\n");
    fs::write(
        format!("{folder}/y.yaml"),
        grant.replace("scope: env=dev", "scope: fact.os.id=debian"),
    )
    .unwrap();
    let run = fake
        .run(&["validate", "-f", &folder])
        .await
        .expect(Exit::Usage)
        .explained();
    assert!(
        run.err.contains("y.yaml:3:") && run.err.contains("facts are what machines say"),
        "{}",
        run.err
    );
    fake.was_left_alone();
}
