//! Windows and acknowledgements of one link.

use super::*;
use crate::ingest::{Limits, Quotas};

const MIB: usize = 1 << 20;

fn limited(limits: Limits) -> Session {
    let config = Config {
        heartbeat: HEARTBEAT,
        controller_name: "c1".into(),
        on_clone: OnClone::Refuse,
    };
    let share = Quotas::new(limits).share(agent(), 1, 0);
    let mut session = Session::new(agent(), config, i64::MAX, share, 0);
    session.handle(frame(connect_request::Frame::Hello(hello())), 0);
    session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    session
}

fn of_size(first_seq: u64, bytes: usize) -> connect_request::Frame {
    let record = v1::Record {
        time_unix_micros: 1,
        body: Some(v1::record::Body::CheckResult(v1::CheckResult {
            output: "x".repeat(bytes),
            ..Default::default()
        })),
    };
    connect_request::Frame::Records(v1::Records {
        lane: Lane::Results as i32,
        spool_id: "1-abc".into(),
        first_seq,
        records: vec![record],
        resends: 0,
    })
}

/// Sends it; what it takes of the window, and its place in the budget.
fn send(session: &mut Session, said: connect_request::Frame, now: i64) -> (u64, crate::ingest::Held) {
    let effects = session.handle(frame(said), now);
    let ingest = effects.into_iter().find_map(|effect| match effect {
        Effect::Ingest(frame) => Some((frame.bytes, frame.held)),
        _ => None,
    });
    ingest.expect("it is taken")
}

fn commit(session: &mut Session, bytes: u64, through_seq: u64, now: i64) -> Vec<Effect> {
    let done = Done {
        through_seq,
        rejected: Vec::new(),
    };
    let spool: SpoolId = "1-abc".parse().expect("a spool");
    let lane = Lane::Results;
    session.handle(
        Event::Committed {
            lane,
            spool,
            bytes,
            done,
        },
        now,
    )
}

fn acks(effects: &[Effect]) -> Vec<(u64, u64)> {
    let ack = |frame: &&connect_response::Frame| match frame {
        connect_response::Frame::Ack(ack) => Some((ack.through_seq, ack.window_bytes)),
        _ => None,
    };
    sent(effects).iter().filter_map(ack).collect()
}

#[test]
fn a_window_grows_with_its_use_and_what_was_on_its_way_when_it_shrank_is_taken() {
    let mut session = limited(Limits::default());
    let mut window = 0;
    for seq in 1..=6 {
        let (bytes, _held) = send(&mut session, of_size(seq, 60_000.max(window / 2)), 1);
        let acked = acks(&commit(&mut session, bytes, seq, 1));
        window = usize::try_from(acked[0].1).expect("a window");
    }
    assert_eq!(window, MIB);
    // Two acknowledgements of hardly anything, and the agent has filled the large window before it heard of them.
    for seq in 7..=8 {
        let (bytes, _held) = send(&mut session, of_size(seq, 10), 1);
        window = usize::try_from(acks(&commit(&mut session, bytes, seq, 1))[0].1).expect("a window");
    }
    assert!(window < MIB, "{window}");
    let held: Vec<_> = (9..=18)
        .map(|seq| send(&mut session, of_size(seq, 100_000), 2))
        .collect();
    assert_eq!(held.len(), 10);
}

#[test]
fn a_lane_that_has_fallen_silent_gives_its_window_back_tick_by_tick() {
    let share = Quotas::new(Limits::default()).share(agent(), 1, 0);
    let config = Config {
        heartbeat: HEARTBEAT,
        controller_name: "c1".into(),
        on_clone: OnClone::Refuse,
    };
    let mut session = Session::new(agent(), config, i64::MAX, share, 0);
    let hello = v1::Hello {
        capabilities: vec!["resend".into()],
        ..hello()
    };
    session.handle(frame(connect_request::Frame::Hello(hello)), 0);
    session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    for seq in 1..=4 {
        let (bytes, _held) = send(&mut session, of_size(seq, 200_000), 1);
        commit(&mut session, bytes, seq, 1);
    }
    let windows: Vec<u64> = (2..10)
        .flat_map(|now| acks(&session.handle(heartbeat(0), now)))
        .map(|(_, window)| window)
        .collect();
    assert!(windows.len() > 2 && windows.is_sorted_by(|a, b| a > b), "{windows:?}");
    assert_eq!(windows.last(), Some(&(64 << 10)), "and then it is not told again");
}

#[test]
fn what_is_beyond_the_limits_is_stored_at_once_and_acknowledged_later() {
    let mut session = limited(Limits {
        agent_bytes_per_second: 10_000,
        ..Limits::default()
    });
    let start = 100 * SECOND;
    session.handle(heartbeat(0), start);
    let calm = session.deadline();
    let mut seq = 0;
    let mut next = |session: &mut Session, now| {
        seq += 1;
        let (bytes, _held) = send(session, of_size(seq, 49_000), now);
        commit(session, bytes, seq, now)
    };
    assert_eq!(acks(&next(&mut session, start)).len(), 1, "within the burst");
    assert_eq!(acks(&next(&mut session, start)).len(), 1);
    let late = next(&mut session, start);
    assert!(acks(&late).is_empty(), "{late:?}");
    assert!(
        late.iter()
            .any(|effect| matches!(effect, Effect::Throttled(Lane::Results)))
    );

    let due = session.deadline();
    assert!((4 * SECOND..6 * SECOND).contains(&(due - start)), "{}", due - start);
    assert!(acks(&session.handle(Event::Tick, due - 1)).is_empty());
    assert_eq!(acks(&session.handle(Event::Tick, due))[0].0, 3);
    assert_eq!(session.deadline(), calm);

    let again = next(&mut session, due);
    assert!(acks(&again).is_empty());
    assert!(
        !again.iter().any(|effect| matches!(effect, Effect::Throttled(_))),
        "once for an episode"
    );
    // Heartbeats are not behind it.
    let effects = session.handle(heartbeat(0), due);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Report(_))));
}

#[test]
fn a_clock_that_is_set_back_keeps_no_acknowledgement() {
    let mut session = limited(Limits {
        agent_records_per_second: 1,
        ..Limits::default()
    });
    let start = 100_000 * SECOND;
    for seq in 1..=12 {
        let (bytes, _held) = send(&mut session, of_size(seq, 10), start);
        commit(&mut session, bytes, seq, start);
    }
    let effects = session.handle(Event::Tick, start - 50_000 * SECOND);
    assert_eq!(acks(&effects).last().map(|ack| ack.0), Some(12));
}

#[test]
fn what_there_is_no_room_for_ends_the_link_and_is_sent_again() {
    let mut session = limited(Limits {
        bytes: 100_000,
        ..Limits::default()
    });
    let (_, _held) = send(&mut session, of_size(1, 90_000), 1);
    let mut other = session.handle(frame(of_size(2, 90_000)), 1);
    assert_eq!(
        closes(&other),
        Some(&Close::Protocol("more records than the window allows".into()))
    );

    let mut session = limited(Limits {
        bytes: 100_000,
        ..Limits::default()
    });
    let (_, _held) = send(&mut session, of_size(1, 10), 1);
    other = session.handle(frame(of_size(2, 99_990)), 1);
    assert_eq!(closes(&other), Some(&Close::Overloaded), "{other:?}");
}

#[test]
fn an_agent_cannot_fill_the_memory_before_it_is_let_in() {
    let mut session = session();
    session.handle(frame(connect_request::Frame::Hello(hello())), 0);
    assert_eq!(closes(&session.handle(frame(of_size(1, MIB - 100)), 0)), None);
    let effects = session.handle(frame(of_size(2, 200)), 0);
    assert!(matches!(closes(&effects), Some(Close::Protocol(_))), "{effects:?}");
}
