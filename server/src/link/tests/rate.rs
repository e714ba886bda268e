//! Frames that carry no records.

use super::*;
use crate::clock::HOUR;

fn flood(session: &mut Session, said: &connect_request::Frame, now: i64) -> usize {
    let is_taken = |_: &usize| closes(&session.handle(frame(said.clone()), now)).is_none();
    (0..2_000).take_while(is_taken).count()
}

fn empty() -> connect_request::Frame {
    connect_request::Frame::Records(v1::Records {
        lane: Lane::Results.into(),
        spool_id: "1-abc".into(),
        first_seq: 1,
        ..Default::default()
    })
}

#[test]
fn a_flood_of_them_ends_the_link() {
    let large = connect_request::Frame::PolicyStatus(v1::PolicyStatus {
        policy_set_digest: "x".repeat(1 << 20),
        ..Default::default()
    });
    let small = connect_request::Frame::Heartbeat(v1::Heartbeat::default());
    for (said, at_most) in [(small, 999), (empty(), 999), (large, 19)] {
        let mut session = active();
        let taken = flood(&mut session, &said, 0);
        assert!((at_most * 9 / 10..=at_most).contains(&taken), "{taken} of {at_most}");
        assert!(session.handle(heartbeat(0), 0).is_empty(), "it is closed");
    }
}

#[test]
fn whoever_keeps_the_rate_stays_whatever_the_clock_does() {
    let mut session = active();
    let mut now = HOUR;
    for _ in 0..10_000 {
        now += SECOND / 25;
        assert_eq!(closes(&session.handle(heartbeat(0), now)), None);
    }
    assert_eq!(closes(&session.handle(heartbeat(0), now - HOUR)), None);
    assert_eq!(closes(&session.handle(heartbeat(0), now - HOUR)), None);
}

#[test]
fn records_have_limits_of_their_own() {
    let mut session = active();
    for seq in 1..=1_500 {
        assert_eq!(closes(&session.handle(frame(records(seq, 1)), 0)), None, "{seq}");
    }
}
