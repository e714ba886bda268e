//! Renewal in time, within the grace, and when only an operator can let an agent in.

use muster_tests::poll::{self, SECOND};
use serde_json::json;

use super::{controller, event, identity, listed, stopped, wait_for_end, wait_for_log};

#[test]
fn an_agent_renews_by_itself_with_another_key_and_its_status_says_so() {
    let controller = controller("1h");
    let agent = controller.agent("web-01").start();
    controller.wait_for_agent("web-01", "ONLINE");
    let first = identity(&agent);
    let status = poll::until("it has renewed", 30 * SECOND, || {
        let status = agent.status()?;
        match status["certificate"]["renewals"].as_u64() {
            Some(1..) => Ok(status),
            _ => Err(status.to_string()),
        }
    });
    let second = identity(&agent);
    assert_ne!(first.serial(), second.serial());
    assert_ne!(first.key().public_key().der(), second.key().public_key().der());
    assert_eq!(status["certificate"]["behindSince"].as_str().unwrap_or_default(), "");
    poll::until("people are shown the certificate", 20 * SECOND, || {
        let shown = agent.verb(&["status"]);
        let serial = identity(&agent).serial().to_owned();
        match shown.stdout.contains(&format!("certificate {serial}")) {
            true => Ok(()),
            false => Err(shown.to_string()),
        }
    });
    // Its operator sees the same, and never saw it leave.
    poll::until("the first one is superseded", 10 * SECOND, || {
        let list = listed(&controller, "web-01");
        let superseded = (first.serial().to_owned(), "CERTIFICATE_STATUS_SUPERSEDED".to_owned());
        match list.contains(&superseded) {
            true => Ok(()),
            false => Err(format!("{list:?}")),
        }
    });
    controller.ctl().agent_is("web-01", "ONLINE").expect("online");
    assert_eq!(controller.ctl().events("AGENT_OFFLINE").expect("events").len(), 0);
}

#[test]
fn an_agent_that_was_away_past_its_end_comes_back_by_itself_within_the_grace() {
    let controller = controller("1h");
    let mut agent = stopped(&controller, "laptop");
    let before = identity(&agent);
    wait_for_end(&before, 0);
    let expired = vec![(before.serial().to_owned(), "CERTIFICATE_STATUS_EXPIRED".to_owned())];
    assert_eq!(listed(&controller, "laptop"), expired);

    agent.run();
    controller.wait_for_agent("laptop", "ONLINE");
    assert_ne!(identity(&agent).serial(), before.serial());
    let event = event(&controller, "AGENT_RENEWED_IN_GRACE");
    assert_eq!(event["agentName"], "laptop", "{event}");
    assert_eq!(event["metadata"]["serial"], before.serial(), "{event}");
}

#[test]
fn beyond_the_grace_an_agent_waits_for_an_operator_who_lets_it_in_once() {
    let controller = controller("1s");
    let mut agent = stopped(&controller, "laptop");
    wait_for_end(&identity(&agent), 2);
    agent.run();
    wait_for_log(&agent, "CERTIFICATE_EXPIRED", 1);
    controller
        .ctl()
        .agent_is("laptop", "OFFLINE")
        .expect("it is not let in");

    // Nobody touches the machine, and nothing is started anew.
    let opened = controller.ctl().json(&["agent", "readmit", "laptop"]);
    assert!(opened["readmitUntil"].is_string(), "{opened}");
    controller.wait_for_agent("laptop", "ONLINE");
    let readmitted = event(&controller, "AGENT_READMITTED");
    assert_eq!(readmitted["agentName"], "laptop", "{readmitted}");
    assert_eq!(event(&controller, "AGENT_READMIT_OPENED")["metadata"]["by"], "tester");
    let agent_now = controller.ctl().json(&["agent", "get", "laptop"]);
    assert_eq!(
        agent_now["readmitUntil"],
        json!(null),
        "the window is used up: {agent_now}"
    );
    assert_eq!(controller.ctl().events("AGENT_READMITTED").expect("events").len(), 1);
}
