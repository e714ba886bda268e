//! Records that come long after they were made, or from a clock that is ahead: kept at their own time, marked, and never in the
//! place of what is newer.

use muster_proto::v1::{self, connect_request::Frame, connect_response, record::Body};
use muster_server::clock::{self, HOUR};
use muster_tests::{
    Controller,
    link::Link,
    poll::{self, SECOND},
};
use serde_json::Value;

pub fn result(at: i64, output: &str) -> v1::Record {
    v1::Record {
        time_unix_micros: at,
        body: Some(Body::CheckResult(v1::CheckResult {
            check: "load".into(),
            state: v1::CheckState::Ok.into(),
            output: output.into(),
            ..v1::CheckResult::default()
        })),
    }
}

/// Sends a record and waits until it is stored.
pub fn store(link: &mut Link, spool: &str, seq: u64, record: v1::Record) {
    link.send(Frame::Records(v1::Records {
        lane: v1::Lane::Results.into(),
        spool_id: spool.into(),
        first_seq: seq,
        records: vec![record],
        ..v1::Records::default()
    }))
    .expect("the record is sent");
    loop {
        match link.receive().expect("a frame") {
            connect_response::Frame::Ack(ack) if ack.spool_id == spool && ack.through_seq == seq => {
                assert!(ack.rejected.is_empty(), "{ack:?}");
                return;
            }
            _ => {}
        }
    }
}

fn seconds(time: &Value) -> &str {
    &time.as_str().expect("a time")[..19]
}

fn text(time: i64) -> String {
    clock::to_text(time)[..19].to_owned()
}

#[test]
fn a_record_of_an_outage_is_marked_and_takes_the_place_of_nothing_newer() {
    let controller = Controller::start();
    controller.apply(
        "apiVersion: muster/v1\nkind: Check\nmetadata: { name: load }\nspec:\n  selector: \"*\"\n  \
         schedule: { interval: 1h }\n  run: { load: { warning: \"1000\" } }\n",
    );
    let setup = controller.agent("host");
    setup.enroll().expect_code(0);
    let id = std::fs::read_to_string(setup.path("agent-id")).expect("an id");
    let mut link = Link::connect(&controller, &setup).expect("a link");
    link.send(Frame::Hello(v1::Hello {
        agent_id: id.trim().to_owned(),
        agent_version: "1".into(),
        protocol_version: 1,
        ..v1::Hello::default()
    }))
    .expect("Hello is sent");
    let state = || controller.ctl().state("host", "load").expect("a state");

    let start = clock::now();
    store(&mut link, "2-b", 1, result(start - HOUR, "of the outage"));
    let late = state();
    assert_eq!(late["arrival"], "ARRIVAL_LATE", "{late}");
    assert_eq!(seconds(&late["lastRun"]), text(start - HOUR), "{late}");
    assert!(seconds(&late["receiveTime"]) >= text(start).as_str(), "{late}");
    let table = controller.ctl().ok(&["state", "list"]).stdout;
    assert!(table.contains("came late"), "{table}");

    store(&mut link, "2-b", 2, result(clock::now(), "live"));
    let live = state();
    assert_eq!(
        (&live["arrival"], &live["output"]),
        (&"ARRIVAL_ON_TIME".into(), &"live".into())
    );
    // What an earlier start has left comes last.
    store(&mut link, "1-a", 1, result(start - 2 * HOUR, "left over"));
    assert_eq!(state()["output"], "live");

    let event = v1::AgentEvent {
        reason: "FROM_THE_FUTURE".into(),
        severity: v1::EventSeverity::Info.into(),
        message: "a clock is wrong".into(),
        ..v1::AgentEvent::default()
    };
    let record = v1::Record {
        time_unix_micros: start + HOUR,
        body: Some(Body::Event(event)),
    };
    store(&mut link, "2-b", 3, record);
    let events = poll::until("the event is there", 20 * SECOND, || {
        let events = controller.ctl().events("FROM_THE_FUTURE")?;
        match events.is_empty() {
            true => Err("none".to_owned()),
            false => Ok(events),
        }
    });
    assert_eq!(events[0]["arrival"], "ARRIVAL_AHEAD", "{events:?}");
    assert_eq!(seconds(&events[0]["time"]), text(start + HOUR), "{events:?}");
}
