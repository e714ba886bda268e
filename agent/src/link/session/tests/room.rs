//! What an agent does when its controller has no room.

use super::*;

const LANE: v1::Lane = v1::Lane::Results;

fn told(window_bytes: u64, resends: u32) -> In {
    In::Ack(v1::Ack {
        lane: LANE.into(),
        window_bytes,
        resends,
        ..Default::default()
    })
}

fn sent(frames: &[Out]) -> Vec<(u64, usize, u32)> {
    let records = frames.iter().filter_map(|frame| match frame {
        Out::Records(records) => Some((records.first_seq, records.records.len(), records.resends)),
        _ => None,
    });
    records.collect()
}

#[test]
fn what_the_controller_gave_up_is_sent_again_when_the_window_opens_and_what_it_has_is_not() {
    let mut bench = Bench::active();
    for _ in 0..4 {
        bench.record(LANE, 10);
    }
    assert_eq!(sent(&bench.all()), [(1, 4, 0)]);
    bench.receive(ack(LANE, 1, 256 * 1024));
    bench.receive(told(0, 1));
    bench.record(LANE, 10);
    assert_eq!(bench.all(), [], "the window is closed");
    // What was stored of it nevertheless is known by its acknowledgement.
    let In::Ack(late) = ack(LANE, 2, 0) else {
        unreachable!("it is one")
    };
    bench.receive(In::Ack(v1::Ack { resends: 1, ..late }));
    bench.receive(told(256 * 1024, 1));
    assert_eq!(sent(&bench.all()), [(3, 3, 1)]);
    bench.receive(told(256 * 1024, 1));
    assert_eq!(bench.all(), [], "once");
}

#[test]
fn a_window_alone_opens_a_lane_that_nothing_was_sent_of() {
    let mut bench = Bench::active();
    bench.receive(told(0, 0));
    bench.record(LANE, 10);
    assert_eq!(bench.all(), []);
    bench.receive(told(1, 0));
    assert_eq!(sent(&bench.all()), [(1, 1, 0)]);
}
