use proptest::prelude::*;

use super::*;

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
    Lanes::new("1-a".into(), Limits::default())
}

#[test]
fn a_batch_stops_at_its_limit_but_carries_at_least_one_record() {
    let mut lane = Lane::new(Limits::default());
    for _ in 0..3 {
        lane.push(&record(1000), Instant::now());
    }
    assert_eq!(lane.take_batch(0, 2100).unwrap().records.len(), 2);
    let batch = lane.take_batch(2, 10).unwrap();
    assert_eq!((batch.first_seq, batch.last_seq, batch.records.len()), (3, 3, 1));
    assert_eq!(lane.take_batch(3, 10), None);
}

#[test]
fn a_batch_breaks_where_sequence_numbers_do_not_follow_each_other() {
    let mut lane = Lane::new(Limits::default());
    for number in 1..=4 {
        lane.push(&numbered(number), Instant::now());
    }
    lane.entries.remove(1);
    assert_eq!(lane.take_batch(0, 1000).unwrap().last_seq, 1);
    let batch = lane.take_batch(1, 1000).unwrap();
    assert_eq!((batch.first_seq, batch.last_seq), (3, 4));
}

#[test]
fn a_record_that_no_frame_can_carry_is_counted_and_takes_no_number() {
    let mut lane = Lane::new(Limits::default());
    lane.push(&record(RECORD_BYTES + 1), Instant::now());
    lane.push(&numbered(1), Instant::now());
    assert_eq!(lane.depth(Instant::now()).dropped, 1);
    assert_eq!(lane.range(), Some((1, 1)));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_forgets_nothing() {
    let mut lane = Lane::new(Limits::default());
    lane.push(&numbered(1), Instant::now());
    lane.push(&numbered(2), Instant::now());
    assert_eq!(lane.ack(1), Err(NeverSent { through: 1, sent: 0 }));
    assert_eq!(lane.range(), Some((1, 2)));
}

#[test]
fn a_new_spool_numbers_what_is_left_from_one_again() {
    let mut lanes = lanes();
    for number in 1..=5 {
        lanes
            .lane_mut(v1::Lane::Results)
            .push(&numbered(number), Instant::now());
    }
    let lane = lanes.lane_mut(v1::Lane::Results);
    lane.take_batch(0, 1000);
    lane.ack(3).unwrap();
    lanes.start_spool("2-b".into());
    let lane = lanes.lane_mut(v1::Lane::Results);
    assert_eq!(lane.range(), Some((1, 2)));
    assert_eq!(lane.take_batch(0, 1000).unwrap().records, [numbered(4), numbered(5)]);
    lane.push(&numbered(6), Instant::now());
    assert_eq!(lane.range(), Some((1, 3)));
    assert_eq!(lanes.spools()[0].spool_id, "2-b");
}

#[test]
fn hello_names_the_spool_of_both_lanes_even_when_they_are_empty() {
    let spools = lanes().spools();
    let lanes: Vec<_> = spools.iter().map(|spool| spool.lane()).collect();
    assert_eq!(lanes, [v1::Lane::Results, v1::Lane::Metrics]);
    assert!(
        spools
            .iter()
            .all(|spool| (spool.first_seq, spool.last_seq) == (0, 0) && spool.spool_id == "1-a")
    );
}

#[tokio::test]
async fn the_link_hears_of_a_record_that_came_before_it_listened() {
    let queue = Queue::new("1-a".into(), Limits::default());
    queue.recorder().record(v1::Lane::Metrics, numbered(7));
    queue.recorded().await;
    assert_eq!(queue.lock().lane(v1::Lane::Metrics).range(), Some((1, 1)));
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Take {
        max_bytes: usize,
    },
    /// Acknowledges this part of what was sent.
    Ack(f64),
    /// The connection is gone: what was sent may be sent again.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..400).prop_map(Step::Push),
        3 => (1usize..2000).prop_map(|max_bytes| Step::Take { max_bytes }),
        2 => (0.0..=1.0).prop_map(Step::Ack),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    /// The model is a plain list of (seq, record); the lane must hold exactly what the model says.
    #[test]
    fn a_lane_is_a_bounded_list_that_forgets_only_from_its_front(steps in prop::collection::vec(step(), 1..120)) {
        let limits = Limits { bytes: 3000, records: 12 };
        let now = Instant::now();
        let mut lane = Lane::new(limits);
        let mut model: VecDeque<(u64, v1::Record)> = VecDeque::new();
        let (mut pushed, mut dropped, mut sent_here, mut sent) = (0u64, 0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Push(size) => {
                    let record = record(size);
                    pushed += 1;
                    model.push_back((pushed, record.clone()));
                    let cost = |list: &VecDeque<(u64, v1::Record)>| -> usize {
                        list.iter().map(|(_, record)| record.encoded_len() + RECORD_OVERHEAD).sum()
                    };
                    while model.len() > limits.records || cost(&model) > limits.bytes {
                        model.pop_front();
                        dropped += 1;
                    }
                    lane.push(&record, now);
                }
                Step::Take { max_bytes } => {
                    let expected = model.iter().find(|(seq, _)| *seq > sent_here).map(|(seq, _)| *seq);
                    let batch = lane.take_batch(sent_here, max_bytes);
                    prop_assert_eq!(batch.as_ref().map(|batch| batch.first_seq), expected);
                    if let Some(batch) = batch {
                        prop_assert!(batch.bytes <= max_bytes || batch.records.len() == 1);
                        for (seq, record) in (batch.first_seq..=batch.last_seq).zip(&batch.records) {
                            prop_assert!(model.iter().any(|(known, held)| *known == seq && held == record));
                        }
                        prop_assert_eq!(batch.records.len() as u64, batch.last_seq - batch.first_seq + 1);
                        sent_here = batch.last_seq;
                        sent = sent.max(sent_here);
                    }
                }
                Step::Ack(part) => {
                    let through = (sent as f64 * part) as u64;
                    prop_assert_eq!(lane.ack(through), Ok(()));
                    model.retain(|(seq, _)| *seq > through);
                }
                Step::Reconnect => sent_here = 0,
            }
            let depth = lane.depth(now);
            prop_assert_eq!(depth.records, model.len());
            prop_assert_eq!(depth.dropped, dropped);
            prop_assert!(depth.bytes <= limits.bytes);
            prop_assert_eq!(lane.range(), model.front().map(|(first, _)| (*first, model.back().unwrap().0)));
        }
    }
}
