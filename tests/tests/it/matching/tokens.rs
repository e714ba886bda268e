//! What a token is good for, how often, from where and for how long.

use std::collections::BTreeSet;

use muster_proto::error::Problem;
use muster_tests::{
    Controller,
    agent::Setup,
    peer::{self, Peer},
    poll::{self, SECOND},
    tools,
};
use serde_json::Value;

use super::{agents, assert_refused, assert_uses_left, id_of, token};

/// Beyond the tokens of an hour, and within what clocks may be apart.
const LATER: &str = "+90m";

#[test]
fn of_fifty_machines_with_a_token_of_ten_uses_ten_get_in_and_the_token_says_which_and_when() {
    let controller = Controller::start();
    let secret = controller.token(&["--uses", "10"]).secret;
    let machines: Vec<Peer> = (0..50).map(|n| Peer::new(&format!("racer-{n}"))).collect();
    let requests = machines.iter().map(|machine| machine.request(&secret)).collect();
    let answers = peer::enroll_all(&controller, requests);
    let won: BTreeSet<String> = answers.iter().flatten().map(|answer| answer.agent_id.clone()).collect();
    assert_eq!(won.len(), 10);
    for refusal in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        let reason = peer::reason(refusal);
        assert!(matches!(reason, "TOKEN_INVALID" | "RATE_LIMITED"), "{refusal}");
    }
    assert_eq!(agents(&controller).len(), 10);

    let token = token(&controller, &secret);
    assert_eq!(token["status"], "TOKEN_STATUS_USED_UP", "{token}");
    let uses = token["redemptions"].as_array().expect("its uses");
    let users: BTreeSet<String> = uses
        .iter()
        .map(|it| it["agentId"].as_str().unwrap_or("").to_owned())
        .collect();
    assert_eq!((uses.len(), users), (10, won));
    for used in uses {
        let name = used["agentName"].as_str().unwrap_or_default();
        assert!(name.starts_with("racer-"), "{used}");
        assert!(used["time"].as_str() >= token["createTime"].as_str(), "{used}");
        assert_eq!(used["source"], "127.0.0.1", "{used}");
    }
    let table = controller.ctl().ok(&["token", "list", "--all"]);
    let row = table.stdout.lines().find(|line| line.contains(id_of(&secret)));
    assert!(row.is_some_and(|row| row.contains("0/10")), "{table}");
}

#[test]
fn a_lost_reply_is_given_again_for_the_same_key_and_uses_nothing_up() {
    let controller = Controller::start();
    let secret = controller.token(&["--uses", "2"]).secret;
    let machine = Peer::new("web-01");
    let first = machine.enroll(&controller, &secret).expect("it enrolls");
    // Three of the same at once too.
    let requests = (0..3).map(|_| machine.request(&secret)).collect();
    for again in peer::enroll_all(&controller, requests) {
        let again = again.expect("an answer");
        assert!(again.certificates == first.certificates, "the same one");
        assert_eq!(again.agent_id, first.agent_id);
    }
    assert_uses_left(&controller, &secret, 1);
    Peer::new("web-02")
        .enroll(&controller, &secret)
        .expect("the other use is left");
    // Of a token that is used up as well.
    let again = machine.enroll(&controller, &secret).expect("an answer");
    assert!(again.certificates == first.certificates, "the same one");
}

#[test]
fn a_repeated_request_gets_the_newest_certificate_of_its_key_when_another_token_was_used_since() {
    let controller = Controller::start();
    let (first, second) = (controller.token(&[]).secret, controller.token(&[]).secret);
    let machine = Peer::new("web-01");
    let old = machine.enroll(&controller, &first).expect("it enrolls");
    let new = machine.enroll(&controller, &second).expect("it enrolls again");
    assert_eq!(new.agent_id, old.agent_id);
    assert!(new.certificates != old.certificates, "another one");
    let again = machine.enroll(&controller, &first).expect("an answer");
    assert!(again.certificates == new.certificates, "the newest one");
    let identity = machine.identity(again.certificates);
    peer::use_certificate(&controller, &identity).expect("what was answered counts");
}

#[test]
fn unknown_used_up_revoked_expired_and_from_elsewhere_are_one_answer() {
    let mut controller = Controller::start();
    let stranger = |controller: &Controller, secret: &str| {
        let status = assert_refused(Peer::new("stranger").enroll(controller, secret), "TOKEN_INVALID");
        let problem = Problem::from_status(&status).expect("a problem");
        let id = problem.request_id().expect("each has its id").to_owned();
        // The one thing that may differ is as long as any other.
        let details = String::from_utf8_lossy(status.details()).replace(&id, "id");
        (status.code(), status.message().to_owned(), details, id.len())
    };
    let unknown = stranger(&controller, &format!("mst_{}_{}", "0".repeat(16), "0".repeat(64)));

    let used_up = controller.token(&[]).secret;
    Peer::new("web-01").enroll(&controller, &used_up).expect("it enrolls");
    let revoked = controller.token(&["--uses", "5"]).secret;
    controller.ctl().ok(&["token", "revoke", id_of(&revoked)]);
    let elsewhere = controller.token(&["--source", "10.0.0.0/8"]).secret;
    let known = controller.token(&[]).secret;
    let wrong = known[..known.len() - 64].to_owned() + &"0".repeat(64);
    for (what, secret) in [
        ("used up", &used_up),
        ("revoked", &revoked),
        ("from elsewhere", &elsewhere),
        ("a wrong secret", &wrong),
    ] {
        assert_eq!(stranger(&controller, secret), unknown, "{what}");
    }
    assert_uses_left(&controller, &elsewhere, 1);
    let near = controller.token(&["--source", "127.0.0.0/8"]).secret;
    Peer::new("web-02").enroll(&controller, &near).expect("it enrolls");

    let Some(environment) = tools::clock(LATER) else {
        return tools::skipped("an expired token", "libfaketime is not installed (Debian: faketime)");
    };
    controller.stop();
    controller.environment = environment;
    controller.run();
    assert_eq!(stranger(&controller, &known), unknown, "expired");
}

#[test]
fn a_revoked_token_lets_nobody_in_and_those_that_came_with_it_stay() {
    let controller = Controller::start();
    let secret = controller.token(&["--uses", "5"]).secret;
    let machine = Peer::new("web-01");
    let identity = machine.identity(machine.enroll(&controller, &secret).expect("it enrolls").certificates);
    controller.ctl().ok(&["token", "revoke", id_of(&secret)]);
    assert_refused(Peer::new("web-02").enroll(&controller, &secret), "TOKEN_INVALID");
    assert_refused(machine.enroll(&controller, &secret), "TOKEN_INVALID");
    peer::use_certificate(&controller, &identity).expect("its certificate is as good as before");
    assert_eq!(token(&controller, &secret)["status"], "TOKEN_STATUS_REVOKED");
}

#[test]
fn an_ephemeral_agent_is_deleted_once_it_was_away_for_its_time() {
    let mut controller = Controller::start();
    let short = controller.token(&["--ephemeral", "1h"]);
    let long = controller.token(&["--ephemeral", "2h"]);
    for (name, token) in [("short", short), ("long", long), ("kept", controller.token(&[]))] {
        let mut agent = Setup::new(name, token).start();
        controller.wait_for_agent(name, "ONLINE");
        agent.stop();
        controller.wait_for_agent(name, "OFFLINE");
    }
    let Some(environment) = tools::clock(LATER) else {
        return tools::skipped("an ephemeral agent", "libfaketime is not installed (Debian: faketime)");
    };
    controller.stop();
    controller.environment = environment;
    controller.run();
    let event = poll::until("it is deleted", 40 * SECOND, || {
        let events = controller.ctl().events("AGENT_DELETED")?;
        events.first().cloned().ok_or_else(|| "no event".to_owned())
    });
    assert_eq!(event["metadata"]["name"], "short", "{event}");
    let mut names: Vec<Value> = agents(&controller).iter().map(|agent| agent["name"].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["kept", "long"]);
}
