//! A check that counts its runs, so that one which is missing, or is there twice, is seen in what the controller has stored.

use std::{fs, os::unix::fs::PermissionsExt as _};

use muster_proto::v1::CheckResult;
use muster_server::store::{Db, Source};
use muster_tests::Controller;
use prost::Message as _;
use serde_json::{Value, json};

const CHECK: &str = "counter";

/// Runs each second on every agent. `file` is the shell's word for a file name: those with another one count for themselves.
pub fn apply(controller: &Controller, file: &str) {
    let folder = controller.path("counts");
    fs::create_dir(&folder).expect("a folder");
    let script = controller.path("counter");
    let text = format!(
        "#!/bin/sh\nfile={}/{file}\nread -r n 2>/dev/null <\"$file\" || n=0\nn=$((n + 1))\necho $n >\"$file\"\necho \"count $n\"\n",
        folder.display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    controller.apply(
        &json!({
            "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": CHECK },
            "spec": { "selector": "*", "schedule": { "interval": "1s" }, "run": { "command": [script] } },
        })
        .to_string(),
    );
}

/// How often it has run, by that file.
pub fn runs(controller: &Controller, file: &str) -> u64 {
    let text = fs::read_to_string(controller.path("counts").join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The counts that are stored of an agent, in order.
pub fn stored(controller: &Controller, agent: &str) -> Vec<u64> {
    let source = match controller.database_url() {
        Some(url) => Source::Postgres(url),
        None => Source::Sqlite(controller.data_dir()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let db = Db::open(&source).await.expect("the controller's database");
        let rows = db.result_list(agent, CHECK).await.expect("results");
        let mut counts: Vec<u64> = rows.iter().map(|row| count(row)).collect();
        counts.sort_unstable();
        counts
    })
}

/// A field of the queue of results, of an agent's status.
pub fn results(status: &Value, field: &str) -> u64 {
    let queues = status["queues"].as_array().expect("queues");
    let queue = queues
        .iter()
        .find(|queue| queue["name"] == "results")
        .expect("a queue of results");
    queue[field].as_u64().expect("a number")
}

fn count(row: &[u8]) -> u64 {
    let result = CheckResult::decode(row).expect("a result");
    let number = result
        .output
        .strip_prefix("count ")
        .and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{result:?} is no count"))
}
