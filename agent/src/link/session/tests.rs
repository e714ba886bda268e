use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::queue::Limits;
use super::*;

mod backlog;
mod copies;
mod leaving;
mod logs;
mod room;

const INTERVAL: Duration = Duration::from_secs(30);

/// A session, its queue and a clock that moves only when told.
struct Bench {
    session: Session,
    lanes: Lanes,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let now = Now {
            instant: Instant::now(),
            unix_micros: 1_000_000,
        };
        Self {
            session: Session::new(hello(), now),
            lanes: Lanes::in_memory("1-a", Limits::default()),
            now,
        }
    }

    fn active() -> Self {
        let mut bench = Self::new();
        bench.next();
        bench.receive(In::Welcome(welcome()));
        assert!(bench.session.is_active());
        bench
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now.instant += time;
        self.now.unix_micros += micros(time);
        self.handle(Event::Tick)
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        self.session.handle(event, &mut self.lanes, self.now)
    }

    fn receive(&mut self, frame: In) -> Vec<Effect> {
        self.handle(Event::Received(v1::ConnectResponse { frame: Some(frame) }))
    }

    fn record(&mut self, lane: v1::Lane, size: usize) {
        self.lanes.push(lane, &record(size), self.now.unix_micros);
    }

    fn next(&mut self) -> Option<Out> {
        self.session.next_frame(&mut self.lanes, self.now)?.frame
    }

    fn all(&mut self) -> Vec<Out> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn closed(&self) -> &Closed {
        self.session.closed().expect("the session is over")
    }
}

fn hello() -> v1::Hello {
    v1::Hello {
        protocol_version: PROTOCOL_VERSION,
        ..Default::default()
    }
}

fn welcome() -> v1::Welcome {
    let window = |lane: v1::Lane| v1::LaneWindow {
        lane: lane.into(),
        window_bytes: 256 * 1024,
    };
    v1::Welcome {
        session_id: "s1".into(),
        heartbeat_interval_micros: micros(INTERVAL),
        windows: vec![window(v1::Lane::Results), window(v1::Lane::Metrics)],
        ..Default::default()
    }
}

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

fn ack(lane: v1::Lane, through_seq: u64, window_bytes: u64) -> In {
    let spool_id = "1-a".to_owned();
    In::Ack(v1::Ack {
        lane: lane.into(),
        spool_id,
        through_seq,
        rejected: Vec::new(),
        window_bytes,
        resends: 0,
    })
}

fn lanes_of(frames: &[Out]) -> Vec<(v1::Lane, u64, usize)> {
    let records = frames.iter().filter_map(|frame| match frame {
        Out::Records(records) => Some((records.lane(), records.first_seq, records.records.len())),
        _ => None,
    });
    records.collect()
}

fn range(bench: &Bench, lane: v1::Lane) -> Option<(u64, u64)> {
    bench.lanes.lane(lane).spools().next().and_then(|live| live.range())
}

#[test]
fn hello_is_first_and_nothing_follows_it_before_welcome() {
    let mut bench = Bench::new();
    bench.record(v1::Lane::Results, 10);
    assert!(matches!(bench.next(), Some(Out::Hello(_))));
    assert_eq!(bench.next(), None);
    bench.receive(In::Welcome(welcome()));
    assert!(matches!(bench.next(), Some(Out::Records(_))));
}

#[test]
fn a_controller_whose_first_frame_is_not_welcome_is_left() {
    for frame in [Some(In::Heartbeat(v1::ControllerHeartbeat::default())), None] {
        let mut bench = Bench::new();
        bench.next();
        bench.handle(Event::Received(v1::ConnectResponse { frame }));
        assert!(matches!(bench.closed(), Closed::Violation(_)));
    }
}

#[test]
fn a_second_welcome_is_a_violation() {
    let mut bench = Bench::active();
    bench.receive(In::Welcome(welcome()));
    assert!(matches!(bench.closed(), Closed::Violation(_)));
}

#[test]
fn a_handshake_without_an_answer_ends() {
    let mut bench = Bench::new();
    bench.next();
    assert_eq!(bench.session.deadline(false), Some(bench.now.instant + HANDSHAKE));
    bench.pass(HANDSHAKE);
    assert_eq!(bench.closed(), &Closed::HandshakeTimeout);
    assert_eq!(bench.session.deadline(false), None);
}

#[test]
fn heartbeats_go_out_at_the_interval_of_welcome_with_the_echo_of_the_controllers_clock() {
    let mut bench = Bench::active();
    bench.receive(In::Heartbeat(v1::ControllerHeartbeat {
        time_unix_micros: 777,
        answer_now: false,
    }));
    bench.record(v1::Lane::Metrics, 100);
    bench.receive(ack(v1::Lane::Metrics, 0, 0));
    assert_eq!(bench.all(), []);
    bench.pass(INTERVAL);
    let [Out::Heartbeat(heartbeat)] = &bench.all()[..] else {
        panic!("one heartbeat is due")
    };
    assert_eq!(
        (heartbeat.echo_unix_micros, heartbeat.echo_age_micros),
        (777, micros(INTERVAL))
    );
    assert_eq!(heartbeat.time_unix_micros, bench.now.unix_micros);
    let metrics = &heartbeat.lanes[1];
    assert_eq!(
        (metrics.lane(), metrics.records, metrics.oldest_age_micros),
        (v1::Lane::Metrics, 1, micros(INTERVAL))
    );
    assert_eq!(bench.session.deadline(false), Some(bench.now.instant + INTERVAL));
}

#[test]
fn a_controller_that_is_silent_for_three_intervals_is_left_and_any_frame_counts_as_life() {
    let mut bench = Bench::active();
    bench.pass(INTERVAL * 2);
    bench.receive(ack(v1::Lane::Results, 0, 1000));
    bench.pass(INTERVAL * 2);
    assert!(bench.session.is_active());
    bench.pass(INTERVAL);
    assert_eq!(bench.closed(), &Closed::Silent(INTERVAL * 3));
}

#[test]
fn a_welcome_with_a_senseless_interval_gives_a_sensible_one() {
    assert_eq!(heartbeat_interval(0), Duration::from_secs(30));
    assert_eq!(heartbeat_interval(-5), Duration::from_secs(30));
    assert_eq!(heartbeat_interval(1), Duration::from_millis(50));
    assert_eq!(heartbeat_interval(i64::MAX), Duration::from_secs(3600));
}

#[test]
fn results_go_before_metrics_and_control_frames_before_both() {
    let mut bench = Bench::active();
    bench.record(v1::Lane::Metrics, 10);
    bench.record(v1::Lane::Results, 10);
    bench.handle(Event::Facts(Arc::new(v1::Facts {
        digest: "sha256:1".into(),
        ..Default::default()
    })));
    let frames = bench.all();
    assert!(matches!(frames[0], Out::Facts(_)));
    assert_eq!(
        lanes_of(&frames),
        [(v1::Lane::Results, 1, 1), (v1::Lane::Metrics, 1, 1)]
    );
}

#[test]
fn what_is_unacknowledged_never_exceeds_the_window_of_its_lane() {
    let mut bench = Bench::active();
    bench.receive(ack(v1::Lane::Results, 0, 2500));
    for _ in 0..4 {
        bench.record(v1::Lane::Results, 1000);
    }
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Results, 1, 2)]);
    bench.receive(ack(v1::Lane::Results, 2, 1500));
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Results, 3, 1)]);
}

#[test]
fn a_record_larger_than_its_window_goes_alone_but_a_window_of_zero_stops_the_lane() {
    let mut bench = Bench::active();
    bench.receive(ack(v1::Lane::Results, 0, 0));
    bench.record(v1::Lane::Results, 5000);
    bench.record(v1::Lane::Results, 10);
    assert_eq!(bench.all(), []);
    bench.receive(ack(v1::Lane::Results, 0, 1));
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Results, 1, 1)]);
}

#[test]
fn a_frame_of_records_stays_within_8_kib() {
    use prost::Message as _;
    let mut bench = Bench::active();
    for _ in 0..300 {
        bench.record(v1::Lane::Metrics, 700);
    }
    let frames = bench.all();
    assert!(frames.len() > 2);
    for frame in frames {
        let Out::Records(records) = frame else {
            panic!("only records are due")
        };
        assert!(records.encoded_len() <= 8 * 1024);
    }
}

#[test]
fn an_ack_of_another_spool_or_lane_changes_nothing() {
    let mut bench = Bench::active();
    bench.record(v1::Lane::Results, 10);
    bench.all();
    let other = v1::Ack {
        lane: v1::Lane::Results.into(),
        spool_id: "0-z".into(),
        through_seq: 1,
        ..Default::default()
    };
    bench.receive(In::Ack(other));
    bench.receive(In::Ack(v1::Ack {
        spool_id: "1-a".into(),
        through_seq: 1,
        lane: 99,
        ..Default::default()
    }));
    assert_eq!(range(&bench, v1::Lane::Results), Some((1, 1)));
}

#[test]
fn rejected_records_leave_the_queue_and_are_counted_and_named() {
    let mut bench = Bench::active();
    bench.record(v1::Lane::Results, 10);
    bench.all();
    let rejected = vec![v1::Rejected {
        seq: 1,
        reason: "bad text".into(),
    }];
    let spool_id = "1-a".to_owned();
    let lane = v1::Lane::Results;
    let effects = bench.receive(In::Ack(v1::Ack {
        lane: lane.into(),
        spool_id,
        through_seq: 1,
        rejected,
        window_bytes: 1,
        resends: 0,
    }));
    assert_eq!(
        effects,
        [Effect::Rejected {
            lane,
            seq: 1,
            reason: "bad text".into()
        }]
    );
    let depth = bench.lanes.lane(lane).depth(bench.now.unix_micros);
    assert_eq!((depth.records, depth.rejected), (0, 1));
}

#[test]
fn welcome_trims_what_an_earlier_connection_got_stored_and_the_rest_is_sent_again() {
    let mut bench = Bench::active();
    for _ in 0..5 {
        bench.record(v1::Lane::Results, 10);
    }
    bench.all();
    bench.session = Session::new(hello(), bench.now);
    bench.next();
    let acked = vec![v1::AckedSpool {
        spool_id: "1-a".into(),
        lane: v1::Lane::Results.into(),
        through_seq: 3,
    }];
    bench.receive(In::Welcome(v1::Welcome { acked, ..welcome() }));
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Results, 4, 2)]);
}

#[test]
fn an_ack_of_what_only_an_earlier_connection_sent_is_good() {
    let mut bench = Bench::active();
    for _ in 0..5 {
        bench.record(v1::Lane::Results, 10);
    }
    bench.all();
    bench.session = Session::new(hello(), bench.now);
    bench.next();
    bench.receive(In::Welcome(welcome()));
    bench.receive(ack(v1::Lane::Results, 5, 1000));
    assert!(bench.session.is_active());
    assert_eq!(bench.all(), []);
    assert!(bench.lanes.lane(v1::Lane::Results).is_empty());
}

#[test]
fn a_welcome_that_acknowledges_more_than_was_sent_asks_for_a_new_spool_and_loses_nothing() {
    let mut bench = Bench::new();
    bench.record(v1::Lane::Results, 10);
    bench.next();
    let acked = vec![v1::AckedSpool {
        spool_id: "1-a".into(),
        lane: v1::Lane::Results.into(),
        through_seq: 9,
    }];
    bench.receive(In::Welcome(v1::Welcome { acked, ..welcome() }));
    assert_eq!(bench.closed(), &Closed::ForeignSpool(NeverSent { through: 9, sent: 0 }));
    assert_eq!(range(&bench, v1::Lane::Results), Some((1, 1)));
}

#[test]
fn facts_and_policy_status_go_out_only_when_the_controller_holds_another_digest() {
    let mut bench = Bench::new();
    bench.next();
    bench.receive(In::Welcome(v1::Welcome {
        facts_digest: "sha256:1".into(),
        ..welcome()
    }));
    let facts = |digest: &str| {
        Event::Facts(Arc::new(v1::Facts {
            digest: digest.into(),
            ..Default::default()
        }))
    };
    let status = v1::PolicyStatus {
        digest: "sha256:p".into(),
        ..Default::default()
    };
    bench.handle(facts("sha256:1"));
    bench.handle(Event::PolicyStatus(Arc::new(status.clone())));
    assert_eq!(bench.all(), [Out::PolicyStatus(status.clone())]);
    bench.handle(facts("sha256:2"));
    bench.handle(Event::PolicyStatus(Arc::new(status)));
    assert!(matches!(&bench.all()[..], [Out::Facts(facts)] if facts.digest == "sha256:2"));
}

#[test]
fn policy_bodies_are_kept_for_the_sync_that_follows_them() {
    let mut bench = Bench::active();
    let signed = |text: &'static str| v1::Signed {
        payload: text.as_bytes().into(),
        ..Default::default()
    };
    assert_eq!(
        bench.receive(In::PolicyBody(v1::PolicyBody {
            policy: Some(signed("large"))
        })),
        []
    );
    let sync = v1::PolicySync {
        set_digest: "sha256:s".into(),
        added: vec![signed("small")],
        ..Default::default()
    };
    let expected = v1::PolicySync {
        added: vec![signed("large"), signed("small")],
        ..sync.clone()
    };
    assert_eq!(
        bench.receive(In::PolicySync(sync.clone())),
        [Effect::ApplyPolicies(expected)]
    );
    assert_eq!(
        bench.receive(In::PolicySync(sync.clone())),
        [Effect::ApplyPolicies(sync)]
    );
}

#[test]
fn policy_bodies_without_end_are_a_violation() {
    let mut bench = Bench::active();
    let body = vec![0u8; 1024 * 1024];
    for _ in 0..=BODIES_BYTES / body.len() {
        let policy = Some(v1::Signed {
            payload: body.clone().into(),
            ..Default::default()
        });
        bench.receive(In::PolicyBody(v1::PolicyBody { policy }));
    }
    assert!(matches!(bench.closed(), Closed::Violation(_)));
}

#[test]
fn a_policy_set_that_differs_ends_the_session() {
    let mut bench = Bench::active();
    bench.handle(Event::PolicySetDiffers("digest".into()));
    assert!(matches!(bench.closed(), Closed::PolicySetDiffers(_)));
    assert_eq!(bench.all(), []);
}

#[test]
fn unknown_frames_are_counted_and_ignored() {
    let mut bench = Bench::active();
    bench.handle(Event::Received(v1::ConnectResponse { frame: None }));
    assert!(bench.session.is_active());
    assert_eq!(bench.session.unknown_frames, 1);
}

/// The other end as the agent must be able to rely on it: stores records in order, once.
#[derive(Default)]
struct Controller {
    stored: Vec<i64>,
    mark: u64,
    /// Frames that are on their way to it.
    incoming: VecDeque<v1::Records>,
    /// Acknowledgements that are on their way back.
    outgoing: VecDeque<u64>,
}

#[derive(Debug, Clone)]
enum Step {
    Record(usize),
    Transmit(usize),
    Commit,
    Deliver,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..3000).prop_map(Step::Record),
        4 => (1usize..4).prop_map(Step::Transmit),
        3 => Just(Step::Commit),
        3 => Just(Step::Deliver),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    #[test]
    fn wherever_the_connection_is_cut_every_record_is_stored_once_in_order_or_still_queued(
        steps in prop::collection::vec(step(), 1..200),
        window in 1u64..20_000,
    ) {
        let lane = v1::Lane::Results;
        let mut bench = Bench::new();
        let mut controller = Controller::default();
        let mut made = 0i64;
        let greeting = |controller: &Controller| v1::Welcome {
            acked: vec![v1::AckedSpool { spool_id: "1-a".into(), lane: lane.into(), through_seq: controller.mark }],
            windows: vec![v1::LaneWindow { lane: lane.into(), window_bytes: window }],
            ..welcome()
        };
        bench.next();
        bench.receive(In::Welcome(greeting(&controller)));
        for step in steps {
            match step {
                Step::Record(size) => {
                    made += 1;
                    let numbered = v1::Record { time_unix_micros: made, ..record(size) };
                    bench.lanes.push(lane, &numbered, bench.now.unix_micros);
                }
                Step::Transmit(frames) => {
                    for frame in (0..frames).map_while(|_| bench.next()) {
                        let Out::Records(records) = frame else { panic!("only records are due") };
                        controller.incoming.push_back(records);
                    }
                }
                Step::Commit => {
                    if let Some(records) = controller.incoming.pop_front() {
                        for (seq, record) in (records.first_seq..).zip(&records.records) {
                            if seq > controller.mark {
                                prop_assert_eq!(seq, controller.mark + 1, "no record was passed over");
                                controller.mark = seq;
                                controller.stored.push(record.time_unix_micros);
                            }
                        }
                        controller.outgoing.push_back(controller.mark);
                    }
                }
                Step::Deliver => {
                    if let Some(through) = controller.outgoing.pop_front() {
                        bench.receive(ack(lane, through, window));
                    }
                }
                Step::Cut => {
                    // Of what was on its way an unknown part arrived; here half of it.
                    let arrived = controller.incoming.len() / 2;
                    controller.incoming.truncate(arrived);
                    controller.outgoing.clear();
                    bench.session = Session::new(hello(), bench.now);
                    bench.next();
                    bench.receive(In::Welcome(greeting(&controller)));
                }
            }
            prop_assert!(bench.session.is_active(), "{:?}", bench.session.closed());
            let expected: Vec<i64> = (1..=made).take(controller.stored.len()).collect();
            prop_assert_eq!(&controller.stored, &expected, "stored once and in order");
            let queued = range(&bench, lane);
            let first_queued = queued.map_or(made as u64 + 1, |(first, _)| first);
            prop_assert!(first_queued <= controller.mark + 1, "what is not stored is still queued");
            prop_assert_eq!(queued.map_or(made as u64, |(_, last)| last), made as u64);
        }
    }
}
