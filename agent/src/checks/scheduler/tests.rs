//! With real processes, so with the real clock.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use muster_proto::v1::{self, CheckState};

use super::*;
use crate::link::queue::{self, Queue};

const LONG: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits {
    max_concurrent: 2,
    default_timeout: LONG,
};

fn check(name: &str, command: &[&str]) -> (String, Arc<ActiveCheck>) {
    let second = Some(muster_proto::duration::to_proto(Duration::from_secs(1)));
    let check = ActiveCheck {
        name: name.to_owned(),
        version: 3,
        check: v1::Check {
            schedule: Some(v1::Schedule {
                interval: second,
                retry_interval: second,
                attempts: 1,
            }),
            run: Some(v1::Run {
                command: command.iter().map(|a| (*a).to_owned()).collect(),
                ..v1::Run::default()
            }),
            ..v1::Check::default()
        },
    };
    (name.to_owned(), Arc::new(check))
}

fn script(directory: &Path, body: &str) -> String {
    let path = directory.join("plugin");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn recorded(queue: &Queue, number: usize) -> Vec<(i64, CheckResult)> {
    let wait = async {
        loop {
            if queue.lock().lane(Lane::Results).depth(0).records >= number as u64 {
                break;
            }
            queue.recorded().await;
        }
    };
    time::timeout(LONG, wait).await.expect("no results came");
    let records = queue
        .lock()
        .lane_mut(Lane::Results)
        .take_batch("1-test", 0, usize::MAX)
        .unwrap()
        .records;
    records
        .into_iter()
        .map(|record| match record.body {
            Some(record::Body::CheckResult(result)) => (record.time_unix_micros, result),
            other => panic!("{other:?}"),
        })
        .collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(LONG, wait)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}

#[tokio::test]
async fn checks_of_the_set_run_and_their_results_are_recorded() {
    let queue = Queue::new(queue::Lanes::in_memory("1-test", queue::Limits::default()));
    let checks = [
        check("echo", &["/bin/echo", "all well|n=1"]),
        check("missing", &["/no/such/plugin"]),
    ];
    let (sender, receiver) = watch::channel(Arc::new(ActiveChecks::from(checks)));
    let shutdown = CancellationToken::new();
    let before = Now::read().unix_micros;
    let results = tokio::select! {
        () = run("agent", LIMITS, receiver, queue.recorder(), shutdown) => panic!("it stopped"),
        results = recorded(&queue, 8) => results,
    };
    drop(sender);
    for name in ["echo", "missing"] {
        assert!(
            results.iter().filter(|(_, result)| result.check == name).count() >= 2,
            "{results:?}"
        );
    }
    for (time, result) in results {
        assert!(time >= before);
        assert_eq!(result.version, 3);
        match result.check.as_str() {
            "echo" => assert_eq!((result.state(), result.output.as_str()), (CheckState::Ok, "all well")),
            _ => assert_eq!(result.state(), CheckState::Unknown),
        }
    }
}

#[tokio::test]
async fn a_check_that_is_removed_while_it_runs_is_killed_and_gives_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let plugin = script(
        directory.path(),
        &format!("echo $$ > {}; exec sleep 600", pid_file.display()),
    );
    let queue = Queue::new(queue::Lanes::in_memory("1-test", queue::Limits::default()));
    let checks = ActiveChecks::from([check("hangs", &[&plugin])]);
    let (sender, receiver) = watch::channel(Arc::new(checks));
    let shutdown = CancellationToken::new();
    let follow = async {
        until("the plugin runs", || {
            fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
        })
        .await;
        let pid = fs::read_to_string(&pid_file).unwrap().trim().to_owned();
        sender.send_replace(Arc::new(ActiveChecks::from([check("echo", &["/bin/echo", "OK"])])));
        let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        until("the plugin is dead", gone).await;
        let results = recorded(&queue, 1).await;
        assert_eq!(results[0].1.check, "echo");
        shutdown.cancel();
    };
    tokio::join!(
        run("agent", LIMITS, receiver, queue.recorder(), shutdown.clone()),
        follow
    );
    let lanes = queue.lock();
    assert!(!lanes.lane(Lane::Results).is_empty());
}

#[tokio::test]
async fn shutdown_ends_what_runs_without_a_result() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let plugin = script(
        directory.path(),
        &format!("echo $$ > {}; exec sleep 600", pid_file.display()),
    );
    let queue = Queue::new(queue::Lanes::in_memory("1-test", queue::Limits::default()));
    let (_sender, receiver) = watch::channel(Arc::new(ActiveChecks::from([check("hangs", &[&plugin])])));
    let shutdown = CancellationToken::new();
    let stop = async {
        until("the plugin runs", || {
            fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
        })
        .await;
        shutdown.cancel();
    };
    tokio::join!(run("agent", LIMITS, receiver, queue.recorder(), shutdown.clone()), stop);
    let pid = fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    until("the plugin is dead", gone).await;
    assert!(queue.lock().lane(Lane::Results).is_empty());
}
