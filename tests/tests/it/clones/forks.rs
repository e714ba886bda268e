//! Copies that become agents of their own, where that is allowed.

use muster_certs::{csr, identity_file::IdentityFile, key::KeyPair};
use muster_proto::v1::{ForkRequest, enrollment_service_client::EnrollmentServiceClient};
use muster_tests::{
    Agent, Controller, ServerYaml,
    agent::Setup,
    dial,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

use super::{LOAD, agent, copy_of, is_undisturbed, original, says_it_is_a_copy, session};

/// Waits until the copy is an agent of its own, as an operator sees it.
fn forked(controller: &Controller, copy: &Agent, name: &str, parent: &Value) -> Value {
    controller.wait_for_agent(name, "ONLINE");
    let fork = agent(controller, name);
    assert_eq!(fork["forkedFrom"], *parent, "{fork}");
    assert_ne!(fork["id"], *parent);
    poll::until("its id file says so too", 10 * SECOND, || match copy.id() {
        Ok(id) if json!(id) == fork["id"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    poll::until("and its status", 20 * SECOND, || {
        let status = copy.status()?;
        match status["agent"]["id"] == fork["id"] && status["connection"]["state"] == "connected" {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    poll::until("it reports", 20 * SECOND, || controller.ctl().state(name, "load"));
    fork
}

#[test]
fn where_the_controller_says_fork_every_copy_becomes_an_agent_with_the_labels_of_the_token() {
    let controller = Controller::start_with(&ServerYaml::new().on_clone("fork").to_string());
    controller.apply(LOAD);
    let token = controller.token(&["--uses", "1", "--label", "env=prod"]);
    let original = Setup::new("web-01", token).label("claimed", "yes").start();
    controller.wait_for_agent("web-01", "ONLINE");
    controller.ctl().ok(&["agent", "label", "web-01", "by=operator"]);
    poll::until("it reports", 20 * SECOND, || controller.ctl().state("web-01", "load"));
    let before = session(&controller, "web-01");
    let parent = agent(&controller, "web-01")["id"].clone();

    let names = ["web-02", "web-03", "web-04"];
    let copies: Vec<Agent> = names
        .iter()
        .map(|name| copy_of(original.setup(), &controller, name).start())
        .collect();
    let mut ids = vec![parent.clone()];
    for (copy, name) in copies.iter().zip(names) {
        let fork = forked(&controller, copy, name, &parent);
        let labels = fork["labels"].to_string();
        assert!(labels.contains("prod") && !labels.contains("operator"), "{labels}");
        assert!(!ids.contains(&fork["id"]), "{ids:?}");
        ids.push(fork["id"].clone());
    }
    is_undisturbed(&controller, "web-01", &before).expect("the original is undisturbed");
    assert_eq!(controller.ctl().events("AGENT_FORKED").expect("events").len(), 3);

    // It is that agent for good.
    let mut copies = copies;
    let id = copies[0].id().expect("an id");
    copies[0].stop();
    copies[0].run();
    let back = controller.wait_for_agent("web-02", "ONLINE");
    assert_eq!(back["id"], json!(id));
}

#[test]
fn a_token_that_says_fork_wins_over_the_controller_and_so_does_one_that_says_refuse() {
    for (configured, of_token) in [("refuse", "fork"), ("fork", "refuse")] {
        let controller = Controller::start_with(&ServerYaml::new().on_clone(configured).to_string());
        controller.apply(LOAD);
        let token = controller.token(&["--uses", "1", "--on-clone", of_token]);
        let original = Setup::new("web-01", token).start();
        controller.wait_for_agent("web-01", "ONLINE");
        let parent = agent(&controller, "web-01")["id"].clone();
        let copy = copy_of(original.setup(), &controller, "web-02").start();
        if of_token == "fork" {
            forked(&controller, &copy, "web-02", &parent);
        } else {
            poll::until("the copy is refused", 60 * SECOND, || says_it_is_a_copy(&copy));
            assert_eq!(controller.ctl().items(&["agent", "list"]).expect("a list").len(), 1);
        }
    }
}

#[test]
fn an_operator_opens_a_window_and_a_refused_copy_becomes_an_agent() {
    let controller = Controller::start();
    let original = original(&controller, "web-01");
    let before = session(&controller, "web-01");
    let parent = agent(&controller, "web-01")["id"].clone();
    let mut copy = copy_of(original.setup(), &controller, "web-02").start();
    poll::until("the copy is refused", 60 * SECOND, || says_it_is_a_copy(&copy));

    let opened = controller.ctl().ok(&["agent", "fork", "web-01", "--window", "10m"]);
    assert!(opened.stderr.contains("become agents of their own until"), "{opened}");
    assert!(!agent(&controller, "web-01")["forkUntil"].is_null());
    // It would come by itself, within five minutes.
    copy.kill();
    copy.run();
    forked(&controller, &copy, "web-02", &parent);
    is_undisturbed(&controller, "web-01", &before).expect("the original is undisturbed");

    controller
        .ctl()
        .run(&["agent", "fork", "web-01", "--window", "1s"])
        .expect_code(2);
    controller.ctl().run(&["agent", "fork", "nobody"]).expect_code(5);
}

/// Asks for a fork as any program with the identity of `setup` could.
fn fork(controller: &Controller, setup: &Setup, id: &str, key: &KeyPair) -> Result<Vec<u8>, String> {
    let identity = IdentityFile::load(&setup.path("state/identity.pem")).expect("an identity");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let channel = dial::channel(controller, controller.agents_port, Some(&identity))
            .await
            .map_err(|error| error.to_string())?;
        let request = ForkRequest {
            agent_id: id.to_owned(),
            csr: csr::create(key).expect("a request"),
            name: "web-02".into(),
            agent_version: "1".into(),
            ..ForkRequest::default()
        };
        match EnrollmentServiceClient::new(channel).fork(request).await {
            Ok(response) => Ok(response.into_inner().certificates[0].clone()),
            Err(status) => {
                let problem = muster_proto::error::Problem::from_status(&status);
                Err(problem.map_or_else(|| status.to_string(), |problem| format!("{:?}", problem.reason)))
            }
        }
    })
}

#[test]
fn a_fork_wants_a_conflict_is_repeatable_and_takes_no_id_of_another() {
    let controller = Controller::start_with(&ServerYaml::new().on_clone("fork").to_string());
    let original = original(&controller, "web-01");
    let id = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    let key = KeyPair::generate().expect("a key");
    assert_eq!(
        fork(&controller, original.setup(), id, &key),
        Err("CloneDetected".into()),
        "there is only one machine"
    );

    // A copy shows up and makes the conflict; what it becomes is of no interest here.
    let copy = copy_of(original.setup(), &controller, "web-03").start();
    controller.wait_for_agent("web-03", "ONLINE");
    let first = fork(&controller, original.setup(), id, &key).expect("forked");
    let again = fork(&controller, original.setup(), id, &key).expect("the same once more");
    assert_eq!(first, again);
    let named = controller.ctl().items(&["agent", "list"]).expect("a list");
    assert_eq!(
        named.iter().filter(|agent| agent["name"] == "web-02").count(),
        1,
        "{named:?}"
    );

    let other = KeyPair::generate().expect("a key");
    assert_eq!(
        fork(&controller, original.setup(), id, &other),
        Err("AgentAlreadyEnrolled".into())
    );
    let own = original.id().expect("an id");
    assert_eq!(
        fork(&controller, original.setup(), &own, &other),
        Err("AgentAlreadyEnrolled".into())
    );
    let stolen = IdentityFile::load(&original.setup().path("state/identity.pem")).expect("an identity");
    let fresh = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d22";
    assert_eq!(
        fork(&controller, original.setup(), fresh, stolen.key()),
        Err("CsrInvalid".into()),
        "a copy needs a key of its own"
    );

    controller
        .ctl()
        .ok(&["agent", "revoke", "web-01", "--reason", "stolen"]);
    assert_eq!(
        fork(&controller, original.setup(), fresh, &other),
        Err("CertificateRevoked".into()),
        "what is revoked breeds no agents"
    );
    drop(copy);
}

#[test]
fn a_copy_that_was_cut_off_at_any_step_of_its_fork_goes_on_as_the_same_agent() {
    let controller = Controller::start_with(&ServerYaml::new().on_clone("fork").to_string());
    let original = original(&controller, "web-01");
    let parent = agent(&controller, "web-01")["id"].clone();
    let setup = copy_of(original.setup(), &controller, "web-02");
    let refused = super::admission::connect_all(&controller, original.setup(), 1, false);
    assert_eq!(refused, ["CloneDetected"]);

    // The answer was lost: id and key are on disk, the controller has made the agent.
    let id = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    let key = KeyPair::generate().expect("a key");
    setup.write("state/fork-id", &format!("{id}\n"));
    setup.write("state/fork.key.pem", &key.to_pem());
    fork(&controller, original.setup(), id, &key).expect("forked");
    let mut copy = setup.start();
    let forked = forked(&controller, &copy, "web-02", &parent);
    assert_eq!(forked["id"], id, "{forked}");
    assert!(!copy.setup().path("state/fork-id").exists());
    assert!(!copy.setup().path("state/fork.key.pem").exists());
    assert_eq!(controller.ctl().items(&["agent", "list"]).expect("a list").len(), 2);

    // It was killed after its identity was in place, and before its id file said so.
    copy.stop();
    copy.setup().write("state/fork-id", &format!("{id}\n"));
    copy.setup().write("state/fork.key.pem", &key.to_pem());
    copy.setup()
        .write("agent-id", &format!("{}\n", parent.as_str().expect("an id")));
    copy.run();
    poll::until("its id file is mended", 20 * SECOND, || match copy.id() {
        Ok(own) if own == id => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let back = controller.wait_for_agent("web-02", "ONLINE");
    assert_eq!(back["id"], id, "{back}");
    assert!(!copy.setup().path("state/fork-id").exists());
}
