//! What operators see of links: of each, what its agent said last, and all of them together.

use muster_proto::v1::{self, connect_request::Frame, connect_response};
use muster_tests::{
    Controller,
    link::Link,
    poll::{self, SECOND},
};

use super::arrival::{result, store};

fn depth(lane: v1::Lane, records: u64, dropped: u64, oldest_age_micros: i64) -> v1::LaneDepth {
    v1::LaneDepth {
        lane: lane.into(),
        records,
        bytes: 100 * records,
        dropped,
        oldest_age_micros,
        acknowledged: 0,
    }
}

/// A metric of this name with these labels.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

#[test]
fn what_waits_at_an_agent_is_seen_of_it_and_of_all_together() {
    let controller = Controller::start();
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
    let welcome = match link.receive().expect("a frame") {
        connect_response::Frame::Welcome(welcome) => welcome,
        other => panic!("{other:?}"),
    };
    link.send(Frame::Heartbeat(v1::Heartbeat {
        echo_unix_micros: welcome.time_unix_micros,
        echo_age_micros: 0,
        time_unix_micros: welcome.time_unix_micros + 3_600_000_000,
        lanes: vec![
            depth(v1::Lane::Results, 7, 0, 2_000_000),
            depth(v1::Lane::Metrics, 1_200, 30, 90_000_000),
        ],
    }))
    .expect("the heartbeat is sent");
    // What came before it has arrived when this is stored.
    store(&mut link, "1-a", 1, result(welcome.time_unix_micros, "fine"));

    let agent = poll::until("the heartbeat is seen", 20 * SECOND, || {
        let agent = controller.ctl().agent_is("host", "ONLINE")?;
        match agent["connection"]["lanes"].is_array() {
            true => Ok(agent),
            false => Err(agent.to_string()),
        }
    });
    let connection = &agent["connection"];
    assert_eq!(connection["controller"], "controller1", "{agent}");
    assert!(connection["roundTripMicros"].is_string(), "{agent}");
    let skew: i64 = connection["clockSkewMicros"]
        .as_str()
        .expect("a skew")
        .parse()
        .expect("a number");
    assert!((3_500_000_000..=3_600_000_000).contains(&skew), "{agent}");
    assert_eq!(connection["lanes"][1]["dropped"], "30", "{agent}");

    let page = controller.ctl().ok(&["agent", "get", "host"]).stdout;
    for text in ["controller1", "ahead of the controller", "1,200", "1m30s"] {
        assert!(page.contains(text), "{text} is missing:\n{page}");
    }
    let table = controller.ctl().ok(&["agent", "list", "-o", "wide"]).stdout;
    assert!(table.contains("1,207, 1m30s, 30 dropped"), "{table}");

    let metrics = controller.metrics();
    for (name, value) in [
        ("muster_controller_links", 1.0),
        ("muster_controller_link_states{state=\"active\"}", 1.0),
        ("muster_controller_link_states{state=\"leaving\"}", 0.0),
        ("muster_controller_links_stalled", 0.0),
        ("muster_controller_agent_queue_records{lane=\"results\"}", 7.0),
        ("muster_controller_agent_queue_bytes{lane=\"metrics\"}", 120_000.0),
        ("muster_controller_agent_queue_dropped{lane=\"metrics\"}", 30.0),
        ("muster_controller_agent_queue_oldest_age_seconds", 90.0),
        ("muster_controller_draining", 0.0),
        ("muster_controller_active", 1.0),
    ] {
        assert_eq!(metric(&metrics, name), value, "{name}");
    }

    controller.ctl().ok(&["controller", "drain", "--within", "0s"]);
    poll::until("the link is gone, and why", 20 * SECOND, || {
        let metrics = controller.metrics();
        let ended = metrics.contains("muster_controller_links_ended_total{reason=\"drained\"} 1");
        let draining = metric(&metrics, "muster_controller_draining");
        if ended && draining == 1.0 { Ok(()) } else { Err(metrics) }
    });
}
