//! The lane of logs: behind all others, and for a controller that knows it.

use super::*;

const LANE: v1::Lane = v1::Lane::Logs;

/// To a controller that knows logs.
fn active() -> Bench {
    let mut bench = Bench::new();
    bench.next();
    let mut welcome = welcome();
    welcome.windows.push(v1::LaneWindow {
        lane: LANE.into(),
        window_bytes: 1000,
    });
    bench.receive(In::Welcome(welcome));
    bench
}

#[test]
fn logs_go_behind_all_others_and_within_their_window() {
    let mut bench = active();
    for _ in 0..3 {
        bench.record(LANE, 600);
    }
    bench.record(v1::Lane::Metrics, 10);
    bench.record(v1::Lane::Results, 10);
    assert_eq!(
        lanes_of(&bench.all()),
        [(v1::Lane::Results, 1, 1), (v1::Lane::Metrics, 1, 1), (LANE, 1, 1)]
    );
    bench.receive(ack(LANE, 1, 1000));
    assert_eq!(lanes_of(&bench.all()), [(LANE, 2, 1)]);
    bench.handle(Event::Stop);
    bench.receive(ack(LANE, 2, 1000));
    assert_eq!(
        lanes_of(&bench.all()),
        [],
        "an agent that leaves does not wait for them"
    );
}

#[test]
fn a_controller_that_names_no_window_for_logs_gets_none() {
    let mut bench = Bench::active();
    bench.record(LANE, 10);
    bench.record(v1::Lane::Metrics, 10);
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Metrics, 1, 1)]);
    assert_eq!(range(&bench, LANE), Some((1, 1)), "they wait for one that does");
}
