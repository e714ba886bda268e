use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::{
    link::queue::{Lanes, Limits, Queue},
    logging::own_layer,
};

/// What is recorded of what is said.
fn recorded(level: LevelFilter, say: impl FnOnce()) -> Vec<LogEntry> {
    let log = OwnLog::default();
    log.set_level(level);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(own_layer(&log)), say);
    log.take(0)
}

fn messages(entries: &[LogEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.message.as_str()).collect()
}

#[test]
fn what_is_said_at_the_level_or_above_is_recorded_with_its_fields() {
    let entries = recorded(LevelFilter::WARN, || {
        tracing::info!(target: "muster_agent::app", "all is well");
        tracing::warn!(target: "muster_agent::checks", check = "disk", runs = 3, "a check is slow");
        tracing::error!(target: "h2", "a library is in trouble");
    });
    assert_eq!(messages(&entries), ["a check is slow", "a library is in trouble"]);
    assert_eq!(entries[0].severity(), LogSeverity::Warning);
    assert_eq!((entries[0].unit.as_str(), entries[1].unit.as_str()), ("checks", "h2"));
    let fields = [
        ("check".to_owned(), "disk".to_owned()),
        ("runs".to_owned(), "3".to_owned()),
    ];
    assert_eq!(entries[0].fields, fields.into());
    assert!(entries[0].time_unix_micros < entries[1].time_unix_micros);
}

#[test]
fn nothing_is_recorded_when_it_is_off_and_of_libraries_only_what_is_bad() {
    let off = recorded(LevelFilter::OFF, || tracing::error!(target: "muster_agent::app", "bad"));
    assert_eq!(messages(&off), [""; 0]);
    let all = recorded(LevelFilter::INFO, || {
        tracing::info!(target: "muster_agent::app", "ours");
        tracing::info!(target: "h2", "theirs");
    });
    assert_eq!(messages(&all), ["ours"]);
}

#[test]
fn what_is_said_of_the_queue_or_of_logs_makes_no_record() {
    let entries = recorded(LevelFilter::INFO, || {
        tracing::warn!(target: "muster_agent::link::queue", "records were dropped");
        tracing::warn!(target: "muster_agent::link::queue::lane", "a record is too large");
        tracing::warn!(target: "muster_agent::link::driver", lane = "LANE_LOGS", "a record was refused");
        tracing::warn!(target: "muster_agent::link::driver", lane = "LANE_METRICS", "another was");
    });
    assert_eq!(messages(&entries), ["another was"]);
}

#[test]
fn what_comes_too_fast_is_counted_and_told_of() {
    let log = OwnLog::default();
    let line = |number: u32| Line {
        severity: LogSeverity::Error,
        unit: String::new(),
        message: number.to_string(),
        fields: BTreeMap::new(),
    };
    (0..PER_SECOND + 7).for_each(|number| log.push(line(number), 5_000_000));
    log.push(line(100), 6_000_000);
    let entries = log.take(6_000_000);
    assert_eq!(entries.len(), PER_SECOND as usize + 2);
    let last = &entries[entries.len() - 1];
    assert!(last.message.starts_with("7 lines were dropped"), "{}", last.message);
    assert_eq!(log.dropped(), 7);
    assert!(log.take(7_000_000).is_empty(), "it is told once");
    for second in 0..100 {
        (0..PER_SECOND).for_each(|number| log.push(line(number), second * 1_000_000));
    }
    assert_eq!(log.take(0).len(), MAX_WAITING + 1, "that is all that waits");
}

#[test]
fn long_lines_are_cut_and_many_make_several_records() {
    let entries = recorded(LevelFilter::WARN, || {
        for _ in 0..4 {
            tracing::warn!(target: "muster_agent::app", "{}\0{}", "ä".repeat(3_000), "x");
        }
    });
    assert!(
        entries
            .iter()
            .all(|entry| entry.message.len() <= MAX_MESSAGE + 4 && entry.message.ends_with('…'))
    );
    let batches = batches(entries);
    assert_eq!(
        batches.iter().map(|batch| batch.entries.len()).collect::<Vec<_>>(),
        [1, 1, 1, 1]
    );
    assert!(super::batches(Vec::new()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn lines_of_a_second_go_into_one_record_and_the_last_ones_at_the_end() {
    let queue = Queue::new(Lanes::in_memory("1-a", Limits::default()));
    let log = OwnLog::default();
    log.set_level(LevelFilter::WARN);
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(log.clone().run(queue.recorder(), stop.clone()));
    let say = || {
        let registry = tracing_subscriber::registry().with(own_layer(&log));
        tracing::subscriber::with_default(registry, || tracing::warn!(target: "muster_agent::app", "a line"));
    };
    say();
    say();
    sleep(GATHER * 2).await;
    assert_eq!(queue.lock().lane(Lane::Logs).depth(0).records, 1);
    say();
    stop.cancel();
    tasks.join_all().await;
    assert_eq!(queue.lock().lane(Lane::Logs).depth(0).records, 2);
}

#[test]
fn lines_of_one_moment_have_times_of_their_own_and_a_clock_that_is_set_back_is_followed() {
    let mut waiting = Waiting::default();
    let hour = 3_600_000_000;
    let times = [hour, hour, hour - 1, hour + 10, 5, 5].map(|now| waiting.time(now));
    assert_eq!(times, [hour, hour + 1, hour + 2, hour + 10, 5, 6]);
}
