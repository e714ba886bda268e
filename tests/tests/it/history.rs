//! What is kept of agents: results one by one and in pages, and how much there is of each agent.

use muster_proto::{ids::AgentId, v1::Lane};
use muster_server::{
    history::{self, Wanted},
    store::{MetricRow, ResultRow},
};
use muster_tests::{
    Controller,
    poll::{self, SECOND},
};
use serde_json::Value;

use crate::store::fresh;

const CHECK: &str = "\
apiVersion: muster/v1
kind: Check
metadata: { name: memory }
spec: { selector: '*', schedule: { interval: 1s }, run: { memory: {} } }
---
apiVersion: muster/v1
kind: Check
metadata: { name: load }
spec: { selector: '*', schedule: { interval: 1s }, run: { load: { warning: '1000', critical: '2000' } } }
";

#[test]
fn results_are_listed_newest_first_and_what_is_kept_of_an_agent_is_counted() {
    let controller = Controller::start();
    controller.apply(CHECK).expect_code(0);
    let agent = controller.agent("web-01").start();
    let other = controller.agent("web-02").start();
    let ctl = controller.ctl();
    let list = |more: &[&str]| ctl.items(&[&["result", "list", "--agent", "web-01"], more].concat());
    let results = poll::until("results of both checks", 30 * SECOND, || {
        let of_memory = list(&["--check", "memory"])?;
        let of_both = list(&[])?;
        match of_memory.len() >= 3 && of_both.len() > of_memory.len() {
            true => Ok(of_memory),
            false => Err(format!("{} and {}", of_memory.len(), of_both.len())),
        }
    });
    let time = |item: &Value| item["time"].as_str().map(str::to_owned).expect("a time");
    assert!(
        results.windows(2).all(|pair| time(&pair[0]) > time(&pair[1])),
        "{results:#?}"
    );
    for result in &results {
        assert_eq!(result["result"]["check"], "memory", "{result}");
        assert_eq!(result["agentName"], "web-01", "{result}");
        assert_eq!(result["arrival"], "ARRIVAL_ON_TIME", "{result}");
        assert!(
            result["result"]["output"].as_str().is_some_and(|text| !text.is_empty()),
            "{result}"
        );
    }
    assert_eq!(list(&["--limit", "2"]).expect("results").len(), 2);
    ctl.run(&["result", "list", "--agent", "nobody"])
        .expect_code(5)
        .explains();

    drop((agent, other));
    let usage = ctl.items(&["history", "usage"]).expect("usage");
    assert_eq!(usage.len(), 2, "{usage:#?}");
    for of_agent in &usage {
        let id = of_agent["agentId"].as_str().expect("an id");
        let listed = ctl
            .items(&["result", "list", "--limit", "1000", "--agent", id])
            .expect("results");
        let count = |path: &str| {
            of_agent[path]["records"]
                .as_str()
                .and_then(|text| text.parse::<usize>().ok())
        };
        assert_eq!(count("results"), Some(listed.len()), "{of_agent:#}");
        assert!(count("events") > Some(0), "{of_agent:#}");
        assert!(of_agent["results"]["bytes"].is_string() && of_agent["results"]["lastTime"].is_string());
    }
    let of_one = ctl.items(&["history", "usage", "--limit", "1"]).expect("usage");
    assert_eq!(of_one.len(), 1);
}

#[tokio::test]
async fn pages_of_results_join_to_all_of_them_though_newer_ones_come_between() {
    let fresh = fresh().await;
    let agent = AgentId::random();
    let row = |at: i64| ResultRow {
        agent_id: agent.to_string(),
        check_name: "disk".into(),
        at,
        received_at: at,
        state: 2,
        result: vec![1; 10],
    };
    let put = async |rows: &[ResultRow]| {
        let mut tx = fresh.db.begin_lane(Lane::Results).await.expect("begin");
        tx.result_insert_all(rows).await.expect("results");
        tx.commit().await.expect("commit");
    };
    // Some moments have several results, and one of them is on both sides of every border.
    let times = [10, 20, 20, 20, 30, 30, 40, 50, 50, 50, 50];
    put(&times.map(row)).await;
    for size in 1..=times.len() {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let wanted = Wanted {
                agent,
                check: "disk".into(),
                since: 0,
                until: 60,
                after,
                size,
            };
            let (rows, next) = history::results(&fresh.db, wanted).await.expect("a page");
            assert!(rows.len() <= size);
            seen.extend(rows.iter().map(|row| row.at));
            put(&[row(1_000)]).await;
            after = next;
            if after.is_none() {
                break;
            }
        }
        let mut expected = times.to_vec();
        expected.reverse();
        assert_eq!(seen, expected, "pages of {size}");
    }
}

#[tokio::test]
async fn what_is_kept_is_told_for_each_agent_and_kind() {
    let fresh = fresh().await;
    let mut agents = [AgentId::random(), AgentId::random(), AgentId::random()];
    agents.sort_unstable();
    let metric = |agent: AgentId, at: i64| MetricRow {
        agent_id: agent.to_string(),
        at,
        received_at: 7,
        payload: vec![1; 50],
        samples: 4,
    };
    let mut tx = fresh.db.begin_lane(Lane::Metrics).await.expect("begin");
    let rows = [
        metric(agents[0], 10),
        metric(agents[0], 20),
        metric(agents[0], 20),
        metric(agents[1], 5),
    ];
    tx.metric_insert_all(&rows).await.expect("metrics");
    tx.commit().await.expect("commit");
    let usage = history::usage(&fresh.db, &[agents[0], agents[2]]).await.expect("usage");
    let first = &usage[0];
    assert_eq!((first.metrics.records, first.metrics.bytes), (3, 150));
    assert_eq!((first.metrics.first_at, first.metrics.last_at), (10, 20));
    assert_eq!((first.samples.samples, first.samples.moments), (12, 2));
    assert_eq!((first.results.records, first.events.records), (0, 0));
    // Nothing is kept of the last one, and the one between was not asked for.
    assert_eq!((usage.len(), usage[1].metrics.records), (2, 0));
}
