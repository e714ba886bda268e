//! Which frame answers a probe.

use super::{
    Arc, Effect, Event, PolicySet, active, admitted, connect_request, connect_response, frame, heartbeat, hello,
    records, sent, session, v1,
};

fn answered(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Answered))
}

#[test]
fn only_a_heartbeat_that_came_after_the_probe_answers_it() {
    let mut session = session();
    let hello = v1::Hello {
        capabilities: vec!["answer-now".into()],
        ..hello()
    };
    session.handle(frame(connect_request::Frame::Hello(hello)), 0);
    session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    let effects = session.handle(Event::Probe, 100);
    assert!(
        matches!(sent(&effects)[..], [connect_response::Frame::Heartbeat(asks)] if asks.answer_now && asks.time_unix_micros == 100)
    );
    // Those were on their way when it was asked.
    assert!(!answered(&session.handle(heartbeat(0), 101)));
    assert!(!answered(&session.handle(frame(records(1, 1)), 102)));
    assert!(answered(&session.handle(heartbeat(100), 103)));
    assert!(!answered(&session.handle(heartbeat(100), 104)), "once");
}

#[test]
fn of_an_agent_that_cannot_answer_at_once_any_word_after_the_probe_will_do() {
    let mut session = active();
    assert!(!answered(&session.handle(frame(records(1, 1)), 99)), "nobody asked");
    let effects = session.handle(Event::Probe, 100);
    assert!(matches!(sent(&effects)[..], [connect_response::Frame::Heartbeat(asks)] if !asks.answer_now));
    assert!(answered(&session.handle(frame(records(2, 1)), 101)));
}

#[test]
fn a_session_that_is_not_welcomed_yet_is_not_probed() {
    let mut session = session();
    assert!(session.handle(Event::Probe, 1).is_empty());
    session.handle(frame(connect_request::Frame::Hello(hello())), 2);
    assert!(session.handle(Event::Probe, 3).is_empty());
}
