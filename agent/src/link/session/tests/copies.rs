//! What a session does when there may be two of this agent, or when its state directory is older than it.

use super::*;

fn heartbeat(time: i64, answer_now: bool) -> In {
    In::Heartbeat(v1::ControllerHeartbeat {
        time_unix_micros: time,
        answer_now,
    })
}

#[test]
fn a_heartbeat_that_wants_an_answer_gets_it_at_once_and_says_what_it_answers() {
    let mut bench = Bench::active();
    bench.receive(heartbeat(41, false));
    assert_eq!(bench.all(), [], "others wait for their time");
    bench.receive(heartbeat(42, true));
    match &bench.all()[..] {
        [Out::Heartbeat(answer)] => assert_eq!(answer.echo_unix_micros, 42),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.all(), [], "and one is enough");
}

#[test]
fn the_answer_overtakes_the_records_that_wait() {
    let mut bench = Bench::active();
    bench.record(v1::Lane::Results, 100);
    bench.receive(heartbeat(42, true));
    assert!(matches!(bench.next(), Some(Out::Heartbeat(_))));
}

#[test]
fn a_spool_that_is_not_above_what_the_controller_knows_is_left() {
    let greet = |highest_generation| {
        let mut bench = Bench::new();
        bench.next();
        bench.receive(In::Welcome(v1::Welcome {
            highest_generation,
            ..welcome()
        }))
    };
    let starts = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::StartSpool { above } => Some(*above),
            _ => None,
        })
    };
    // The spool of the bench is of generation 1.
    assert_eq!(starts(&greet(0)), None, "the controller knows nothing");
    assert_eq!(starts(&greet(1)), Some(1), "another spool of the same generation");
    assert_eq!(starts(&greet(9)), Some(9));
    assert_eq!(starts(&greet(-1)), None);
}

#[test]
fn a_spool_that_is_not_above_those_before_it_is_left_too() {
    // As after a start at which no generation could be written, so that the clock was the one of its spool.
    let mut bench = Bench::new();
    bench.lanes = Lanes::in_memory("1800000000-a", Limits::default());
    bench.record(v1::Lane::Results, 10);
    bench.lanes.start_spool("7-b");
    bench.next();
    let effects = bench.receive(In::Welcome(welcome()));
    assert!(
        effects.contains(&Effect::StartSpool { above: 1_800_000_000 }),
        "{effects:?}"
    );
}

#[test]
fn what_waits_goes_out_under_the_spool_it_was_recorded_in() {
    let mut bench = Bench::new();
    bench.record(v1::Lane::Results, 10);
    bench.record(v1::Lane::Results, 10);
    bench.next();
    bench.receive(In::Welcome(v1::Welcome {
        highest_generation: 9,
        ..welcome()
    }));
    bench.lanes.start_spool("10-b");
    bench.record(v1::Lane::Results, 10);
    match &bench.all()[..] {
        [Out::Records(new), Out::Records(old)] => {
            assert_eq!(
                (new.spool_id.as_str(), new.first_seq, new.records.len()),
                ("10-b", 1, 1)
            );
            assert_eq!((old.spool_id.as_str(), old.first_seq, old.records.len()), ("1-a", 1, 2));
        }
        other => panic!("{other:?}"),
    }
}
