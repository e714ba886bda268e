//! Rotations of the controller's own CA.

use muster_tests::{
    Controller, ServerYaml,
    agent::Setup,
    peer::{self, Link, Peer},
    poll::{self, SECOND},
};
use rustix::process::Signal;

use super::{agents, ca, refused, status, step};

fn controller() -> Controller {
    let settings = ServerYaml::new().agent_certificates("20s").heartbeat("1s");
    Controller::start_with(&settings.to_string())
}

#[test]
fn old_tokens_absent_agents_and_operators_files_outlast_a_rotation() {
    let controller = controller();
    let first = ca(&status(&controller), "ACTIVE").expect("a CA");
    let token = controller.token(&["--uses", "5"]);
    let join = |name: &str| {
        let agent = Setup::new(name, token.clone()).start();
        controller.wait_for_agent(name, "ONLINE");
        agent
    };
    let _present = join("present");
    let mut absent = join("absent");
    absent.stop();

    step(&controller, &["prepare"]);
    let _prepared = join("joined-prepared");
    let pins = controller.ctl().json(&["token", "create", "--ttl", "1h"])["caPins"].clone();
    assert_eq!(pins.as_array().map(Vec::len), Some(2), "a new token knows both roots");
    // A second one has no place.
    refused(&controller, &["prepare"])
        .says(&["prepared already"])
        .explains();

    let after = step(&controller, &["activate"]);
    assert_eq!(ca(&after, "OLD").as_ref(), Some(&first));
    assert_ne!(ca(&after, "ACTIVE").as_ref(), Some(&first));
    // The pin of the old root is enough, for the old root speaks for the new one.
    let _activated = join("joined-activated");
    poll::until("whoever is there has renewed", 60 * SECOND, || {
        let status = status(&controller);
        match agents(&status, "ACTIVE") {
            3 => Ok(()),
            _ => Err(status.to_string()),
        }
    });

    // Who is away can still come back, and that is what the old CA stays for.
    let id = absent.id().expect("an id");
    refused(&controller, &["retire"]).says(&["absent", &id]).explains();
    absent.run();
    controller.wait_for_agent("absent", "ONLINE");
    let after = step(&controller, &["retire"]);
    assert_eq!(ca(&after, "RETIRED").as_ref(), Some(&first));
    assert_eq!((ca(&after, "OLD"), ca(&after, "PREPARED")), (None, None));

    let _retired = join("joined-retired");
    for name in ["present", "absent", "joined-prepared", "joined-activated"] {
        controller.wait_for_agent(name, "ONLINE");
    }
    for reason in ["CA_PREPARED", "CA_ACTIVATED", "CA_RETIRED"] {
        let events = controller.ctl().events(reason).expect("events");
        assert_eq!(events.len(), 1, "{reason}");
        assert!(
            events[0]["message"]
                .as_str()
                .is_some_and(|text| text.contains("tester")),
            "{events:?}"
        );
    }
    // All of this was done with the file of an operator that knows the first root alone.
}

#[test]
fn agents_that_cannot_follow_a_rotation_are_named_and_can_be_left_behind() {
    let controller = Controller::start();
    let enroll = |name: &str, arguments: &[&str]| {
        let machine = Peer::new(name);
        let answer = machine.enroll(&controller, &controller.token(arguments).secret);
        let answer = answer.expect("it enrolls");
        (answer.agent_id, machine.identity(answer.certificates))
    };
    // Neither ever says what it trusts, as agents did before there were trust bundles.
    let (lost, lost_identity) = enroll("lost", &[]);
    step(&controller, &["prepare"]);
    step(&controller, &["activate"]);
    let (late, late_identity) = enroll("late", &[]);
    let said = refused(&controller, &["retire"]).says(&["lost", &lost, "late", &late, "--leave-behind"]);
    said.explains();
    // What came with the certificate of the new CA was its root, and who uses the one has the other.
    peer::use_certificate(&controller, &late_identity).expect("its certificate counts");
    let said = refused(&controller, &["retire"]).says(&["lost", &lost]);
    assert!(!said.stderr.contains(&late), "{said}");
    refused(&controller, &["retire", "--leave-behind", "nobody"]).says(&["nobody"]);

    let link = Link::connect(&controller, &lost_identity).expect("until then it has its link");
    let after = step(&controller, &["retire", "--leave-behind", "lost"]);
    assert!(ca(&after, "RETIRED").is_some(), "{after}");
    let ended = link.end().expect("a reason");
    assert_eq!(peer::reason(&ended), "CERTIFICATE_REVOKED", "{ended}");
    Link::connect(&controller, &lost_identity).expect_err("its CA is trusted no longer");
    peer::use_certificate(&controller, &late_identity).expect("the other one is as it was");
    let events = controller.ctl().events("CA_RETIRED").expect("events");
    assert!(
        events[0].to_string().contains("leaving 1 of its agents behind"),
        "{events:?}"
    );

    let back = Peer::new("lost");
    let token = controller.token(&["--agent-id", &lost]).secret;
    let answer = back.enroll_as(&controller, &token, &lost).expect("it comes back");
    Link::connect(&controller, &back.identity(answer.certificates)).expect("a link");
}

#[test]
fn a_ca_whose_key_is_in_other_hands_is_out_at_once_and_its_agents_need_a_token() {
    let controller = controller();
    let mut victim = controller.agent("victim").start();
    controller.wait_for_agent("victim", "ONLINE");
    let mut absent = controller.agent("absent").start();
    controller.wait_for_agent("absent", "ONLINE");
    absent.stop();
    let first = ca(&status(&controller), "ACTIVE").expect("a CA");

    step(&controller, &["prepare"]);
    poll::until("the victim knows the next CA", 30 * SECOND, || {
        let status = status(&controller);
        match status["agentsAcknowledged"] == 1 {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    // Who has renewed in between has a certificate of the new CA, and stays.
    victim.process().signal(Signal::STOP);
    step(&controller, &["activate"]);
    let after = step(&controller, &["retire", "--compromised"]);
    victim.process().signal(Signal::CONT);
    assert_eq!(ca(&after, "RETIRED").as_ref(), Some(&first));
    assert_eq!(
        after["items"]
            .as_array()
            .and_then(|all| all.last()?.get("isCompromised")),
        Some(&true.into())
    );

    // Its certificate opens nothing any longer, and neither does an operator's of that CA.
    let outcome = controller.ctl().run(&["agent", "list"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    controller.create_admin("second", "second.yaml").expect_code(0);
    let ctl = controller.ctl_as("second.yaml");
    absent.run();
    let online = |name: &str| ctl.agent_is(name, "ONLINE");
    poll::until(
        "who was away does not believe the controller",
        30 * SECOND,
        || match absent.log().contains("does not come from a CA that is trusted here") {
            true => Ok(()),
            false => Err(absent.log()),
        },
    );
    for name in ["victim", "absent"] {
        poll::until("nobody is let in", 30 * SECOND, || ctl.agent_is(name, "OFFLINE"));
    }

    // A token, and the pin of the new root: nobody has to go there and wipe a directory, or start anything anew.
    let mut back = Vec::new();
    for mut agent in [victim, absent] {
        let id = agent.id().expect("an id");
        let token = ctl.json(&["token", "create", "--agent-id", &id, "--allow-reenroll"]);
        let setup = agent.setup_mut();
        setup.config["server"]["ca_pin"] = token["caPins"].clone();
        setup.write_token(token["secret"].as_str().expect("a secret"));
        agent.reload();
        back.push((agent, id));
    }
    for (name, (agent, id)) in ["victim", "absent"].into_iter().zip(&back) {
        let found = poll::until(&format!("{name} is back"), 60 * SECOND, || online(name));
        assert_eq!(found["id"], **id, "{}", agent.log());
    }
}
