//! What the pages say of `-o json`, against what is printed of real things.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use muster_proto::json::descriptor_pool;
use muster_tests::{
    Agent, Controller, Ctl, binaries,
    ctl::Outcome,
    dial,
    poll::{self, SECOND},
    process, tools,
};
use serde_json::{Value, json};

const CHECK: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: full, owner: base, labels: { team: base } }\n\
                     spec: { selector: \"*\", schedule: { interval: 1s }, run: { disk: { warning: \"100%\", critical: \"100%\" } } }\n";
const TEMPLATE: &str = "apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: { name: web }\nspec: { uses: 10 }\n";

/// A row of the table: the command as it stands there, and the message that it shows, where it is one of the contract.
const NOUNS: &[(&str, Option<&str>)] = &[
    ("agent list", Some("Agent")),
    ("apikey list", Some("ApiKey")),
    ("audit list", Some("AuditEntry")),
    ("ca status", Some("Ca")),
    ("cert list", Some("Certificate")),
    ("context list", None),
    ("controller get", Some("Controller")),
    ("event list", Some("Event")),
    ("grant list", Some("Grant")),
    ("history usage", Some("AgentHistory")),
    ("log list", Some("StoredLog")),
    ("metric query", Some("MetricValue")),
    ("policy list", None),
    ("result list", Some("StoredResult")),
    ("role list", Some("Role")),
    ("role permissions", Some("Permission")),
    ("state list", Some("State")),
    ("token list", Some("Token")),
    ("tokentemplate list", None),
    ("user list", Some("User")),
    ("versions", Some("ManifestVersion")),
    ("whoami", None),
];

/// A fleet of one, of which there is something of everything.
fn ground() -> (Controller, Agent) {
    let controller = Controller::start();
    controller.apply(&format!("{CHECK}---\n{TEMPLATE}"));
    let mut setup = controller.agent("web-01");
    setup.config["logs"] = json!({ "agent": "info" });
    let agent = setup.start();
    let ctl = controller.ctl();
    ctl.ok(&["role", "create", "on-call", "--permission", "states.read"]);
    ctl.ok(&["apikey", "create", "--role", "on-call", "--description", "x"]);
    poll::until("all of it reports", 60 * SECOND, || {
        ctl.state("web-01", "full")?;
        for (noun, list) in [
            ("a metric", &["metric", "query", "node_load1"][..]),
            ("a log", &["log", "list"]),
            ("an event", &["event", "list"]),
        ] {
            if ctl.items(list)?.is_empty() {
                return Err(format!("{noun} is not there yet"));
            }
        }
        Ok(())
    });
    (controller, agent)
}

/// What the command of a row gives: the items of a list, or the one thing.
fn shown(ctl: &Ctl, command: &str) -> Vec<Value> {
    let more: &[&str] = match command {
        "metric query" => &["node_load1"],
        "versions" => &["check", "full"],
        "result list" => &["--agent", "web-01"],
        "apikey list" | "token list" => &["--all"],
        _ => &[],
    };
    let words: Vec<&str> = command.split(' ').chain(more.iter().copied()).collect();
    let document = ctl.json(&words);
    match document["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![document],
    }
}

/// The rows of the table of the page: command, what each item has, what some have.
fn table() -> BTreeMap<String, [BTreeSet<String>; 2]> {
    let page = fs::read_to_string(binaries::workspace().join("docs/musterctl.md")).expect("the page");
    let (_, below) = page.split_once("\n## What JSON holds\n").expect("the heading");
    let below = below.split("\n## ").next().unwrap_or_default();
    let code = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows = below.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [command, each, some] = cells[..] else {
            panic!("{row}")
        };
        (
            code(command).concat(),
            [each, some].map(|cell| code(cell).into_iter().collect()),
        )
    })
    .collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value
        .as_object()
        .map(|fields| fields.keys().cloned().collect())
        .unwrap_or_default()
}

#[test]
fn what_json_holds_is_what_the_page_says() {
    let (controller, _agent) = ground();
    let ctl = controller.ctl();
    let table = table();
    let wanted: BTreeSet<&str> = NOUNS.iter().map(|(command, _)| *command).collect();
    assert_eq!(table.keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted);
    let command_line = musterctl::cli::command();
    for noun in command_line
        .get_subcommands()
        .filter(|noun| noun.find_subcommand("list").is_some())
    {
        assert!(
            wanted.contains(format!("{} list", noun.get_name()).as_str()),
            "{} is not told of",
            noun.get_name()
        );
    }
    let mut wrong = Vec::new();
    for (command, message) in NOUNS {
        let items = shown(&ctl, command);
        assert!(!items.is_empty(), "{command} shows nothing");
        let seen: BTreeSet<String> = items.iter().flat_map(keys).collect();
        let always: BTreeSet<String> = seen
            .iter()
            .filter(|key| items.iter().all(|item| item.get(key.as_str()).is_some()))
            .cloned()
            .collect();
        let [each, some] = &table[*command];
        let told: BTreeSet<String> = each.union(some).cloned().collect();
        if !each.is_subset(&always) || !seen.is_subset(&told) {
            wrong.push(format!(
                "{command}: each item has {always:?}; some have {seen:?}; the page says {each:?} and {some:?}"
            ));
        }
        if let Some(message) = message {
            let message = descriptor_pool()
                .get_message_by_name(&format!("muster.v1.{message}"))
                .expect("a message");
            let unknown: Vec<&String> = told
                .iter()
                .filter(|name| message.get_field_by_json_name(name).is_none())
                .collect();
            assert!(unknown.is_empty(), "{command}: {unknown:?} are no fields");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ca = ctl.json(&["ca", "status"]);
    assert_eq!([&ca["agentsTotal"], &ca["agentsAcknowledged"]], [1, 1], "{ca}");
    assert_eq!(
        keys(&ctl.json(&["agent", "get", "web-01"])),
        keys(&shown(&ctl, "agent list")[0])
    );
    lists(&ctl);
    documents(&controller, &ctl);
    over_rest(&controller);
}

/// `{"items": [...], "revision": "..."}`, and the same an object a line.
fn lists(ctl: &Ctl) {
    for list in [
        &["agent", "list"][..],
        &["state", "list"],
        &["role", "list"],
        &["user", "list"],
    ] {
        let document = ctl.json(list);
        assert!(
            document["revision"]
                .as_str()
                .is_some_and(|text| text.parse::<u64>().is_ok()),
            "{document}"
        );
        let lines = ctl.ok(&[list, &["-o", "jsonl"]].concat()).stdout;
        let items = document["items"].as_array().expect("items");
        assert_eq!(lines.lines().count(), items.len());
        for (line, item) in lines.lines().zip(items) {
            let line: Value = serde_json::from_str(line).expect("an object");
            assert_eq!(keys(&line), keys(item), "{line}");
        }
    }
}

/// Documents that are no lists of what is there.
fn documents(controller: &Controller, ctl: &Ctl) {
    let has = |value: &Value, wanted: &[&str]| {
        let keys = keys(value);
        assert!(wanted.iter().all(|key| keys.contains(*key)), "{wanted:?}: {value}");
    };
    let doctor = ctl.json(&["doctor"]);
    for finding in doctor["items"].as_array().expect("findings") {
        has(finding, &["check", "result", "found", "do"]);
        assert!(
            ["ok", "wrong", "skipped"].contains(&finding["result"].as_str().expect("a word")),
            "{finding}"
        );
    }

    let path = controller.path("more.yaml");
    let more = CHECK.replace("owner: base, ", "").replace("name: full", "name: more");
    fs::write(&path, format!("{more}---\n{CHECK}")).expect("a file");
    let plan = ctl.json(&["plan".as_ref(), "-f".as_ref(), path.as_os_str()]);
    has(&plan, &["items", "agentsTouched", "agentsTotal", "digest"]);
    let created = &plan["items"][0];
    has(created, &["kind", "name", "action", "fields", "starts", "agents"]);
    assert_eq!(
        [&created["action"], &plan["items"][1]["action"]],
        ["PLANNED_ACTION_CREATE", "PLANNED_ACTION_UNCHANGED"]
    );

    let explained = ctl.json(&["explain", "check", "full", "--agent", "web-01"]);
    let trace = explained.get("trace").unwrap_or(&explained);
    has(trace, &["text", "result", "parts"]);
    assert_eq!(trace["result"], "TRACE_RESULT_YES", "{explained}");

    has(&ctl.json(&["audit", "verify"]), &["good", "findings", "notes"]);
    has(&ctl.json(&["token", "create"]), &["secret", "caPins", "endpoints"]);
    has(&ctl.json(&["version"]), &["version"]);

    let refused = ctl.run(&["agent", "get", "nobody", "-o", "json"]).expect_code(5);
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    let error: Value = serde_json::from_str(&refused.stderr).expect("an object");
    has(
        &error,
        &[
            "message",
            "what",
            "why",
            "do",
            "exitCode",
            "code",
            "reason",
            "requestId",
        ],
    );
    assert_eq!(error["reason"], "NOT_FOUND");
}

/// The pages of a list, and an error.
fn over_rest(controller: &Controller) {
    if tools::find("curl").is_none() {
        return tools::skipped("the shapes of REST", "curl is not installed");
    }
    let pem = controller.path("me.pem");
    fs::write(&pem, dial::operator_pem(&controller.path("tester.yaml"))).expect("a file");
    let ask = |path: &str, query: &[&str]| -> Value {
        let mut curl = process::clean_command("curl", "/".as_ref());
        let url = format!("https://{}/v1/{path}", controller.api());
        curl.args(["--silent", "--show-error", "--insecure", "--get", &url, "--cert"])
            .arg(&pem);
        curl.args(query.iter().flat_map(|part| ["--data-urlencode", part]));
        let outcome = Outcome::of(curl).expect_code(0);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
    };
    let page = ask("roles", &["pageSize=1"]);
    let wanted = ["items", "nextPageToken", "revision", "totalSize"];
    assert!(keys(&page).iter().all(|key| wanted.contains(&key.as_str())), "{page}");
    let token = page["nextPageToken"].as_str().expect("there is more");
    let next = ask("roles", &["pageSize=1", &format!("pageToken={token}")]);
    assert_ne!(next["items"][0]["name"], page["items"][0]["name"]);
    let error = ask("agents/nobody", &[]);
    let wanted = ["code", "detail", "metadata", "reason", "status", "title", "type"];
    assert_eq!(keys(&error), wanted.map(str::to_owned).into());
    assert!(error["metadata"]["request_id"].is_string(), "{error}");
}
