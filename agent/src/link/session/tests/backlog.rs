//! What waited over an outage, and what is recorded while it is sent.

use super::*;

const LANE: v1::Lane = v1::Lane::Results;

fn of_spool(spool: &str, through_seq: u64, window_bytes: u64) -> In {
    let In::Ack(mut ack) = ack(LANE, through_seq, window_bytes) else {
        unreachable!("it is an acknowledgement")
    };
    ack.spool_id = spool.to_owned();
    In::Ack(ack)
}

fn spools(frames: &[Out]) -> Vec<(&str, u64, usize)> {
    let records = frames.iter().filter_map(|frame| match frame {
        Out::Records(records) => Some((records.spool_id.as_str(), records.first_seq, records.records.len())),
        _ => None,
    });
    records.collect()
}

#[test]
fn much_that_waits_makes_a_link_begin_with_a_new_spool_and_little_does_not() {
    let greeted = |records| {
        let mut bench = Bench::new();
        (0..records).for_each(|_| bench.record(LANE, 1000));
        bench.next();
        bench.receive(In::Welcome(welcome()))
    };
    assert!(!greeted(10).contains(&Effect::StartSpool { above: 0 }));
    assert!(greeted(100).contains(&Effect::StartSpool { above: 0 }));
}

#[test]
fn what_is_recorded_now_goes_before_what_waited_and_that_uses_half_of_the_window() {
    let mut bench = Bench::active();
    bench.receive(ack(LANE, 0, 10_000));
    for _ in 0..20 {
        bench.record(LANE, 1000);
    }
    bench.lanes.start_spool("2-b");
    let frames = bench.all();
    assert_eq!(spools(&frames), [("1-a", 1, 4)], "half of the window");
    bench.record(LANE, 1000);
    assert_eq!(spools(&bench.all()), [("2-b", 1, 1)]);
    bench.receive(of_spool("1-a", 4, 10_000));
    bench.record(LANE, 1000);
    let frames = bench.all();
    assert_eq!(spools(&frames), [("2-b", 2, 1), ("1-a", 5, 4)]);
    // A window that is full of both waits for an acknowledgement of either.
    for _ in 0..9 {
        bench.record(LANE, 1000);
    }
    assert_eq!(spools(&bench.all()), [("2-b", 3, 3)]);
    bench.receive(of_spool("2-b", 2, 10_000));
    assert_eq!(spools(&bench.all()), [("2-b", 6, 2)]);
}

#[test]
fn a_goodbye_waits_for_what_waited_too() {
    let mut bench = Bench::active();
    bench.record(LANE, 10);
    bench.lanes.start_spool("2-b");
    bench.handle(Event::Stop);
    assert_eq!(spools(&bench.all()), [("1-a", 1, 1)]);
    assert!(bench.session.is_active());
    bench.receive(of_spool("1-a", 1, 10_000));
    assert!(matches!(&bench.all()[..], [Out::Goodbye(_)]));
}

#[test]
fn an_acknowledgement_of_a_spool_that_was_given_up_frees_its_part_of_the_window() {
    let mut bench = Bench::active();
    bench.receive(ack(LANE, 0, 2100));
    bench.record(LANE, 2000);
    bench.record(LANE, 2000);
    assert_eq!(spools(&bench.all()), [("1-a", 1, 1)]);
    bench.lanes.lane_mut(LANE).drop_older(i64::MAX);
    bench.lanes.start_spool("2-b");
    bench.record(LANE, 2000);
    assert_eq!(spools(&bench.all()), [("2-b", 1, 1)], "the gap");
    assert_eq!(bench.all(), [], "the window is full");
    bench.receive(of_spool("1-a", 1, 2100));
    assert_eq!(spools(&bench.all()), [("2-b", 2, 1)]);
}

#[test]
fn a_window_that_what_waited_fills_has_room_for_one_record_of_now() {
    let mut bench = Bench::active();
    bench.receive(ack(LANE, 0, 2_000));
    bench.record(LANE, 3_000);
    bench.record(LANE, 3_000);
    bench.lanes.start_spool("2-b");
    assert_eq!(spools(&bench.all()), [("1-a", 1, 1)], "it goes alone");
    bench.record(LANE, 3_000);
    bench.record(LANE, 3_000);
    assert_eq!(spools(&bench.all()), [("2-b", 1, 1)], "beside it");
    bench.receive(of_spool("1-a", 1, 2_000));
    assert_eq!(bench.all(), [], "and now it is in the way of both");
    bench.receive(of_spool("2-b", 1, 2_000));
    assert_eq!(spools(&bench.all()), [("2-b", 2, 1)]);
}

#[test]
fn beside_a_record_of_many_windows_there_is_no_room() {
    let mut bench = Bench::active();
    bench.receive(ack(LANE, 0, 2_000));
    bench.record(LANE, 10_000);
    bench.lanes.start_spool("2-b");
    bench.record(LANE, 10);
    assert_eq!(spools(&bench.all()), [("2-b", 1, 1)]);
    bench.receive(of_spool("2-b", 1, 2_000));
    assert_eq!(spools(&bench.all()), [("1-a", 1, 1)]);
    bench.record(LANE, 10);
    assert_eq!(bench.all(), [], "the controller would take it for a violation");
}

#[test]
fn what_waited_makes_a_pause_that_is_four_times_as_long_as_its_acknowledgement_took() {
    let mut bench = Bench::active();
    bench.receive(ack(LANE, 0, 2_000));
    (0..3).for_each(|_| bench.record(LANE, 900));
    bench.lanes.start_spool("2-b");
    assert_eq!(spools(&bench.all()), [("1-a", 1, 1)]);
    bench.pass(Duration::from_millis(100));
    bench.receive(of_spool("1-a", 1, 2_000));
    assert_eq!(bench.all(), []);
    bench.record(LANE, 900);
    assert_eq!(spools(&bench.all()), [("2-b", 1, 1)], "what is new goes all the same");
    bench.receive(of_spool("2-b", 1, 2_000));
    let resumes = bench.now.instant + Duration::from_millis(400);
    assert_eq!(bench.session.deadline(false), Some(resumes));
    bench.pass(Duration::from_millis(400));
    assert_eq!(spools(&bench.all()), [("1-a", 2, 1)]);
    // However slow a controller is, it goes on.
    bench.pass(Duration::from_secs(20));
    bench.receive(of_spool("1-a", 2, 2_000));
    assert_eq!(bench.all(), []);
    bench.pass(Duration::from_secs(5));
    assert_eq!(spools(&bench.all()), [("1-a", 3, 1)]);
}
