//! The logs of the fleet: what agents say of themselves gets to the controller once, operators find it, and see no more than what
//! is in their scope.

use std::time::Duration;

use muster_proto::v1::{self, LogEntry, LogSeverity, connect_request::Frame, connect_response, record::Body};
use muster_server::{
    clock::{self, HOUR, SECOND as MICROS},
    history::Place,
    logs::{self, Wanted},
    store::{History, LogRow},
};
use muster_tests::{
    Controller, agent,
    link::Link,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

use super::store::fresh;

/// The agent's end of a link that has been welcomed, and its windows.
pub fn linked(controller: &Controller, setup: &agent::Setup) -> (Link, Vec<v1::LaneWindow>) {
    let id = std::fs::read_to_string(setup.path("agent-id")).expect("an id");
    let mut link = poll::until("a link", 20 * SECOND, || Link::connect(controller, setup));
    link.send(Frame::Hello(v1::Hello {
        agent_id: id.trim().to_owned(),
        agent_version: "1".into(),
        protocol_version: 1,
        ..v1::Hello::default()
    }))
    .expect("Hello is sent");
    match link.receive().expect("a frame") {
        connect_response::Frame::Welcome(welcome) => (link, welcome.windows),
        other => panic!("{other:?}"),
    }
}

/// Sends records of a lane and waits until they are stored, or refused with the reasons that are returned.
pub fn send(link: &mut Link, lane: v1::Lane, spool: &str, seq: u64, records: Vec<v1::Record>) -> Vec<v1::Rejected> {
    let last = seq + records.len() as u64 - 1;
    link.send(Frame::Records(v1::Records {
        lane: lane.into(),
        spool_id: spool.into(),
        first_seq: seq,
        records,
        ..v1::Records::default()
    }))
    .expect("the records are sent");
    loop {
        match link.receive().expect("a frame") {
            connect_response::Frame::Ack(ack) if ack.lane() == lane && ack.through_seq == last => return ack.rejected,
            _ => {}
        }
    }
}

fn entry(at: i64, severity: LogSeverity, message: &str) -> LogEntry {
    LogEntry {
        time_unix_micros: at,
        severity: severity.into(),
        unit: "nginx.service".into(),
        message: message.into(),
        fields: [("status".to_owned(), "500".to_owned())].into(),
    }
}

fn batch(entries: Vec<LogEntry>) -> v1::Record {
    v1::Record {
        time_unix_micros: entries.first().map_or(1, |entry| entry.time_unix_micros),
        body: Some(Body::Logs(v1::LogBatch {
            source: "journal".into(),
            entries,
        })),
    }
}

fn messages(controller: &Controller, arguments: &[&str]) -> Vec<String> {
    let items = controller.ctl().items(&[&["log", "list"], arguments].concat());
    let items = items.expect("log entries");
    let message = |item: &Value| item["message"].as_str().unwrap_or_default().to_owned();
    items.iter().map(message).collect()
}

#[test]
fn what_an_agent_says_of_itself_is_found_at_the_controller() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    setup.config["logs"]["agent"] = json!("info");
    setup.config["no_such_key"] = json!(1);
    let mut agent = setup.start();
    controller.wait_for_agent("web-01", "ONLINE");
    let found = poll::until("its warning is there", 30 * SECOND, || {
        let found = controller
            .ctl()
            .items(&["log", "list", "--agent", "web-01", "--contains", "NO_SUCH_KEY"])?;
        match found.as_slice() {
            [entry] => Ok(entry.clone()),
            others => Err(format!("{others:?}")),
        }
    });
    assert_eq!(found["severity"], "LOG_SEVERITY_WARNING", "{found}");
    assert_eq!(
        (&found["source"], &found["agentName"]),
        (&"agent".into(), &"web-01".into()),
        "{found}"
    );
    assert!(!messages(&controller, &["--severity", "info", "--limit", "1000"]).is_empty());

    // What is said before it stops is sent, or waits on its disk and comes with the next start.
    agent.stop();
    agent.run();
    poll::until("the line of its second start", 40 * SECOND, || {
        let starts = controller
            .ctl()
            .items(&["log", "list", "--contains", "starting", "--limit", "100"])?;
        match starts.len() {
            2 => Ok(()),
            _ => Err(format!("{starts:?}")),
        }
    });
    let page = controller.ctl().ok(&["agent", "get", "web-01"]).stdout;
    let queue = poll::until("the queue is in its page", 60 * SECOND, || {
        let page = controller.ctl().ok(&["agent", "get", "web-01"]).stdout;
        let line = page.lines().find(|line| line.trim_start().starts_with("logs "));
        line.map(str::to_owned).ok_or(page)
    });
    assert!(queue.split_whitespace().count() >= 4, "{queue}\n{page}");
    let metric = poll::until("the queue is among its metrics", 60 * SECOND, || {
        let query = "muster_agent_queue_acknowledged_total{lane=\"logs\"}";
        match controller.ctl().items(&["metric", "query", query])?.as_slice() {
            [metric] if metric["value"].as_f64() > Some(0.0) => Ok(metric.clone()),
            others => Err(format!("{others:?}")),
        }
    });
    assert_eq!(metric["labels"]["job"], "muster-agent", "{metric}");
}

#[test]
fn entries_are_stored_once_found_by_what_they_say_and_gone_with_their_agent() {
    let controller = Controller::start();
    let [web, db] = ["web", "db"].map(|name| {
        let setup = controller.agent(name);
        setup.enroll().expect_code(0);
        controller.ctl().ok(&["agent", "label", name, &format!("role={name}")]);
        setup
    });
    let now = clock::now();
    let (mut link, windows) = linked(&controller, &web);
    let lanes: Vec<v1::Lane> = windows.iter().map(v1::LaneWindow::lane).collect();
    assert_eq!(lanes, [v1::Lane::Results, v1::Lane::Metrics, v1::Lane::Logs]);
    let records = vec![
        batch(vec![
            entry(now - 3 * MICROS, LogSeverity::Info, "first"),
            entry(now - 2 * MICROS, LogSeverity::Error, "Disk FULL"),
        ]),
        batch(vec![entry(now - HOUR, LogSeverity::Warning, "of an outage")]),
    ];
    assert_eq!(send(&mut link, v1::Lane::Logs, "1-a", 1, records.clone()), []);
    // What a controller cannot store it says, and the rest is stored.
    let mut bad = entry(now, LogSeverity::Info, "a\0b");
    bad.fields.clear();
    let worse = entry(now, LogSeverity::Unspecified, "no severity");
    let rejected = send(
        &mut link,
        v1::Lane::Logs,
        "1-a",
        3,
        vec![
            batch(vec![bad]),
            batch(vec![worse]),
            batch(vec![]),
            batch(vec![entry(now, LogSeverity::Debug, "last")]),
        ],
    );
    assert_eq!(
        rejected.iter().map(|it| it.seq).collect::<Vec<_>>(),
        [3, 4, 5],
        "{rejected:?}"
    );
    drop(link);
    // The acknowledgement was lost: it comes again.
    let (mut link, _) = linked(&controller, &web);
    assert_eq!(send(&mut link, v1::Lane::Logs, "1-a", 1, records), []);
    let (mut other, _) = linked(&controller, &db);
    send(
        &mut other,
        v1::Lane::Logs,
        "1-a",
        1,
        vec![batch(vec![entry(now - 1, LogSeverity::Error, "of db")])],
    );

    let all = messages(&controller, &[]);
    assert_eq!(all, ["last", "of db", "Disk FULL", "first", "of an outage"]);
    for (arguments, expected) in [
        (&["--agent", "db"][..], &["of db"][..]),
        (
            &["-l", "role=web", "--severity", "warning"],
            &["Disk FULL", "of an outage"],
        ),
        (&["--contains", "disk full"], &["Disk FULL"]),
        (
            &["--since", "10m", "--severity", "info"],
            &["of db", "Disk FULL", "first"],
        ),
        (&["--limit", "2"], &["last", "of db"]),
        (&["-l", "role=mail"], &[]),
        // Of several agents the newest of all, whoever it is from.
        (
            &["--agent", "db", "--agent", "web", "--limit", "3"],
            &["last", "of db", "Disk FULL"],
        ),
        (
            &[
                "--agent",
                "db",
                "--agent",
                "web",
                "-l",
                "role=web",
                "--severity",
                "error",
            ],
            &["Disk FULL"],
        ),
        (&["--until", "10m"], &["of an outage"]),
    ] {
        assert_eq!(messages(&controller, arguments), expected, "{arguments:?}");
    }
    let table = controller.ctl().ok(&["log", "list", "-o", "wide"]).stdout;
    for text in ["came late", "nginx.service", "status=500", "journal"] {
        assert!(table.contains(text), "{text}\n{table}");
    }
    let usage = controller
        .ctl()
        .items(&["history", "usage", "-l", "role=web"])
        .expect("usage");
    assert_eq!(usage[0]["logs"]["records"], "4", "{usage:?}");
    assert_eq!(usage[0]["logMoments"], "4", "{usage:?}");

    controller.ctl().ok(&["agent", "delete", "web"]);
    assert_eq!(messages(&controller, &[]), ["of db"]);
}

#[tokio::test]
async fn pages_of_logs_join_to_all_of_them_and_retention_and_marks_count_them() {
    let fresh = fresh().await;
    let row = |agent: &str, at: i64, message: String| LogRow {
        agent_id: agent.into(),
        at,
        received_at: at,
        severity: 2,
        source: "journal".into(),
        unit: "u".into(),
        message,
        fields: String::new(),
    };
    // Ten of each moment.
    let rows: Vec<LogRow> = (0..300)
        .map(|n| row(if n % 3 == 0 { "a" } else { "b" }, n / 10 + 1, format!("line {n}")))
        .collect();
    let mut tx = fresh.db.begin_lane(v1::Lane::Logs).await.expect("begin");
    tx.log_insert_all(&rows).await.expect("logs");
    tx.commit().await.expect("commit");

    let (mut found, mut after): (Vec<String>, Option<Place>) = (Vec::new(), None);
    for _ in 0..100 {
        let wanted = Wanted {
            agent: None,
            since: i64::MIN,
            until: 21,
            after,
            size: 7,
        };
        let is_wanted = |row: &LogRow| logs::contains(&row.message, "line 1");
        let (page, next) = logs::page(&fresh.db, wanted, is_wanted).await.expect("a page");
        assert!(page.len() <= 7);
        found.extend(page.into_iter().map(|row| row.message));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let expected = (0..200).filter(|n| format!("{n}").starts_with('1')).count();
    assert_eq!(found.len(), expected, "{found:?}");
    found.sort();
    found.dedup();
    assert_eq!(found.len(), expected, "none is there twice");

    let usage = fresh.db.history_usage(History::Logs).await.expect("usage");
    assert_eq!(usage.row_count, 300);
    assert_eq!(
        fresh
            .db
            .history_trim(History::Logs, 11, i64::MAX)
            .await
            .expect("trim")
            .row_count,
        100
    );
    let of_agents = fresh.db.log_usage("a", "b").await.expect("usage");
    assert_eq!(of_agents.iter().map(|usage| usage.records).sum::<i64>(), 200);
    let moments = fresh.db.log_moments("a", "a").await.expect("moments");
    assert_eq!(moments[0].moments, 20);
    let removed = fresh.db.log_remove("a").await.expect("removed");
    assert_eq!(removed, of_agents[0].records);
    let usage = fresh.db.history_usage(History::Logs).await.expect("usage");
    assert_eq!(usage.row_count, of_agents[1].records);
    assert_eq!(usage.byte_count, of_agents[1].bytes);
}

#[test]
fn an_agent_that_does_not_know_logs_and_one_that_says_nothing_of_them_go_on() {
    let controller = Controller::start();
    let setup = controller.agent("old");
    setup.enroll().expect_code(0);
    let (mut link, _) = linked(&controller, &setup);
    let now = clock::now();
    super::arrival::store(&mut link, "1-a", 1, super::arrival::result(now, "fine"));
    // A lane of a later release still ends the link, so that nothing is taken for stored.
    link.send(Frame::Records(v1::Records {
        lane: 77,
        spool_id: "1-a".into(),
        first_seq: 1,
        records: vec![batch(vec![entry(now, LogSeverity::Info, "x")])],
        ..v1::Records::default()
    }))
    .expect("it is sent");
    let end = poll::until("an end", Duration::from_secs(20), || match link.receive() {
        Ok(frame) => Err(format!("{frame:?}")),
        Err(end) => Ok(end),
    });
    assert!(end.contains("lane"), "{end}");
}
