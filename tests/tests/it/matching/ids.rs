//! The rows of the table: an id that nobody has, none at all, one that is expected, one that is taken.

use muster_tests::{
    Controller,
    agent::Setup,
    peer::{self, Link, Peer},
};
use serde_json::{Value, json};

use super::{ID, agents, assert_refused, assert_uses_left, enrolled, label, preregister};

const OTHER: &str = "2b9c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";

#[test]
fn an_id_that_nobody_has_becomes_an_entry_and_is_kept_in_small_letters() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    setup.write("agent-id", &format!("{}\r\n", ID.to_uppercase()));
    setup.enroll().expect_code(0);
    assert_eq!(peer::agent_id(&peer::load(&setup.path("state/identity.pem"))), ID);

    let mut request = Peer::new("web-02").request(&controller.token(&[]).secret);
    request.agent_id = OTHER.to_uppercase();
    let answer = peer::enroll_all(&controller, vec![request])
        .remove(0)
        .expect("an answer");
    assert_eq!(answer.agent_id, OTHER);
    let mut ids: Vec<Value> = agents(&controller).iter().map(|agent| agent["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, [OTHER, ID]);
}

#[test]
fn a_client_without_an_id_is_given_one_and_the_same_one_when_it_asks_again() {
    let controller = Controller::start();
    let (first, second) = (Peer::new("first"), Peer::new("second"));
    let token = controller.token(&["--uses", "3"]).secret;
    let id = first.enroll(&controller, &token).expect("an answer").agent_id;
    assert!(id.parse::<muster_proto::ids::AgentId>().is_ok(), "{id}");
    assert_eq!(first.enroll(&controller, &token).expect("an answer").agent_id, id);
    assert_uses_left(&controller, &token, 2);
    assert_ne!(second.enroll(&controller, &token).expect("an answer").agent_id, id);
}

#[test]
fn an_expected_agent_comes_in_by_a_token_that_is_bound_to_it_and_is_what_was_written_of_it() {
    let controller = Controller::start();
    preregister(&controller, &["--name", "db-01", "--label", "env=prod"]);
    assert_eq!(agents(&controller)[0]["status"], "AGENT_STATUS_EXPECTED");
    let setup = Setup::new(
        "as-the-host-says",
        controller.token(&["--agent-id", ID, "--label", "env=test", "--label", "zone=eu"]),
    );
    setup.write("agent-id", ID);
    setup.enroll().expect_code(0);
    let all = agents(&controller);
    let [agent] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&agent["id"], &agent["name"]), (&json!(ID), &json!("db-01")));
    let labels = [label(agent, "env"), label(agent, "zone")];
    let expected = [("prod", "LABEL_SOURCE_OPERATOR"), ("eu", "LABEL_SOURCE_TOKEN")];
    assert_eq!(
        labels,
        expected.map(|(value, source)| Some((value.to_owned(), source.to_owned())))
    );
}

#[test]
fn an_expected_agent_comes_in_by_a_token_that_grants_all_its_labels() {
    let controller = Controller::start();
    preregister(&controller, &["--label", "env=prod", "--label", "tier=gold"]);
    let token = controller.token(&["--label", "env=prod", "--label", "tier=gold", "--label", "zone=eu"]);
    let setup = Setup::new("db-01", token);
    setup.write("agent-id", ID);
    setup.enroll().expect_code(0);
    // It was pre-registered without a name.
    assert_eq!(agents(&controller)[0]["name"], "db-01");
}

#[test]
fn an_expected_agent_is_refused_with_a_token_that_does_neither_and_told_what_to_do() {
    let controller = Controller::start();
    preregister(
        &controller,
        &["--name", "db-01", "--label", "env=prod", "--label", "tier=gold"],
    );
    let token = controller.token(&["--label", "env=prod"]);
    // What it claims itself is no right to be it.
    let setup = Setup::new("db-01", token.clone()).label("tier", "gold");
    setup.write("agent-id", ID);
    let refused = setup.enroll_once();
    assert_ne!(refused.code, 0, "{refused}");
    refused.explains().says(&[
        "AGENT_PREREGISTERED",
        "the label tier",
        "not used up",
        &format!("musterctl token create --agent-id {ID}"),
    ]);
    assert_eq!(agents(&controller)[0]["status"], "AGENT_STATUS_EXPECTED");
    assert_uses_left(&controller, &token.secret, 1);

    let reenroll = controller.token(&["--allow-reenroll"]).secret;
    let refused = Peer::new("db-01").enroll_as(&controller, &reenroll, ID);
    assert_refused(refused, "AGENT_PREREGISTERED");
    // The token of the first try is good for the machine under another id.
    std::fs::remove_file(setup.path("agent-id")).expect("the id goes");
    setup.enroll().expect_code(0);
}

#[test]
fn an_agent_that_enrolled_before_is_itself_by_its_old_key() {
    let controller = Controller::start();
    let machine = enrolled(&controller);
    let token = controller.token(&["--label", "zone=eu"]).secret;
    let answer = machine.enroll_as(&controller, &token, ID).expect("it enrolls again");
    assert_uses_left(&controller, &token, 0);
    let identity = machine.identity(answer.certificates);
    Link::connect(&controller, &identity).expect("the new certificate counts");
    let all = agents(&controller);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(label(&all[0], "zone").is_some(), "{all:?}");
    assert_eq!(controller.ctl().events("AGENT_REENROLLED").expect("events").len(), 1);
}

#[test]
fn an_agent_that_enrolled_before_comes_back_with_a_new_key_by_a_token_that_says_so() {
    let controller = Controller::start();
    let before = enrolled(&controller);
    for arguments in [&["--agent-id", ID][..], &["--allow-reenroll"]] {
        let token = controller.token(arguments).secret;
        let machine = Peer::new("rebuilt");
        let answer = machine.enroll_as(&controller, &token, ID);
        let answer = answer.unwrap_or_else(|status| panic!("{arguments:?}: {status}"));
        // It stays who it is.
        assert_eq!(answer.name, "db-01", "{arguments:?}");
        let identity = machine.identity(answer.certificates);
        peer::use_certificate(&controller, &identity).expect("the new certificate counts");
    }
    let other = Peer::new("other");
    let bound = controller.token(&["--agent-id", OTHER]).secret;
    assert_refused(other.enroll_as(&controller, &bound, ID), "TOKEN_INVALID");
    assert_eq!(agents(&controller).len(), 1);
    // The key of long ago is still one of its keys.
    let plain = controller.token(&[]).secret;
    before.enroll_as(&controller, &plain, ID).expect("it enrolls again");
}

#[test]
fn whoever_asks_as_an_enrolled_agent_without_proof_is_told_the_way_out_and_keeps_the_token() {
    let controller = Controller::start();
    enrolled(&controller);
    let token = controller.token(&["--label", "env=prod"]);
    let setup = Setup::new("rebuilt", token.clone());
    setup.write("agent-id", ID);
    let refused = setup.enroll_once();
    assert_ne!(refused.code, 0, "{refused}");
    refused.explains().says(&[
        "ALREADY_EXISTS AGENT_ALREADY_ENROLLED",
        "was not used up",
        &format!("musterctl token create --agent-id {ID}"),
    ]);
    assert_uses_left(&controller, &token.secret, 1);

    // What it was told to do helps.
    setup.write_token(&controller.token(&["--agent-id", ID]).secret);
    setup.enroll().expect_code(0);
    let all = agents(&controller);
    assert_eq!((all.len(), &all[0]["id"]), (1, &json!(ID)));
}

#[test]
fn preregistering_twice_changes_nothing_and_an_agent_that_is_there_or_was_needs_a_word_more() {
    let controller = Controller::start();
    let ctl = controller.ctl();
    let again = |arguments: &[&str]| {
        let all = [&["agent", "preregister", "--id", ID, "--name", "db-01"], arguments].concat();
        ctl.run(&all)
    };
    again(&["--label", "env=prod"]).expect_code(0);
    let before = agents(&controller);
    again(&["--label", "env=prod"]).expect_code(0);
    assert_eq!(agents(&controller), before, "the revision too is the same");
    // Also once the machine has come.
    let bound = controller.token(&["--agent-id", ID]).secret;
    Peer::new("db-01")
        .enroll_as(&controller, &bound, ID)
        .expect("it enrolls");
    again(&["--label", "env=prod"]).expect_code(0);
    ctl.ok(&["agent", "delete", ID]);

    let conflict = again(&["--label", "env=prod"]).expect_code(8);
    conflict.explains().says(&["AGENT_DELETED", "--revive"]);
    assert!(agents(&controller).is_empty());
    again(&["--label", "env=prod", "--revive"]).expect_code(0);
    assert_eq!(agents(&controller)[0]["status"], "AGENT_STATUS_EXPECTED");

    // One that has enrolled without anybody expecting it.
    let token = controller.token(&[]).secret;
    Peer::new("web-01")
        .enroll_as(&controller, &token, OTHER)
        .expect("it enrolls");
    let adopt = ["agent", "preregister", "--id", OTHER, "--label", "env=prod"];
    let conflict = ctl.run(&adopt).expect_code(8);
    conflict.explains().says(&["AGENT_ALREADY_ENROLLED", "--adopt"]);
    ctl.ok(&[&adopt[..], &["--adopt"]].concat());
    let agent = ctl.json(&["agent", "get", OTHER]);
    assert_eq!(agent["name"], "web-01", "it keeps its name: {agent}");
    assert_eq!(label(&agent, "env").map(|(value, _)| value), Some("prod".to_owned()));
}

#[test]
fn what_an_agent_claims_stays_a_claim_beside_what_it_was_given() {
    let controller = Controller::start();
    let token = controller.token(&["--label", "env=test"]);
    let setup = Setup::new("web-01", token).label("env", "prod").label("role", "db");
    setup.enroll().expect_code(0);
    let agent = agents(&controller).remove(0);
    let expected = [("test", "LABEL_SOURCE_TOKEN"), ("db", "LABEL_SOURCE_AGENT")];
    assert_eq!(
        [label(&agent, "env"), label(&agent, "role")],
        expected.map(|(value, source)| Some((value.to_owned(), source.to_owned())))
    );
    let selected = controller.ctl().items(&["agent", "list", "-l", "env=prod"]);
    assert!(selected.expect("a list").is_empty(), "the claim selects nothing");
}
