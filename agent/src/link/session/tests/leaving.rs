//! How a session ends that is not broken: the agent stops, is sent away, or goes back to a better place.

use super::{super::leave::FLUSH, *};

fn drain(within: Duration, endpoints: &[&str]) -> In {
    In::Drain(v1::Drain {
        within_micros: micros(within),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        reason: "the controller is updated".into(),
    })
}

fn goodbye(frames: &[Out]) -> v1::GoodbyeReason {
    match frames {
        [Out::Goodbye(goodbye)] => goodbye.reason(),
        other => panic!("goodbye is due: {other:?}"),
    }
}

/// An active session that chooses this part of the time it is given.
fn bench(random: f64) -> Bench {
    let mut bench = Bench::new();
    bench.session = Session::new(hello(), bench.now).with_random(random);
    bench.next();
    bench.receive(In::Welcome(welcome()));
    bench
}

const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn who_is_sent_away_leaves_at_its_own_moment_within_the_time_and_goes_where_it_was_told() {
    for (random, moment) in [(0.0, 0), (0.5, 10), (1.0, 20)] {
        let mut bench = bench(random);
        let effects = bench.receive(drain(WITHIN, &["b:1", "no endpoint", "[::1]:2"]));
        let moment = Duration::from_secs(moment);
        let [Effect::SentAway { leaves_in, reason }] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(*leaves_in, moment);
        assert!(reason.ends_with("the controller is updated"), "{reason}");
        if !moment.is_zero() {
            bench.pass(moment - Duration::from_millis(1));
            assert_eq!(bench.all(), [], "not yet");
            assert_eq!(
                bench.session.deadline(false),
                Some(bench.now.instant + Duration::from_millis(1))
            );
        }
        bench.pass(Duration::from_millis(1));
        assert_eq!(goodbye(&bench.all()), v1::GoodbyeReason::Drained);
        let to = vec!["b:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        let reason = "the controller is updated".to_owned();
        assert_eq!(bench.closed(), &Closed::Drained { to, reason });
    }
}

#[test]
fn while_nothing_can_be_sent_it_wakes_for_what_ends_the_link_alone() {
    let mut bench = bench(0.5);
    bench.all();
    let silent_at = bench.session.deadline(true).expect("a moment");
    let heartbeat = bench.session.deadline(false).expect("a moment");
    assert!(silent_at > heartbeat);
    bench.pass(heartbeat - bench.now.instant);
    assert_eq!(bench.session.deadline(true), Some(silent_at), "no heartbeat can go out");

    bench.handle(Event::Stop);
    assert_eq!(bench.session.deadline(true), Some(bench.now.instant + 2 * FLUSH));
    bench.pass(FLUSH);
    assert!(bench.session.closed().is_none(), "the goodbye may still go out");
    bench.pass(FLUSH);
    assert_eq!(bench.closed(), &Closed::Stopped);
}

#[test]
fn who_is_sent_away_works_on_until_then_and_sends_its_results_first() {
    let mut bench = bench(0.5);
    bench.receive(drain(WITHIN, &[]));
    bench.record(v1::Lane::Metrics, 10);
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Metrics, 1, 1)], "as before");
    bench.record(v1::Lane::Results, 10);
    bench.record(v1::Lane::Metrics, 10);
    bench.pass(WITHIN / 2);
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Results, 1, 1)]);
    bench.receive(ack(v1::Lane::Results, 1, 1000));
    assert_eq!(goodbye(&bench.all()), v1::GoodbyeReason::Drained);
    assert!(
        !bench.lanes.lane(v1::Lane::Metrics).is_empty(),
        "the rest waits for the next link"
    );
}

#[test]
fn the_last_word_on_where_to_go_counts_until_the_agent_leaves() {
    let mut bench = bench(0.5);
    bench.receive(drain(WITHIN, &["b:1"]));
    bench.receive(drain(WITHIN / 2, &["c:1"]));
    bench.record(v1::Lane::Results, 10);
    bench.pass(WITHIN / 4);
    bench.all();
    assert_eq!(bench.receive(drain(WITHIN, &["d:1"])), [], "it is leaving");
    bench.pass(FLUSH);
    bench.all();
    assert!(
        matches!(bench.closed(), Closed::Drained { to, .. } if to == &["c:1".parse().unwrap()]),
        "{:?}",
        bench.closed()
    );
}

#[test]
fn a_controller_that_ends_the_link_before_has_sent_the_agent_away_all_the_same() {
    let mut bench = bench(1.0);
    assert_eq!(bench.session.leaving(), None);
    bench.receive(drain(WITHIN, &["b:1"]));
    assert!(matches!(bench.session.leaving(), Some(Closed::Drained { .. })));
    // What stops stops, wherever it was sent.
    bench.handle(Event::Stop);
    assert_eq!(goodbye(&bench.all()), v1::GoodbyeReason::Stopping);
    assert_eq!(bench.closed(), &Closed::Stopped);
}

#[test]
fn a_time_without_end_has_one() {
    for within in [i64::MAX, 0, -1] {
        let mut bench = bench(1.0);
        bench.receive(In::Drain(v1::Drain {
            within_micros: within,
            ..Default::default()
        }));
        let deadline = Duration::from_secs(3600);
        assert!(bench.session.deadline(false).unwrap() <= bench.now.instant + deadline);
        bench.now.instant += deadline - INTERVAL;
        bench.receive(In::Heartbeat(Default::default()));
        bench.pass(INTERVAL);
        assert!(matches!(bench.all().last(), Some(Out::Goodbye(_))), "{within}");
    }
}

#[test]
fn who_goes_back_to_a_better_endpoint_says_that_it_is_coming_again() {
    let mut bench = bench(0.0);
    bench.record(v1::Lane::Results, 10);
    bench.handle(Event::Return("a:1".parse().unwrap()));
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Results, 1, 1)]);
    bench.receive(ack(v1::Lane::Results, 1, 1000));
    assert_eq!(goodbye(&bench.all()), v1::GoodbyeReason::Restarting);
    assert_eq!(bench.closed(), &Closed::Returning("a:1".parse().unwrap()));
}

#[test]
fn a_planned_leave_sends_pending_results_waits_for_their_ack_and_says_goodbye() {
    let mut bench = Bench::active();
    bench.record(v1::Lane::Results, 10);
    bench.record(v1::Lane::Metrics, 10);
    bench.handle(Event::Stop);
    assert_eq!(lanes_of(&bench.all()), [(v1::Lane::Results, 1, 1)]);
    assert!(bench.session.is_active());
    bench.receive(ack(v1::Lane::Results, 1, 1000));
    let [Out::Goodbye(goodbye)] = &bench.all()[..] else {
        panic!("goodbye is due")
    };
    assert_eq!(goodbye.reason(), v1::GoodbyeReason::Stopping);
    assert_eq!(bench.closed(), &Closed::Stopped);
}

#[test]
fn a_planned_leave_waits_a_second_for_acks_and_no_longer() {
    let mut bench = Bench::active();
    bench.record(v1::Lane::Results, 10);
    bench.handle(Event::Stop);
    bench.all();
    assert_eq!(bench.session.deadline(false), Some(bench.now.instant + FLUSH));
    bench.pass(FLUSH);
    assert!(matches!(&bench.all()[..], [Out::Goodbye(_)]));
    assert!(!bench.lanes.lane(v1::Lane::Results).is_empty());
}

#[test]
fn a_leave_before_welcome_is_immediate() {
    let mut bench = Bench::new();
    bench.next();
    bench.handle(Event::Stop);
    assert_eq!(bench.closed(), &Closed::Stopped);
}
