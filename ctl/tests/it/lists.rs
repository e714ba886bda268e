//! Lists and single things, in every format.

use muster_proto::v1;
use musterctl::exit::Exit;
use serde_json::{Value, json};

use crate::fake::{Fake, Script};

fn agent(name: &str) -> v1::Agent {
    v1::Agent {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        status: v1::AgentStatus::Online.into(),
        version: "0.1.0".to_owned(),
        revision: 7,
        ..Default::default()
    }
}

fn state(agent: &str, check: &str, state: v1::CheckState) -> v1::State {
    v1::State {
        agent_name: agent.to_owned(),
        check: check.to_owned(),
        state: state.into(),
        last_state: state.into(),
        freshness: v1::Freshness::Fresh.into(),
        output: "what the plugin said".to_owned(),
        ..Default::default()
    }
}

fn policy(name: &str) -> v1::Policy {
    let text = format!(
        "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: {name}, labels: {{ team: base }} }}\nspec:\n  selector: \"*\"\n  \
         schedule: {{ interval: 90s }}\n  run: {{ load: {{ warning: \"5\", critical: \"10\" }} }}\n"
    );
    let document = muster_proto::manifest::parse("test", &text).unwrap().remove(0).document;
    let mut policy = muster_proto::manifest::to_policy(document).unwrap();
    policy.counts = Some(v1::PolicyCounts {
        assigned: 3,
        applied: 2,
        refused: 1,
    });
    policy.metadata.as_mut().unwrap().version = 5;
    policy
}

async fn fleet(page: usize) -> Fake {
    let agents = ["a", "b", "c", "d", "e"].map(agent).to_vec();
    Fake::start(Script {
        agents,
        page,
        fleet_size: 3_004,
        ..Default::default()
    })
    .await
}

#[tokio::test]
async fn a_list_in_json_is_all_pages_joined_into_items_and_revision() {
    let fake = fleet(2).await;
    let run = fake.run(&["agent", "list", "-o", "json"]).await.expect(Exit::Success);
    let list = run.json();
    let keys: Vec<_> = list.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["items", "revision"]);
    assert_eq!(
        list["revision"], "100",
        "of the first page, so that a watch from there misses nothing"
    );
    let names: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["name"])
        .collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(list["items"][0]["status"], "AGENT_STATUS_ONLINE");
    assert_eq!(run.err, "", "notes are for people");
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn an_empty_list_is_a_success_with_empty_items() {
    let fake = Fake::start(Script {
        fleet_size: 3,
        ..Default::default()
    })
    .await;
    for noun in ["agent", "state", "policy"] {
        let run = fake.run(&[noun, "list", "-o", "json"]).await.expect(Exit::Success);
        assert_eq!(run.json()["items"], json!([]), "{noun}");
    }
    let run = fake
        .run(&["agent", "list", "-l", "env=none"])
        .await
        .expect(Exit::Success);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", "0 of 3 agents match.\n"));
}

#[tokio::test]
async fn a_table_is_on_stdout_and_its_footer_on_stderr() {
    let run = fleet(0)
        .await
        .run(&["agent", "list", "-l", "env=prod"])
        .await
        .expect(Exit::Success);
    assert!(
        run.out
            .starts_with("NAME  STATUS  FOR  SEEN  VERSION  POLICIES  PROBLEMS  LABELS\na     online"),
        "{}",
        run.out
    );
    assert_eq!(run.out.lines().count(), 6);
    assert_eq!(run.err, "5 of 3,004 agents match: 5 online.\n");
}

#[tokio::test]
async fn yaml_says_what_json_says_and_names_are_one_a_line() {
    let fake = fleet(2).await;
    let json = fake.run(&["agents", "list", "-o", "json"]).await.json();
    let yaml = fake.run(&["agents", "list", "-o", "yaml"]).await.expect(Exit::Success);
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml.out).unwrap(), json);
    assert_eq!(fake.run(&["agents", "list", "-o", "name"]).await.out, "a\nb\nc\nd\ne\n");
}

#[tokio::test]
async fn a_limit_asks_for_no_more_than_it_shows() {
    let fake = fleet(2).await;
    let run = fake.run(&["agent", "list", "--limit", "3"]).await.expect(Exit::Success);
    assert_eq!(run.out.lines().count(), 4);
    assert_eq!(run.err, "5 agents; the first 3 are shown.\n");
    assert_eq!(fake.asked().len(), 2);
}

#[tokio::test]
async fn what_is_asked_of_states_reaches_the_controller() {
    let fake = Fake::start(Script {
        states: vec![state("db-01", "load", v1::CheckState::Critical)],
        counts: v1::StateCounts {
            ok: 41_819,
            critical: 1,
            ..Default::default()
        },
        ..Default::default()
    })
    .await;
    let arguments = [
        "state",
        "list",
        "-l",
        "env=prod",
        "--agent",
        "db-01",
        "--check",
        "load",
        "--problems",
    ];
    let run = fake.run(&arguments).await.expect(Exit::Success);
    assert!(run.out.contains("db-01  load   CRITICAL"), "{}", run.out);
    assert_eq!(run.err, "1 problem in 41,820 states: 1 critical\n");
    let asked = fake.asked().remove(0);
    for part in [
        r#"selector: "env=prod""#,
        r#"agent: "db-01""#,
        r#"check: "load""#,
        "problems: true",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    assert_eq!(fake.run(&["state", "list", "-o", "name"]).await.out, "db-01/load\n");
}

#[tokio::test]
async fn policies_are_shown_as_manifests_that_apply_takes_back() {
    let policies = vec![policy("disk-root"), policy("load")];
    let fake = Fake::start(Script {
        policies: policies.clone(),
        page: 1,
        ..Default::default()
    })
    .await;
    let list = fake
        .run(&["policy", "list", "-o", "json"])
        .await
        .expect(Exit::Success)
        .json();
    let first = &list["items"][0];
    assert_eq!(
        (&first["kind"], &first["metadata"]["name"]),
        (&json!("Check"), &json!("disk-root"))
    );
    assert_eq!(first["status"], json!({ "assigned": 3, "applied": 2, "refused": 1 }));

    for arguments in [
        &["policy", "list", "-o", "yaml"][..],
        &["policy", "get", "disk-root", "-o", "yaml"],
    ] {
        let shown = fake.run(arguments).await.expect(Exit::Success).out;
        fake.script.lock().unwrap().asked.clear();
        fake.run_with_input(&["apply", "-f", "-"], &shown)
            .await
            .expect(Exit::Success);
        let sent = fake.asked().remove(0);
        assert!(
            sent.contains(r#"name: "disk-root""#) && sent.contains("seconds: 90"),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn a_table_and_a_page_of_policies_say_how_far_they_have_come() {
    let fake = Fake::start(Script {
        policies: vec![policy("disk-root")],
        ..Default::default()
    })
    .await;
    let list = fake.run(&["policies", "list"]).await.expect(Exit::Success);
    assert!(
        list.out.contains("Check/disk-root  *         1m30s  2/3      1"),
        "{}",
        list.out
    );
    assert_eq!(list.err, "1 policy: 1 refused somewhere.\n");
    insta::assert_snapshot!(
        fake.run(&["policy", "get", "disk-root"])
            .await
            .expect(Exit::Success)
            .out
    );
    let asked = fake.asked();
    assert!(asked[1].contains(r#"kind: "Check", name: "disk-root""#), "{asked:?}");
}

#[tokio::test]
async fn deleting_policies_says_of_each_that_it_is_gone() {
    let fake = Fake::start(Script::default()).await;
    let run = fake
        .run(&["policy", "delete", "load", "Check/memory"])
        .await
        .expect(Exit::Success);
    assert_eq!(run.out, "Check/load deleted\nCheck/memory deleted\n");
    let run = fake
        .run(&["policy", "delete", "load", "-o", "json"])
        .await
        .expect(Exit::Success);
    assert_eq!(
        run.json(),
        json!({ "items": [{ "kind": "Check", "name": "load" }], "revision": "101" })
    );
}

#[tokio::test]
async fn the_page_of_an_agent_lists_its_problems() {
    let problems = Some(v1::AgentProblems {
        critical: 1,
        ..Default::default()
    });
    let fake = Fake::start(Script {
        agents: vec![v1::Agent {
            problems,
            ..agent("db-01")
        }],
        states: vec![state("db-01", "load", v1::CheckState::Critical)],
        ..Default::default()
    })
    .await;
    let run = fake.run(&["agent", "get", "db-01"]).await.expect(Exit::Success);
    assert!(run.out.contains("Problems (1 crit)\n  CHECK  STATE"), "{}", run.out);
    assert!(run.out.contains("what the plugin said"), "{}", run.out);
    let run = fake
        .run(&["agent", "get", "db-01", "-o", "json"])
        .await
        .expect(Exit::Success);
    assert_eq!(
        (&run.json()["name"], &run.json()["problems"]["critical"]),
        (&json!("db-01"), &json!(1))
    );
}

#[tokio::test]
async fn labels_are_set_and_removed_in_one_call() {
    let fake = fleet(0).await;
    let run = fake
        .run(&["agent", "label", "a", "role=db", "zone-"])
        .await
        .expect(Exit::Success);
    assert!(run.out.starts_with("NAME"), "{}", run.out);
    let asked = fake.asked().remove(0);
    assert!(asked.contains(r#"set: {"role": "db"}, remove: ["zone"]"#), "{asked}");
    assert_eq!(
        fake.run(&["agent", "label", "a", "role=db", "-o", "json"]).await.json()["name"],
        "a"
    );
}

#[tokio::test]
async fn a_metric_is_shown_by_instance_and_series() {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let metric = v1::MetricValue {
        name: "node_load1".to_owned(),
        labels: [
            label("instance", "db-01"),
            label("job", "node"),
            label("agent_id", "7d"),
        ]
        .into(),
        value: 0.52,
        time: Some(prost_types::Timestamp {
            seconds: 1_795_215_596,
            nanos: 0,
        }),
        r#type: v1::MetricType::Gauge.into(),
    };
    let fake = Fake::start(Script {
        metrics: vec![metric],
        ..Default::default()
    })
    .await;
    let run = fake
        .run(&["metric", "query", "node_load1", "-l", "env=prod"])
        .await
        .expect(Exit::Success);
    assert_eq!(
        run.out,
        "INSTANCE  SERIES      VALUE  AGE\ndb-01     node_load1  0.52   4s\n"
    );
    assert_eq!(run.err, "1 series\n");
    let run = fake
        .run(&["metric", "query", "node_load1", "-o", "name"])
        .await
        .expect(Exit::Success);
    assert_eq!(run.out, "node_load1{agent_id=\"7d\",instance=\"db-01\",job=\"node\"}\n");
    let run = fake
        .run(&["metric", "query", "node_load1", "-o", "json"])
        .await
        .expect(Exit::Success);
    assert_eq!(run.json()["items"][0]["value"], json!(0.52));
}

#[tokio::test]
async fn the_order_of_words_of_other_tools_is_run_and_told_to_people() {
    let fake = fleet(0).await;
    let ours = fake.run(&["agent", "list"]).await.expect(Exit::Success);
    let theirs = fake.run(&["get", "agents"]).await.expect(Exit::Success);
    assert_eq!(theirs.out, ours.out);
    let note = "musterctl: that is `musterctl agent list`\n";
    assert_eq!(theirs.err, note.to_owned() + &ours.err);
    let run = fake.run(&["list", "agents", "-o", "json"]).await.expect(Exit::Success);
    assert_eq!(run.err, "", "scripts are not told");
    let run = fake.run(&["describe", "agent"]).await.expect(Exit::Success);
    assert_eq!(run.out, ours.out, "without a name it is the list");
    // What it was taken for is told with what is missing there.
    let run = fake.run(&["label", "agent"]).await.expect(Exit::Usage);
    assert!(
        run.err.starts_with("musterctl: that is `musterctl agent label`\n"),
        "{run:?}"
    );
}

#[tokio::test]
async fn json_lines_are_an_object_a_line() {
    let fake = fleet(2).await;
    let run = fake.run(&["agent", "list", "-o", "jsonl"]).await.expect(Exit::Success);
    let lines: Vec<Value> = run
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&Value> = lines.iter().map(|line| &line["name"]).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(run.err, "");
    let run = fake.run(&["version", "-o", "jsonl"]).await.expect(Exit::Success);
    assert_eq!(run.out.lines().count(), 1, "{run:?}");

    let fake = Fake::start(Script::default()).await;
    fake.script
        .lock()
        .unwrap()
        .failures
        .push_back(tonic::Status::not_found("gone"));
    let run = fake.run(&["agent", "list", "-o", "jsonl"]).await.expect(Exit::NotFound);
    assert_eq!(run.out, "");
    let error: Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!((run.err.lines().count(), &error["exitCode"]), (1, &json!(5)), "{run:?}");
}

#[tokio::test]
async fn several_agents_are_named_chosen_or_read_from_a_file() {
    let fake = fleet(0).await;
    let list = fake.folder().join("agents.txt");
    std::fs::write(&list, "a # the first\n\nb\n").unwrap();
    let list = list.display().to_string();
    for (chosen, number) in [
        (&["a", "b"][..], 2),
        (&["-l", "env=prod"], 5),
        (&["--all"], 5),
        (&["--nodes-from", &list], 2),
    ] {
        fake.script.lock().unwrap().asked.clear();
        let run = fake
            .run(&[&["agent", "label"], chosen, &["rack=7", "-o", "json"]].concat())
            .await;
        let run = run.expect(Exit::Success);
        assert_eq!(run.json()["items"].as_array().unwrap().len(), number, "{chosen:?}");
        let changes = fake
            .asked()
            .iter()
            .filter(|asked| asked.contains("UpdateAgentLabels"))
            .count();
        assert_eq!(changes, number, "{chosen:?}");
    }
    let run = fake
        .run_with_input(&["agent", "label", "--nodes-from", "-", "rack=7", "-o", "name"], "b\n")
        .await
        .expect(Exit::Success);
    assert_eq!(run.out, "b\n");
    // One that is named is itself, as ever.
    let run = fake
        .run(&["agent", "label", "a", "rack=7", "-o", "json"])
        .await
        .expect(Exit::Success);
    assert_eq!(run.json()["name"], "a");
}

#[tokio::test]
async fn nothing_is_changed_when_one_of_several_is_not_there() {
    let fake = fleet(0).await;
    let run = fake.run(&["agent", "label", "a", "nobody", "rack=7"]).await;
    run.expect(Exit::NotFound).explained();
    assert!(
        !fake.asked().iter().any(|asked| asked.contains("Update")),
        "{:?}",
        fake.asked()
    );
    for arguments in [
        &["agent", "label", "rack=7", "zone"][..],
        &["agent", "label", "a", "-l", "env=prod", "rack=7"],
        &["agent", "label", "a", "b", "rack=7", "--revision", "3"],
        &["agent", "label", "--nodes-from", "/nowhere", "rack=7"],
    ] {
        fake.run(arguments).await.expect(Exit::Usage).explained();
    }
}

#[tokio::test]
async fn names_and_labels_are_completed_as_they_are_now() {
    let mut one = agent("db-01");
    one.labels = vec![v1::Label {
        key: "env".to_owned(),
        value: "prod".to_owned(),
        ..Default::default()
    }];
    let fake = Fake::start(Script {
        agents: vec![one, agent("web-01")],
        policies: vec![policy("disk-root")],
        ..Default::default()
    })
    .await;
    for (words, wanted) in [
        (&["agent", "get", ""][..], "db-01\nweb-01\n"),
        (&["describe", "agent", "w"], "web-01\n"),
        (&["agent", "label", "db-01", "e"], "env=prod\n"),
        (&["agent", "list", "-l", "role=db,e"], "role=db,env=prod\n"),
        (&["policy", "delete", ""], "disk-root\n"),
        (&["--context", ""], "test\n"),
        (&["--context", "nowhere", "agent", "get", ""], ""),
    ] {
        let run = fake
            .run(&[&["--timeout", "30s", "__complete", "--"], words].concat())
            .await
            .expect(Exit::Success);
        assert_eq!((run.out.as_str(), run.err.as_str()), (wanted, ""), "{words:?}");
    }
    fake.script.lock().unwrap().silent = true;
    let run = fake
        .run(&["__complete", "--", "agent", "get", ""])
        .await
        .expect(Exit::Success);
    assert_eq!((run.out, run.err), (String::new(), String::new()));
}
