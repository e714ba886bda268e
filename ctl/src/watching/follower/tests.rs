//! What a watch shows and does, event by event.

use muster_proto::{
    error::{ErrorReason, Problem},
    v1::{Agent, WatchAgentsResponse},
};

use super::*;

fn put(id: &str, revision: i64) -> WatchAgentsResponse {
    let agent = Agent {
        id: id.to_owned(),
        name: id.to_owned(),
        revision,
        version: "0.1.0".to_owned(),
        ..Default::default()
    };
    Event::new(WatchEventType::Put, Some(agent), revision)
}

fn delete(id: &str, revision: i64) -> WatchAgentsResponse {
    let agent = Agent {
        id: id.to_owned(),
        name: id.to_owned(),
        ..Default::default()
    };
    Event::new(WatchEventType::Delete, Some(agent), revision)
}

fn synced(revision: i64) -> WatchAgentsResponse {
    Event::new(WatchEventType::Synced, None, revision)
}

fn gone() -> Status {
    Problem::new(Code::OutOfRange, ErrorReason::RevisionGone, "that was long ago").into()
}

/// A follower that has listed a and b.
fn following() -> Follower<WatchAgentsResponse> {
    let mut follower = Follower::default();
    for event in [put("a", 1), put("b", 2), synced(5)] {
        assert_eq!(follower.take(event.clone()), [event]);
    }
    follower
}

const MOMENT: Duration = Duration::from_secs(1);

#[test]
fn a_cut_is_resumed_from_the_last_revision() {
    let mut follower = following();
    assert_eq!(follower.resume_from(), 5);
    follower.take(put("a", 9));
    follower.take(delete("b", 11));
    let ended = follower.end(Some(&Status::unavailable("cut")), MOMENT, 1.0);
    assert_eq!(
        ended,
        Ended::Resume {
            after: Duration::from_secs(1),
            first: true
        }
    );
    assert_eq!(follower.resume_from(), 11);
}

#[test]
fn what_is_gone_is_named_as_it_was_and_only_if_it_was_shown() {
    let mut follower = following();
    let nameless = |id: &str| {
        let agent = Agent {
            id: id.to_owned(),
            ..Default::default()
        };
        WatchAgentsResponse::new(WatchEventType::Delete, Some(agent), 9)
    };
    assert_eq!(follower.take(nameless("b")), [delete("b", 9)]);
    assert_eq!(follower.take(nameless("b")), []);
    assert_eq!(follower.take(nameless("unknown")), []);
    assert_eq!(follower.resume_from(), 9);
}

#[test]
fn a_cut_during_the_listing_starts_it_again() {
    let mut follower = Follower::<WatchAgentsResponse>::default();
    follower.take(put("a", 7));
    follower.end(None, MOMENT, 0.5);
    assert_eq!(follower.resume_from(), 0, "what came after a is not known");
    assert_eq!(follower.take(put("a", 7)), [], "and a has been shown");
}

#[test]
fn after_a_gap_only_what_changed_is_shown_and_what_vanished_is_deleted() {
    let mut follower = following();
    assert_eq!(follower.end(Some(&gone()), MOMENT, 0.5), Ended::Relist);
    assert_eq!(follower.resume_from(), 0);
    assert_eq!(follower.take(put("a", 1)), [], "unchanged");
    assert_eq!(follower.take(put("c", 40)), [put("c", 40)]);
    let news = follower.take(synced(50));
    assert_eq!(news, [delete("b", 50), synced(50)]);
    assert_eq!(follower.resume_from(), 50);
}

#[test]
fn a_revision_that_is_gone_at_once_again_is_not_asked_for_in_a_tight_loop() {
    let mut follower = following();
    assert_eq!(follower.end(Some(&gone()), MOMENT, 1.0), Ended::Relist);
    assert!(matches!(
        follower.end(Some(&gone()), MOMENT, 1.0),
        Ended::Resume { after: MOMENT, .. }
    ));
}

#[test]
fn pauses_double_up_to_their_limit_and_start_over_after_a_stable_time() {
    let mut follower = following();
    let cut = Status::unavailable("cut");
    let pause = |follower: &mut Follower<_>, lasted, jitter| match follower.end(Some(&cut), lasted, jitter) {
        Ended::Resume { after, .. } => after.as_millis(),
        other => panic!("{other:?}"),
    };
    let pauses: Vec<_> = (0..7).map(|_| pause(&mut follower, MOMENT, 1.0)).collect();
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    assert_eq!(
        pause(&mut follower, MOMENT, 0.1),
        3_000,
        "any part of it may be taken off"
    );
    assert_eq!(pause(&mut follower, STABLE, 1.0), 1_000);
}

#[test]
fn a_cut_is_told_of_once_until_it_is_over() {
    let mut follower = following();
    let cut = Status::unavailable("cut");
    let mut told = || matches!(follower.end(Some(&cut), MOMENT, 1.0), Ended::Resume { first: true, .. });
    assert!(told());
    assert!(!told());
    assert!(follower.opened());
    assert!(!follower.opened());
    assert!(matches!(
        follower.end(None, MOMENT, 1.0),
        Ended::Resume { first: true, .. }
    ));
}

#[test]
fn what_will_not_get_better_ends_the_watch() {
    for status in [
        Status::permission_denied("no"),
        Status::not_found("no"),
        Status::invalid_argument("no"),
    ] {
        assert_eq!(following().end(Some(&status), MOMENT, 1.0), Ended::Refused);
    }
    let mut never = Follower::<WatchAgentsResponse>::default();
    assert_eq!(
        never.end(Some(&Status::unavailable("away")), MOMENT, 1.0),
        Ended::Refused,
        "the first try is not repeated"
    );
}

#[test]
fn a_kind_of_event_of_a_later_release_is_passed_over() {
    let event = WatchAgentsResponse {
        r#type: 77,
        agent: Some(Agent::default()),
        revision: 9,
    };
    assert_eq!(following().take(event), []);
}

#[test]
fn other_rights_are_another_list() {
    let changed: Status = Problem::new(Code::Unavailable, ErrorReason::RightsChanged, "call again").into();
    for mut follower in [following(), Follower::default()] {
        let ended = follower.end(Some(&changed), MOMENT, 0.0);
        assert!(matches!(ended, Ended::Resume { .. }), "{ended:?}");
        assert_eq!(follower.resume_from(), 0);
    }
    let mut follower = following();
    follower.end(Some(&changed), MOMENT, 0.0);
    let shown: Vec<_> = [put("b", 2), put("c", 1), synced(20)]
        .into_iter()
        .flat_map(|event| follower.take(event))
        .map(|event| (event.kind(), event.item().map(|agent| agent.id.clone())))
        .collect();
    let agent = |id: &str| Some(id.to_owned());
    assert_eq!(
        shown,
        [
            (WatchEventType::Put, agent("c")),
            (WatchEventType::Delete, agent("a")),
            (WatchEventType::Synced, None)
        ],
        "what has come into sight and what has gone out of it"
    );
}
