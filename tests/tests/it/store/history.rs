//! Results, events and metrics: how they are kept, counted and let go of.

use std::time::Duration;

use muster_proto::v1::Lane;
use muster_server::{
    config::{Keep, Retention},
    disk::Level,
    store::{EventRow, History, MetricRow, ResultRow, Usage},
    tasks::retention,
};
use tokio_util::sync::CancellationToken;

use super::fresh;

fn result(received_at: i64) -> ResultRow {
    ResultRow {
        agent_id: "a".into(),
        check_name: "disk".into(),
        at: received_at,
        received_at,
        state: 2,
        result: vec![7; 100],
    }
}

#[tokio::test]
async fn old_history_goes_in_steps_and_the_usage_stays_exact() {
    let fresh = fresh().await;
    let rows: Vec<ResultRow> = (0..12_000).map(|n| result(n / 2)).collect();
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.result_insert_all(&rows).await.expect("insert");
    tx.commit().await.expect("commit");
    let usage = fresh.db.history_usage(History::Results).await.expect("usage");
    assert_eq!((usage.row_count, usage.byte_count), (12_000, 1_200_000));
    let mut steps = 0;
    while fresh
        .db
        .history_trim(History::Results, 5_500, i64::MAX)
        .await
        .expect("trim")
        .row_count
        > 0
    {
        steps += 1;
        assert!(steps < 10, "every step makes way");
    }
    assert!(steps > 1, "11,000 rows are more than one step");
    let usage = fresh.db.history_usage(History::Results).await.expect("usage");
    assert_eq!((usage.row_count, usage.byte_count), (1_000, 100_000));
    assert_eq!(fresh.db.result_list("a", "disk").await.expect("results").len(), 1_000);
    fresh.db.history_release().await.expect("release");
}

#[tokio::test]
async fn what_is_too_much_goes_and_no_more_than_that() {
    let fresh = fresh().await;
    let rows: Vec<ResultRow> = (0..1_000).map(result).collect();
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.result_insert_all(&rows).await.expect("insert");
    tx.commit().await.expect("commit");
    let keep = |bytes| Keep {
        age: Duration::from_secs(1_000),
        bytes,
    };
    let retention = Retention {
        deleted_agents: Duration::from_secs(60),
        results: keep(90_000),
        events: keep(1),
        metrics: keep(1),
        logs: keep(1),
        audit: Duration::from_secs(60),
    };
    retention::round(&fresh.db, &retention, Level::Ample, 1_000, &CancellationToken::new())
        .await
        .expect("a round");
    let left = fresh.db.history_usage(History::Results).await.expect("usage").row_count;
    assert!((890..=900).contains(&left), "{left} rows of 100 bytes are left");
}

#[tokio::test]
async fn the_usage_stays_exact_while_rows_come_and_go_at_once() {
    let fresh = fresh().await;
    let trim = async || {
        let step = fresh.db.history_trim(History::Results, i64::MAX, i64::MAX).await;
        step.expect("trim");
    };
    let mut set = tokio::task::JoinSet::new();
    for n in 0..4 {
        let db = fresh.db.clone();
        set.spawn(async move {
            for k in 0..100 {
                let mut tx = db.begin().await.expect("begin");
                tx.result_insert_all(&[result(n * 100 + k)]).await.expect("insert");
                tx.commit().await.expect("commit");
            }
        });
    }
    while !set.is_empty() {
        trim().await;
        while let Some(inserted) = set.try_join_next() {
            inserted.expect("no panic");
        }
    }
    trim().await;
    assert_eq!(
        fresh.db.history_usage(History::Results).await.expect("usage"),
        Usage::default(),
        "nothing is left"
    );
}

#[tokio::test]
async fn the_latest_metrics_are_those_that_came_last_whatever_the_agents_clock_said() {
    let fresh = fresh().await;
    let metric = |at: i64, received_at: i64| MetricRow {
        agent_id: "a".into(),
        at,
        received_at,
        payload: vec![1; 50],
        samples: 3,
    };
    let latest = async |since| -> Vec<i64> {
        let rows = fresh.db.metric_latest("a", since).await.expect("latest");
        rows.iter().map(|row| row.at).collect()
    };
    let mut tx = fresh.db.begin_lane(Lane::Metrics).await.expect("begin");
    // The clock was a day ahead, then set right, then far behind.
    for row in [metric(90_000, 10), metric(20, 20), metric(20, 21)] {
        tx.metric_insert_all(&[row]).await.expect("metrics");
    }
    tx.commit().await.expect("commit");
    assert_eq!(latest(15).await, [20, 20]);
    let mut tx = fresh.db.begin_lane(Lane::Metrics).await.expect("begin");
    tx.metric_insert_all(&[metric(1, 30)]).await.expect("metrics");
    tx.commit().await.expect("commit");
    assert_eq!(latest(15).await, [1]);
    assert!(latest(31).await.is_empty(), "too old");
}

#[tokio::test]
async fn events_and_metrics_have_their_own_usage() {
    let fresh = fresh().await;
    let event = EventRow {
        at: 1,
        received_at: 1,
        agent_id: String::new(),
        reason: "TEST".into(),
        severity: 1,
        message: "Grüße".into(),
        metadata: "{}".into(),
    };
    let mut tx = fresh.db.begin().await.expect("begin");
    tx.event_insert_all(&[event.clone(), event]).await.expect("events");
    tx.commit().await.expect("commit");
    let metric = |at: i64| MetricRow {
        agent_id: "a".into(),
        at,
        received_at: at,
        payload: vec![1; 50],
        samples: 3,
    };
    let mut tx = fresh.db.begin_lane(Lane::Metrics).await.expect("begin");
    tx.metric_insert_all(&[metric(10), metric(20), metric(20)])
        .await
        .expect("metrics");
    tx.commit().await.expect("commit");
    assert_eq!(
        fresh.db.history_usage(History::Events).await.expect("usage").row_count,
        2
    );
    let usage = fresh.db.history_usage(History::Metrics).await.expect("usage");
    assert_eq!((usage.row_count, usage.byte_count), (3, 150));
    assert_eq!(
        fresh.db.metric_latest("a", 0).await.expect("latest").len(),
        2,
        "both batches of the newest moment"
    );
    assert!(
        fresh.db.metric_latest("a", 21).await.expect("latest").is_empty(),
        "too old"
    );
    assert!(fresh.db.metric_latest("b", 0).await.expect("latest").is_empty());
    assert_eq!(
        fresh
            .db
            .history_trim(History::Metrics, 15, i64::MAX)
            .await
            .expect("trim")
            .row_count,
        1
    );
}
