//! What a session does when the disk has no room: windows, and what has to be sent again.

use super::*;
use crate::disk::Level;

fn active_with(capabilities: &[&str], room: Level) -> (Session, Vec<Effect>) {
    let mut session = session();
    session.handle(Event::Room(room), 0);
    let hello = v1::Hello {
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        ..hello()
    };
    session.handle(frame(connect_request::Frame::Hello(hello)), 0);
    let effects = session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    (session, effects)
}

fn records_of(lane: Lane, first_seq: u64, resends: u32) -> Event {
    let connect_request::Frame::Records(of_results) = records(first_seq, 1) else {
        unreachable!("these are records")
    };
    frame(connect_request::Frame::Records(v1::Records {
        lane: lane.into(),
        resends,
        ..of_results
    }))
}

fn is_taken(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Ingest(_)))
}

/// Lane, window, how often to send again; of those that acknowledge nothing.
fn told(effects: &[Effect]) -> Vec<(Lane, u64, u32)> {
    let acks = sent(effects).into_iter().filter_map(|frame| match frame {
        connect_response::Frame::Ack(ack) if ack.spool_id.is_empty() => {
            Some((ack.lane(), ack.window_bytes, ack.resends))
        }
        _ => None,
    });
    acks.collect()
}

#[test]
fn a_disk_that_is_low_closes_the_window_of_metrics_and_a_full_one_those_of_all() {
    for (room, expected) in [
        (Level::Ample, (true, true)),
        (Level::Low, (true, false)),
        (Level::Full, (false, false)),
    ] {
        let (_, effects) = active_with(&["resend"], room);
        let welcome = sent(&effects).into_iter().find_map(|frame| match frame {
            connect_response::Frame::Welcome(welcome) => Some(welcome.clone()),
            _ => None,
        });
        let windows = welcome.expect("a welcome").windows;
        assert_eq!(
            (windows[0].window_bytes > 0, windows[1].window_bytes > 0),
            expected,
            "{room:?}"
        );
    }
}

#[test]
fn what_is_on_its_way_when_the_disk_fills_is_dropped_and_taken_when_it_comes_again() {
    let (mut session, _) = active_with(&["resend"], Level::Ample);
    assert!(is_taken(&session.handle(records_of(Lane::Metrics, 1, 0), 1)));
    assert_eq!(
        told(&session.handle(Event::Room(Level::Low), 2)),
        [(Lane::Metrics, 0, 1), (Lane::Logs, 0, 1)]
    );
    let effects = session.handle(records_of(Lane::Metrics, 2, 0), 3);
    assert!(!is_taken(&effects) && closes(&effects).is_none(), "{effects:?}");
    assert!(
        is_taken(&session.handle(records_of(Lane::Results, 1, 0), 4)),
        "the other lane goes on"
    );

    let opened = told(&session.handle(Event::Room(Level::Ample), 5));
    let expected = |opened: &[_]| matches!(opened, [(Lane::Metrics, 1.., 1), (Lane::Logs, 1.., 1)]);
    assert!(expected(&opened), "{opened:?}");
    assert!(
        !is_taken(&session.handle(records_of(Lane::Metrics, 3, 0), 6)),
        "others come before"
    );
    assert!(is_taken(&session.handle(records_of(Lane::Metrics, 1, 1), 7)));
}

#[test]
fn records_that_found_no_room_are_asked_for_again_once_and_the_link_stays() {
    let (mut session, _) = active_with(&["resend"], Level::Ample);
    session.handle(records_of(Lane::Results, 1, 0), 1);
    session.handle(records_of(Lane::Results, 2, 0), 1);
    let not_taken = || Event::NotTaken {
        lane: Lane::Results,
        bytes: 40,
        resends: 0,
    };
    let first = told(&session.handle(not_taken(), 2));
    assert!(matches!(first[..], [(Lane::Results, 1.., 1)]), "{first:?}");
    let effects = session.handle(not_taken(), 2);
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn an_agent_that_cannot_send_again_connects_again() {
    let (mut session, _) = active_with(&[], Level::Ample);
    session.handle(records_of(Lane::Results, 1, 0), 1);
    let effects = session.handle(Event::Room(Level::Full), 2);
    assert_eq!(closes(&effects), Some(&Close::StoreFailed));

    let (mut session, _) = active_with(&[], Level::Full);
    let effects = session.handle(Event::Room(Level::Ample), 2);
    assert_eq!(
        closes(&effects),
        Some(&Close::StoreFailed),
        "it learns of its window by Welcome"
    );
}

#[test]
fn who_goes_on_sending_into_a_closed_window_is_cut() {
    let (mut session, _) = active_with(&["resend"], Level::Full);
    let effects = session.handle(records_of(Lane::Results, 1, 0), 1);
    assert!(matches!(closes(&effects), Some(Close::Protocol(_))), "{effects:?}");

    let (mut session, _) = active_with(&["resend"], Level::Ample);
    let effects = session.handle(records_of(Lane::Results, 1, 1), 1);
    assert!(
        matches!(closes(&effects), Some(Close::Protocol(_))),
        "nobody has asked for it again"
    );

    let (mut session, _) = active_with(&["resend"], Level::Ample);
    session.handle(Event::Room(Level::Full), 1);
    let large = v1::Record {
        time_unix_micros: 1,
        body: Some(v1::record::Body::CheckResult(v1::CheckResult {
            output: "x".repeat(7_500),
            ..Default::default()
        })),
    };
    let cut_after = (1..10).find(|first_seq| {
        let records = v1::Records {
            lane: Lane::Results.into(),
            spool_id: "1-abc".into(),
            first_seq: *first_seq,
            records: vec![large.clone()],
            resends: 0,
        };
        closes(&session.handle(frame(connect_request::Frame::Records(records)), 2)).is_some()
    });
    assert_eq!(cut_after, Some(5), "windows of them and one more");
}
