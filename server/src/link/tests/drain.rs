//! Sessions that shall leave.

use std::time::Duration;

use super::{super::draining::Telling, *};

fn telling(stops: bool) -> Event {
    Event::Drain(Telling {
        within: Duration::from_secs(5),
        endpoints: vec!["b.example.com:8443".into()],
        stops,
    })
}

fn capable() -> Session {
    let mut session = session();
    let hello = v1::Hello {
        capabilities: vec!["drain".into()],
        ..hello()
    };
    session.handle(frame(connect_request::Frame::Hello(hello)), 0);
    session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    session
}

#[test]
fn an_agent_that_can_leave_is_told_to_and_served_until_it_does() {
    let mut session = capable();
    let effects = session.handle(telling(false), 1);
    let [connect_response::Frame::Drain(drain)] = sent(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(drain.within_micros, 5 * SECOND);
    assert_eq!(drain.endpoints, ["b.example.com:8443"]);
    assert!(!drain.reason.is_empty());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Leaving)));

    let effects = session.handle(frame(records(1, 3)), 2);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Ingest(_))));
    let goodbye = v1::Goodbye {
        reason: v1::GoodbyeReason::Drained.into(),
    };
    let effects = session.handle(frame(connect_request::Frame::Goodbye(goodbye)), 3);
    let close = closes(&effects).expect("an end");
    assert_eq!((close, close.status_reason()), (&Close::Left, "drained"));
}

#[test]
fn one_that_cannot_be_told_or_does_not_go_is_shown_out() {
    let mut before = session();
    assert_eq!(closes(&before.handle(telling(false), 1)), Some(&Close::Draining));
    assert_eq!(closes(&active().handle(telling(false), 1)), Some(&Close::Draining));
    assert_eq!(closes(&active().handle(telling(true), 1)), Some(&Close::ShuttingDown));

    let mut session = capable();
    session.handle(telling(false), 1);
    let effects = session.handle(Event::Overstayed { stops: false }, 20 * SECOND);
    assert_eq!(closes(&effects), Some(&Close::Draining));
}
