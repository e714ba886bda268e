//! A spool whose numbers somebody else has used too.

use std::{fs, ops::RangeInclusive};

use super::*;

const LANE: v1::Lane = v1::Lane::Metrics;

/// Records of these times.
fn push(lanes: &mut Lanes, times: RangeInclusive<i64>) {
    for time in times {
        let record = v1::Record {
            time_unix_micros: time,
            ..record(1000)
        };
        lanes.push(LANE, &record, time);
    }
}

/// The files of the lane, in their order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("queue/agent/metrics")).unwrap();
    let mut files: Vec<_> = files.map(|it| it.unwrap().path()).collect();
    files.sort();
    files
}

/// Thirty records in several files, of which the controller has the first ten: it ends within a file.
fn ten_of_thirty(dir: &Path) -> Lanes {
    let mut lanes = open(dir, "1-a");
    push(&mut lanes, 1..=30);
    lanes.lane_mut(LANE).take_batch("1-a", 0, 60_000).unwrap();
    lanes.lane_mut(LANE).ack("1-a", 10).unwrap();
    assert!(files(dir).len() > 3);
    assert_eq!(files(dir)[0].file_name().unwrap(), "1-a.00000000000000000009.seg");
    lanes
}

/// Spool, number and time of what waits.
fn times(lanes: &mut Lanes) -> Vec<(String, u64, i64)> {
    let waiting = waiting(lanes.lane_mut(LANE)).into_iter();
    waiting
        .map(|(spool, seq, record)| (spool, seq, record.time_unix_micros))
        .collect()
}

fn of_spool(id: &str, times: RangeInclusive<i64>) -> Vec<(String, u64, i64)> {
    (1..).zip(times).map(|(seq, time)| (id.to_owned(), seq, time)).collect()
}

#[test]
fn a_spool_whose_numbers_somebody_else_has_used_is_numbered_anew() {
    let mut lanes = lanes();
    for number in 1..=5 {
        lanes.push(v1::Lane::Results, &numbered(number), 1);
    }
    let lane = lanes.lane_mut(v1::Lane::Results);
    lane.take_batch("1-a", 0, 1000);
    lane.ack("1-a", 3).unwrap();
    lanes.renumber("2-b", 1);
    lanes.push(v1::Lane::Results, &numbered(6), 1);
    let expected = [4, 5, 6].map(|number| ("2-b".to_owned(), number as u64 - 3, numbered(number)));
    assert_eq!(waiting(lanes.lane_mut(v1::Lane::Results)), expected);
}

#[test]
fn on_disk_its_files_are_given_other_names_and_what_is_acknowledged_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = ten_of_thirty(dir.path());
    lanes.renumber("2-b", 31);
    assert_eq!(times(&mut lanes), of_spool("2-b", 11..=30));
    drop(lanes);
    assert!(
        files(dir.path())
            .iter()
            .all(|it| it.to_string_lossy().contains("/2-b."))
    );
    let mut lanes = open(dir.path(), "3-c");
    assert_eq!(times(&mut lanes), of_spool("2-b", 11..=30));
    assert_eq!(lanes.lane(LANE).depth(31).dropped, 0);
}

#[test]
fn where_files_cannot_be_renamed_it_is_told_and_done_when_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = ten_of_thirty(dir.path());
    // A directory that is in the way of the last file.
    let last = &files(dir.path())[files(dir.path()).len() - 1];
    let (_, first_seq) = spool::parse_file_name(last).unwrap();
    let obstacle = spool::file_path(last.parent().unwrap(), "2-b", first_seq - 10);
    fs::create_dir(&obstacle).unwrap();
    lanes.renumber("2-b", 31);
    assert_eq!(
        times(&mut lanes),
        of_spool("2-b", 11..=30),
        "it can be sent from where it lies"
    );
    assert!(lanes.lane(LANE).depth(31).broken.is_some());
    fs::remove_dir(&obstacle).unwrap();
    lanes.settle(32);
    assert_eq!(events(&mut lanes), ["AGENT_QUEUE_IN_MEMORY", "AGENT_QUEUE_ON_DISK"]);
    drop(lanes);
    assert_eq!(times(&mut open(dir.path(), "3-c")), of_spool("2-b", 11..=30));
}

#[test]
fn one_file_that_cannot_be_written_anew_keeps_no_other_from_its_name_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = ten_of_thirty(dir.path());
    let (first, count) = (files(dir.path())[0].clone(), files(dir.path()).len());
    // Directories that are in the way of the first file, under either id.
    let lane = first.parent().unwrap();
    let obstacles = [("1-a", 11), ("2-b", 1)].map(|(id, seq)| spool::file_path(lane, id, seq));
    for obstacle in &obstacles {
        fs::create_dir(obstacle).unwrap();
    }
    lanes.renumber("2-b", 31);
    assert_eq!(times(&mut lanes), of_spool("2-b", 11..=30));
    assert!(first.exists(), "memory alone has its records otherwise");
    let renamed = |path: &&PathBuf| path.is_file() && path.to_string_lossy().contains("/2-b.");
    assert_eq!(files(dir.path()).iter().filter(renamed).count(), count - 1);
    for obstacle in &obstacles {
        fs::remove_dir(obstacle).unwrap();
    }
    lanes.settle(32);
    assert!(!first.exists());
    drop(lanes);
    assert_eq!(times(&mut open(dir.path(), "3-c")), of_spool("2-b", 11..=30));
}

#[test]
fn what_cannot_be_read_of_it_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut lanes = open(dir.path(), "1-a");
    push(&mut lanes, 1..=3);
    lanes.lane_mut(LANE).take_batch("1-a", 0, 60_000).unwrap();
    lanes.lane_mut(LANE).ack("1-a", 2).unwrap();
    // When it is full, the file alone has it.
    push(&mut lanes, 4..=30);
    fs::write(&files(dir.path())[0], "nothing of use").unwrap();
    lanes.renumber("2-b", 31);
    assert_eq!(times(&mut lanes), of_spool("2-b", 5..=30));
    let gaps = waiting(lanes.lane_mut(v1::Lane::Results)).into_iter();
    let gaps = gaps.filter_map(|(_, _, record)| match record.body {
        Some(v1::record::Body::Gap(gap)) => Some((gap.spool_id, gap.first_seq, gap.last_seq)),
        _ => None,
    });
    assert_eq!(gaps.collect::<Vec<_>>(), [("1-a".to_owned(), 3, 4)]);
}

#[test]
fn a_kill_while_its_first_file_is_written_anew_leaves_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    drop(ten_of_thirty(dir.path()));
    let before = times(&mut open(dir.path(), "2-b"));
    let first = fs::read(&files(dir.path())[0]).unwrap();
    let one = 8 + frame::read(&first[8..]).unwrap().size();
    // Whole, and torn.
    for length in [first.len(), first.len() - 1, 8] {
        let anew = spool::file_path(&dir.path().join("queue/agent/metrics"), "1-a", 10);
        fs::write(&anew, [&first[..8], &first[one..length.max(one)]].concat()).unwrap();
        let mut lanes = open(dir.path(), "3-c");
        assert_eq!(times(&mut lanes), before);
        assert_eq!(lanes.lane(LANE).depth(31).records, before.len() as u64);
        assert!(!anew.exists());
    }
}
