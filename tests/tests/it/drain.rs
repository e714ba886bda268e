//! Agents that are sent away: told one by one, never offline by that, and back when there is nowhere else.

use muster_proto::v1::{self, connect_request::Frame, connect_response};
use muster_tests::{
    Controller,
    agent::Setup,
    link::Link,
    peer,
    poll::{self, SECOND},
};
use serde_json::Value;

/// A link in the hand of the test, of an agent that can be told to leave.
fn link(controller: &Controller, setup: &Setup) -> Link {
    let id = std::fs::read_to_string(setup.path("agent-id")).expect("an id");
    let mut link = Link::connect(controller, setup).expect("a link");
    link.send(Frame::Hello(v1::Hello {
        agent_id: id.trim().to_owned(),
        agent_version: "1".into(),
        protocol_version: 1,
        capabilities: vec!["drain".into()],
        ..v1::Hello::default()
    }))
    .expect("Hello is sent");
    let first = link.receive().expect("a frame");
    assert!(matches!(first, connect_response::Frame::Welcome(_)), "{first:?}");
    link
}

fn told(link: &mut Link) -> v1::Drain {
    loop {
        if let connect_response::Frame::Drain(drain) = link.receive().expect("a frame") {
            return drain;
        }
    }
}

fn leave(mut link: Link) {
    let reason = v1::GoodbyeReason::Drained.into();
    link.send(Frame::Goodbye(v1::Goodbye { reason }))
        .expect("the goodbye is sent");
    poll::until("the link ends", 20 * SECOND, || match link.receive() {
        Ok(frame) => Err(format!("{frame:?}")),
        Err(_) => Ok(()),
    });
}

/// Changes of status that were told since the start, newest first, once they say of each agent what it is.
pub fn transitions(controller: &Controller) -> Vec<Value> {
    poll::until("what is told is what is shown", 20 * SECOND, || {
        let reasons = ["AGENT_ONLINE", "AGENT_LATE", "AGENT_OFFLINE"];
        let arguments = ["event", "list", "--limit", "10000"].into_iter();
        let arguments: Vec<&str> = arguments
            .chain(reasons.iter().flat_map(|reason| ["--reason", reason]))
            .collect();
        let events = controller.ctl().items(&arguments)?;
        for agent in controller.ctl().items(&["agent", "list"])? {
            let told = events.iter().find(|event| event["agentId"] == agent["id"]);
            let told = told
                .and_then(|event| event["reason"].as_str())
                .unwrap_or("AGENT_PENDING");
            if agent["status"].as_str() != Some(&told.replace("AGENT_", "AGENT_STATUS_")) {
                return Err(format!("{told} was told of {agent}"));
            }
        }
        Ok(events)
    })
}

#[test]
fn a_drain_sends_links_away_and_takes_none_until_it_is_cancelled() {
    let controller = Controller::start_with("link: { heartbeat: 2s }");
    let setup = controller.agent("host");
    setup.enroll().expect_code(0);
    let mut first = link(&controller, &setup);
    controller.wait_for_agent("host", "ONLINE");

    let shown = controller
        .ctl()
        .json(&["controller", "drain", "--within", "0s", "--to", "b.example.com:8443"]);
    assert_eq!(shown["status"], "CONTROLLER_STATUS_DRAINING", "{shown}");
    assert_eq!(shown["drain"]["by"], "tester", "{shown}");
    let drain = told(&mut first);
    assert_eq!(drain.endpoints, ["b.example.com:8443"]);
    assert!(drain.within_micros > 0 && !drain.reason.is_empty(), "{drain:?}");
    let shown = controller.ctl().json(&["controller", "get"]);
    assert_eq!(
        (&shown["links"], &shown["linksLeaving"]),
        (&1.into(), &1.into()),
        "{shown}"
    );

    leave(first);
    poll::until("it is gone", 20 * SECOND, || {
        let shown = controller.ctl().json(&["controller", "get"]);
        if shown["links"].is_null() {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
    controller
        .ctl()
        .agent_is("host", "ONLINE")
        .expect("it has moved, and is not away");
    let refusal = Link::connect(&controller, &setup).expect_err("no link is taken");
    assert!(refusal.contains("takes no links"), "{refusal}");
    // An agent that is linked elsewhere asks before it comes back, and its certificate is renewed meanwhile.
    let identity = peer::load(&setup.path("state/identity.pem"));
    let is_draining = || {
        peer::use_certificate(&controller, &identity)
            .expect("an answer")
            .draining
    };
    assert!(is_draining());
    peer::renew(&controller, &identity).expect("a certificate");

    // It did not come up anywhere: the usual times, and why.
    for status in ["LATE", "OFFLINE"] {
        let agent = controller.wait_for_agent("host", status);
        assert_eq!(agent["statusReason"], "drained", "{agent}");
    }
    let shown = controller.ctl().json(&["controller", "drain", "--cancel"]);
    assert_eq!(shown["status"], "CONTROLLER_STATUS_ACTIVE", "{shown}");
    assert!(!is_draining());
    let _second = link(&controller, &setup);
    controller.wait_for_agent("host", "ONLINE");
    for reason in ["CONTROLLER_DRAINING", "CONTROLLER_DRAIN_CANCELLED"] {
        let events = controller.ctl().events(reason).expect("events");
        assert_eq!(events.len(), 1, "{events:?}");
    }
}

#[test]
fn a_controller_that_stops_tells_its_links_and_finds_nobody_offline_when_it_is_back() {
    let mut controller = Controller::start();
    let setup = controller.agent("host");
    setup.enroll().expect_code(0);
    let mut first = link(&controller, &setup);
    controller.wait_for_agent("host", "ONLINE");
    let before = transitions(&controller);

    let leaves = std::thread::spawn(move || {
        let drain = told(&mut first);
        leave(first);
        drain
    });
    controller.stop();
    let drain = leaves.join().expect("it was told");
    assert!(
        drain.endpoints.is_empty() && drain.within_micros <= 2_500_000,
        "{drain:?}"
    );

    controller.run();
    let agent = controller.ctl().agent_is("host", "ONLINE").expect("nobody is offline");
    assert_eq!(agent["statusUnconfirmed"], true, "{agent}");
    let _again = link(&controller, &setup);
    poll::until("it is confirmed", 20 * SECOND, || {
        let agent = controller.ctl().agent_is("host", "ONLINE")?;
        if agent["statusUnconfirmed"].is_null() {
            Ok(())
        } else {
            Err(agent.to_string())
        }
    });
    assert_eq!(transitions(&controller), before);
}

#[test]
fn a_controller_that_starts_again_with_its_whole_fleet_calls_nobody_away_and_tells_nothing() {
    let mut controller = Controller::start();
    let mut agents: Vec<_> = controller.fleet("host", 6).into_iter().map(Setup::start).collect();
    let all_confirmed = |controller: &Controller| {
        poll::until("all are online", 120 * SECOND, || {
            let agents = controller.ctl().items(&["agent", "list"])?;
            let is_there =
                |agent: &&Value| agent["status"] == "AGENT_STATUS_ONLINE" && agent["statusUnconfirmed"].is_null();
            match agents.iter().filter(is_there).count() {
                6 => Ok(()),
                _ => Err(format!("{agents:?}")),
            }
        });
    };
    all_confirmed(&controller);
    let before = transitions(&controller);
    assert_eq!(before.len(), 6, "each came once: {before:?}");
    for kill in [true, false] {
        if kill {
            controller.kill();
        } else {
            controller.stop();
        }
        controller.run();
        all_confirmed(&controller);
        assert_eq!(transitions(&controller), before, "killed: {kill}");
    }
    agents.iter_mut().for_each(muster_tests::Agent::stop);
}

#[test]
fn agents_that_know_no_other_controller_come_back_after_a_drain_and_lose_nothing() {
    let controller = Controller::start();
    super::counting::apply(&controller, "host");
    let mut agent = controller.agent("host").start();
    controller.wait_for_agent("host", "ONLINE");
    controller.ctl().ok(&["controller", "drain", "--within", "0s"]);
    let gone = |shown: &Value| shown["links"].is_null();
    poll::until("it is gone", 30 * SECOND, || {
        let shown = controller.ctl().json(&["controller", "get"]);
        if gone(&shown) { Ok(()) } else { Err(shown.to_string()) }
    });
    let runs = super::counting::runs(&controller, "host");
    poll::until("checks run meanwhile", 30 * SECOND, || {
        let now = super::counting::runs(&controller, "host");
        if now >= runs + 3 { Ok(()) } else { Err(now) }
    });
    controller.ctl().ok(&["controller", "drain", "--cancel"]);
    poll::until("all that waited is stored", 60 * SECOND, || {
        let status = agent.status()?;
        let waiting = super::counting::results(&status, "records");
        if status["connection"]["state"] == "connected" && waiting <= 1 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    agent.stop();
    let stored = super::counting::stored(&controller, &agent.id().expect("an id"));
    let expected: Vec<u64> = (1..=stored.len() as u64).collect();
    assert_eq!(stored, expected, "each is there once");
    assert!(stored.len() as u64 + 1 >= super::counting::runs(&controller, "host"));
}
