use std::path::{Path, PathBuf};

use super::*;

mod model;
mod renumbering;

const LIMITS: Limits = Limits {
    bytes: 64 * 1024,
    memory: 16 * 1024,
};

fn record(size: usize) -> v1::Record {
    let event = v1::AgentEvent {
        message: "x".repeat(size),
        ..Default::default()
    };
    v1::Record {
        time_unix_micros: 1,
        body: Some(v1::record::Body::Event(event)),
    }
}

fn numbered(number: i64) -> v1::Record {
    v1::Record {
        time_unix_micros: number,
        body: None,
    }
}

fn lanes() -> Lanes {
    Lanes::in_memory("1-a", LIMITS)
}

fn open(dir: &Path, spool: &str) -> Lanes {
    Directory::new(dir.join("queue"))
        .open("agent", spool, |_| LIMITS)
        .expect("the queue opens")
}

/// All that waits in a lane, by spool.
fn waiting(lane: &mut Lane) -> Vec<(String, u64, v1::Record)> {
    let spools: Vec<_> = lane.spools().map(|spool| spool.id().clone()).collect();
    let mut found = Vec::new();
    for spool in spools {
        let mut seq = 0;
        while let Some(batch) = lane.take_batch(&spool, seq, 4000) {
            seq = batch.last_seq;
            found.extend(
                (batch.first_seq..)
                    .zip(batch.records)
                    .map(|(seq, it)| (spool.to_string(), seq, it)),
            );
        }
    }
    found
}

#[test]
fn a_batch_stops_at_its_limit_but_carries_at_least_one_record() {
    let mut lanes = lanes();
    for _ in 0..3 {
        lanes.push(v1::Lane::Results, &record(1000), 1);
    }
    let lane = lanes.lane_mut(v1::Lane::Results);
    assert_eq!(lane.take_batch("1-a", 0, 2100).unwrap().records.len(), 2);
    let batch = lane.take_batch("1-a", 2, 10).unwrap();
    assert_eq!((batch.first_seq, batch.last_seq, batch.records.len()), (3, 3, 1));
    assert_eq!(lane.take_batch("1-a", 3, 10), None);
}

#[test]
fn a_record_that_no_frame_can_carry_is_counted_and_takes_no_number() {
    let mut lanes = Lanes::in_memory("1-a", Limits::default());
    lanes.push(v1::Lane::Results, &record(frame::MAX_RECORD + 1), 1);
    lanes.push(v1::Lane::Results, &numbered(1), 1);
    let lane = lanes.lane_mut(v1::Lane::Results);
    assert_eq!(lane.depth(1).dropped, 1);
    assert_eq!(waiting(lane), [("1-a".to_owned(), 1, numbered(1))]);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_forgets_nothing() {
    let mut lanes = lanes();
    lanes.push(v1::Lane::Results, &numbered(1), 1);
    lanes.push(v1::Lane::Results, &numbered(2), 1);
    let lane = lanes.lane_mut(v1::Lane::Results);
    assert_eq!(lane.ack("1-a", 1), Err(NeverSent { through: 1, sent: 0 }));
    assert_eq!(lane.depth(1).records, 2);
}

#[test]
fn what_waits_keeps_its_numbers_when_a_new_spool_is_started_and_goes_behind_it() {
    let mut lanes = lanes();
    lanes.push(v1::Lane::Results, &numbered(1), 1);
    lanes.start_spool("2-b");
    lanes.push(v1::Lane::Results, &numbered(2), 1);
    let expected = [("2-b".to_owned(), 1, numbered(2)), ("1-a".to_owned(), 1, numbered(1))];
    assert_eq!(waiting(lanes.lane_mut(v1::Lane::Results)), expected);
    // Of the other lane nothing waits, so that it has one spool.
    assert_eq!(lanes.lane(v1::Lane::Metrics).spools().count(), 1);
    lanes.lane_mut(v1::Lane::Results).ack("1-a", 1).unwrap();
    assert_eq!(lanes.lane(v1::Lane::Results).spools().count(), 1);
}

#[test]
fn hello_names_the_spool_of_both_lanes_even_when_they_are_empty() {
    let spools = lanes().spools();
    let lanes: Vec<_> = spools.iter().map(|spool| spool.lane()).collect();
    assert_eq!(lanes, Lanes::ALL);
    assert!(
        spools
            .iter()
            .all(|spool| (spool.first_seq, spool.last_seq) == (0, 0) && spool.spool_id == "1-a")
    );
}

#[tokio::test]
async fn the_link_hears_of_a_record_that_came_before_it_listened() {
    let queue = Queue::new(lanes());
    queue.recorder().record(v1::Lane::Metrics, numbered(7));
    queue.recorded().await;
    assert_eq!(queue.lock().lane(v1::Lane::Metrics).depth(1).records, 1);
}

#[test]
fn a_full_lane_drops_its_oldest_and_tells_of_it_in_the_results() {
    let mut lanes = lanes();
    for _ in 0..200 {
        lanes.push(v1::Lane::Metrics, &record(1000), 5);
    }
    let depth = lanes.lane(v1::Lane::Metrics).depth(5);
    assert!(depth.bytes <= LIMITS.bytes && depth.dropped > 0, "{depth:?}");
    assert_eq!(depth.records + depth.dropped, 200);
    let told: Vec<_> = waiting(lanes.lane_mut(v1::Lane::Results))
        .into_iter()
        .filter_map(|(_, _, record)| match record.body {
            Some(v1::record::Body::Gap(gap)) => Some(gap),
            _ => None,
        })
        .collect();
    let mut next = 1;
    for gap in &told {
        assert_eq!((gap.lane(), gap.reason()), (v1::Lane::Metrics, v1::GapReason::Full));
        assert_eq!((gap.first_seq, gap.spool_id.as_str()), (next, "1-a"));
        next = gap.last_seq + 1;
    }
    assert_eq!(next - 1, depth.dropped);
}

#[test]
fn a_full_lane_of_results_has_room_for_the_news_that_it_is_full() {
    let mut lanes = lanes();
    for _ in 0..300 {
        lanes.push(v1::Lane::Results, &record(1000), 5);
    }
    let depth = lanes.lane(v1::Lane::Results).depth(5);
    let waiting = waiting(lanes.lane_mut(v1::Lane::Results));
    let gaps = waiting
        .iter()
        .filter(|(_, _, it)| matches!(it.body, Some(v1::record::Body::Gap(_))))
        .count();
    assert!(gaps > 0 && depth.bytes <= LIMITS.bytes);
    assert_eq!(waiting.len() as u64, depth.records);
}

#[test]
fn what_is_too_old_is_dropped_by_the_segment() {
    let mut lanes = lanes();
    for at in 0..100 {
        lanes.push(v1::Lane::Metrics, &record(1000), at);
    }
    let lane = lanes.lane_mut(v1::Lane::Metrics);
    let before = lane.depth(100).dropped;
    lane.drop_older(90);
    let kept = waiting(lane).len() as u64;
    assert!((10..=16).contains(&kept), "{kept}");
    assert_eq!(lane.depth(100).dropped + kept, 100);
    assert!(lane.depth(100).dropped > before);
}

#[test]
fn what_was_recorded_is_there_for_the_next_start_under_the_id_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = open(dir.path(), "1-a");
    for number in 1..=3 {
        lanes.push(v1::Lane::Results, &numbered(number), 1);
    }
    drop(lanes);
    let mut lanes = open(dir.path(), "2-b");
    lanes.push(v1::Lane::Results, &numbered(4), 1);
    let spool = |id: &str, seq, number| (id.to_owned(), seq, numbered(number));
    assert_eq!(
        waiting(lanes.lane_mut(v1::Lane::Results)),
        [
            spool("2-b", 1, 4),
            spool("1-a", 1, 1),
            spool("1-a", 2, 2),
            spool("1-a", 3, 3)
        ]
    );
    // The controller had it before the agent ended.
    lanes.lane_mut(v1::Lane::Results).ack("1-a", 99).unwrap();
    drop(lanes);
    let mut lanes = open(dir.path(), "3-c");
    assert_eq!(waiting(lanes.lane_mut(v1::Lane::Results)), [spool("2-b", 1, 4)]);
}

#[test]
fn the_queue_of_another_agent_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), "1-a").push(v1::Lane::Results, &numbered(1), 1);
    let other = Directory::new(dir.path().join("queue"));
    let mut lanes = other.open("another", "2-b", |_| LIMITS).unwrap();
    assert_eq!(waiting(lanes.lane_mut(v1::Lane::Results)), []);
    assert!(!dir.path().join("queue/agent").exists());
}

/// Has thirty records in several files, which it gives in their order.
fn thirty(dir: &Path) -> Vec<PathBuf> {
    let mut lanes = open(dir, "1-a");
    for _ in 0..30 {
        lanes.push(v1::Lane::Metrics, &record(1000), 1);
    }
    drop(lanes);
    let files = std::fs::read_dir(dir.join("queue/agent/metrics")).unwrap();
    let mut files: Vec<_> = files.map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 3);
    files
}

/// The reasons of those that wait.
fn events(lanes: &mut Lanes) -> Vec<String> {
    let records = waiting(lanes.lane_mut(v1::Lane::Results)).into_iter();
    let events = records.filter_map(|(_, _, record)| match record.body {
        Some(v1::record::Body::Event(event)) => Some(event.reason),
        _ => None,
    });
    events.collect()
}

#[test]
fn a_missing_file_is_a_gap_and_a_strange_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::remove_file(&thirty(dir.path())[1]).unwrap();
    let strange = dir.path().join("queue/agent/metrics/notes.txt");
    std::fs::write(&strange, "not of the queue").unwrap();
    let mut lanes = open(dir.path(), "2-b");
    lanes.tell_losses(2);
    let depth = lanes.lane(v1::Lane::Metrics).depth(2);
    assert_eq!(depth.records + depth.dropped, 30);
    assert!(depth.dropped > 0);
    assert_eq!(lanes.lane(v1::Lane::Results).depth(2).records, 1, "the gap");
    assert!(strange.exists());
}

#[test]
fn a_first_file_that_is_of_no_use_is_a_gap() {
    let damage: [fn(&Path); 2] = [
        |file| std::fs::write(file, "no segment").unwrap(),
        |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::create_dir(file).unwrap();
        },
    ];
    for damage in damage {
        let dir = tempfile::tempdir().unwrap();
        damage(&thirty(dir.path())[0]);
        let mut lanes = open(dir.path(), "2-b");
        lanes.tell_losses(2);
        let depth = lanes.lane(v1::Lane::Metrics).depth(2);
        assert_eq!(depth.records + depth.dropped, 30);
        assert!(depth.dropped > 0);
    }
}

#[test]
fn a_file_that_cannot_be_read_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), "1-a").push(v1::Lane::Results, &numbered(1), 1);
    // No file, so that nobody can read it, not even root.
    let unreadable = spool::file_path(&dir.path().join("queue/agent/results"), "2-b", 1);
    std::fs::create_dir(&unreadable).unwrap();
    let mut lanes = open(dir.path(), "3-c");
    let found = waiting(lanes.lane_mut(v1::Lane::Results));
    assert_eq!(found, [("1-a".to_owned(), 1, numbered(1))]);
    assert!(unreadable.exists());
}

#[test]
fn a_spool_that_can_no_longer_be_read_does_not_stand_before_the_next() {
    let dir = tempfile::tempdir().unwrap();
    for (spool, number) in [("1-a", 1), ("2-b", 2)] {
        open(dir.path(), spool).push(v1::Lane::Results, &numbered(number), 1);
    }
    let mut lanes = open(dir.path(), "3-c");
    let file = spool::file_path(&dir.path().join("queue/agent/results"), "1-a", 1);
    std::fs::write(file, "something else").unwrap();
    let lane = lanes.lane_mut(v1::Lane::Results);
    assert_eq!(lane.next_size("1-a", 0), None);
    let spools: Vec<_> = lane.spools().map(|spool| spool.id().to_string()).collect();
    assert_eq!(spools, ["3-c", "2-b"]);
    assert_eq!(lane.depth(1).dropped, 1);
}

#[test]
fn every_file_that_was_written_to_is_synced_also_when_it_is_full_or_of_a_spool_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = open(dir.path(), "1-a");
    for _ in 0..10 {
        lanes.push(v1::Lane::Metrics, &record(1000), 1);
    }
    lanes.start_spool("2-b");
    lanes.push(v1::Lane::Metrics, &record(1000), 1);
    let files = std::fs::read_dir(dir.path().join("queue/agent/metrics"))
        .unwrap()
        .count();
    assert!(files > 3, "{files}");
    let written = |lanes: &mut Lanes| lanes.lane_mut(v1::Lane::Metrics).written().len();
    assert_eq!(written(&mut lanes), files + 1, "and the directory");
    assert_eq!(written(&mut lanes), 0, "nothing since");
    lanes.push(v1::Lane::Metrics, &record(1000), 1);
    assert_eq!(written(&mut lanes), 1);
}

#[test]
fn however_often_an_agent_starts_its_files_take_no_more_of_the_disk_than_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let lane = v1::Lane::Metrics;
    for start in 1..=40 {
        open(dir.path(), &format!("{start}-a")).push(lane, &numbered(start), start);
    }
    let files = std::fs::read_dir(dir.path().join("queue/agent/metrics"))
        .unwrap()
        .count();
    assert!(files <= LIMITS.bytes / 4096, "{files}");
    let found = waiting(open(dir.path(), "41-a").lane_mut(lane));
    assert_eq!(found.last().map(|(_, _, record)| record.time_unix_micros), Some(40));
}

#[test]
fn a_number_that_nobody_comes_to_is_in_no_name_of_a_file() {
    let number = |seq: u64| spool::parse_file_name(&spool::file_path(Path::new(""), "1-a", seq)).map(|(_, seq)| seq);
    assert_eq!([0, 1, u64::MAX].map(number), [None, Some(1), None]);
}

#[test]
fn a_directory_that_takes_nothing_leaves_the_queue_in_memory_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = open(dir.path(), "1-a");
    let lane = dir.path().join("queue/agent/metrics");
    // Files cannot be made where there is no directory.
    std::fs::remove_dir_all(&lane).unwrap();
    std::fs::write(&lane, "in the way").unwrap();
    for number in 1..=3 {
        lanes.push(v1::Lane::Metrics, &record(5000), number);
    }
    assert_ne!(lanes.lane(v1::Lane::Metrics).depth(1).broken, None);
    for number in 4..=40 {
        lanes.push(v1::Lane::Metrics, &record(1000), number);
    }
    let depth = lanes.lane(v1::Lane::Metrics).depth(1);
    assert!(depth.dropped > 0, "memory has a limit of its own: {depth:?}");
    assert_eq!(depth.records + depth.dropped, 40);
    std::fs::remove_file(&lane).unwrap();
    lanes.settle(50);
    assert_eq!(lanes.lane(v1::Lane::Metrics).depth(1).broken, None);
    let events = events(&mut lanes);
    assert_eq!(events.first().map(String::as_str), Some("AGENT_QUEUE_IN_MEMORY"));
    assert_eq!(events.last().map(String::as_str), Some("AGENT_QUEUE_ON_DISK"));
    let kept = depth.records;
    drop(lanes);
    assert_eq!(open(dir.path(), "2-b").lane(v1::Lane::Metrics).depth(1).records, kept);
}

#[test]
fn a_sync_that_fails_is_told_once_and_all_that_memory_has_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = open(dir.path(), "1-a");
    for number in 1..=3 {
        lanes.push(v1::Lane::Metrics, &record(100), number);
    }
    for now in [4, 5] {
        assert!(!lanes.lane_mut(v1::Lane::Metrics).written().is_empty());
        lanes.sync_failed(v1::Lane::Metrics, &std::io::Error::from_raw_os_error(5), now);
    }
    lanes.push(v1::Lane::Metrics, &record(100), 6);
    lanes.settle(7);
    assert_eq!(events(&mut lanes), ["AGENT_QUEUE_IN_MEMORY", "AGENT_QUEUE_ON_DISK"]);
    assert!(!lanes.lane_mut(v1::Lane::Metrics).written().is_empty());
    drop(lanes);
    assert_eq!(open(dir.path(), "2-b").lane(v1::Lane::Metrics).depth(8).records, 4);
}
