//! A link ends with the certificate that it was made with.

use super::{Arc, PolicySet, connect_request};
use super::{Close, Config, Event, HEARTBEAT, OnClone, Session, active, admitted, agent, closes, frame, hello, share};

const EXPIRES: i64 = HEARTBEAT / 2;

fn session() -> Session {
    let config = Config {
        heartbeat: HEARTBEAT,
        controller_name: "c1".into(),
        on_clone: OnClone::Refuse,
    };
    Session::new(agent(), config, EXPIRES, share(), 0)
}

#[test]
fn a_link_ends_when_its_certificate_has_expired_and_not_before() {
    let mut session = session();
    session.handle(frame(connect_request::Frame::Hello(hello())), 0);
    session.handle(admitted(&Arc::new(PolicySet::default())), 0);
    assert_eq!(closes(&session.handle(Event::Tick, EXPIRES - 1)), None);
    assert_eq!(closes(&session.handle(Event::Tick, EXPIRES)), Some(&Close::Expired));
    assert!(session.handle(Event::Tick, EXPIRES + 1).is_empty(), "once");
}

#[test]
fn so_does_one_that_was_not_let_in_yet() {
    let mut session = session();
    session.handle(frame(connect_request::Frame::Hello(hello())), 0);
    assert_eq!(closes(&session.handle(Event::Tick, EXPIRES)), Some(&Close::Expired));
}

#[test]
fn silence_of_a_link_is_told_as_silence_whatever_the_certificate() {
    let mut session = session();
    let silent = session.handle(Event::Tick, 4 * HEARTBEAT);
    assert_eq!(closes(&silent), Some(&Close::Silent));
    assert_eq!(
        closes(&active().handle(Event::Tick, HEARTBEAT)),
        None,
        "of one that is good"
    );
}
