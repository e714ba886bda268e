//! The link and what it carries, through connections that break.

use std::time::Duration;

use muster_agent::{config::Allow, status::Status};
use muster_proto::{
    error::Problem,
    v1::{self, CheckState, ErrorReason, connect_response::Frame},
};
use tonic::Code;

use crate::{controller::Controller, life::Life};

#[tokio::test]
async fn an_agent_enrolls_says_hello_and_reports_facts_and_policies() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    let hello = controller.wait("hello", |seen| seen.hellos.first().cloned()).await;
    assert_eq!(hello.protocol_version, 1);
    assert_eq!(hello.policy_set_digest, "");
    assert!(!hello.fingerprint.unwrap().boot_id.is_empty());
    assert!(
        hello.spools.iter().all(|spool| spool.spool_id.starts_with("1-")),
        "{:?}",
        hello.spools
    );
    let facts = controller.wait("facts", |seen| seen.facts.first().cloned()).await;
    assert_eq!(facts.facts["kernel.name"], "Linux");
    assert_eq!(facts.digest, muster_proto::digest::of_map(&facts.facts));
    assert_eq!(hello.facts_digest, facts.digest);
    controller
        .wait("policy status", |seen| seen.statuses.first().cloned())
        .await;
    controller
        .wait("heartbeats", |seen| seen.heartbeats.get(1).cloned())
        .await;
    life.stop().await;
    controller
        .wait("goodbye", |seen| {
            (seen.goodbyes == [v1::GoodbyeReason::Stopping]).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_policy_that_arrives_is_run_and_its_results_are_stored() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    let set = [controller.check("echo", 7)];
    controller.send(controller.sync(&set));
    let result = controller
        .wait("a result", |seen| {
            seen.results().first().map(|result| (*result).clone())
        })
        .await;
    assert_eq!((&*result.check, result.version, &*result.output), ("echo", 7, "fine"));
    assert_eq!(result.state(), CheckState::Ok);
    let applied = |status: &&v1::PolicyStatus| {
        status
            .policies
            .iter()
            .any(|it| it.outcome() == v1::PolicyOutcome::Applied)
    };
    controller
        .wait("the report", |seen| seen.statuses.iter().find(applied).cloned())
        .await;
    life.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_after_a_cut_and_is_stored_once() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    controller.set(|seen| seen.silent = true);
    controller.send(controller.sync(&[controller.check("echo", 1)]));
    controller
        .wait("results", |seen| (seen.results().len() >= 2).then_some(()))
        .await;
    // Stored, but the agent does not know: the mark in Welcome tells it.
    controller.cut();
    controller
        .wait("a second hello", |seen| seen.hellos.get(1).map(drop))
        .await;
    controller.set(|seen| seen.silent = false);
    controller
        .wait("more results", |seen| (seen.results().len() >= 5).then_some(()))
        .await;
    controller.set(|seen| {
        assert_eq!(seen.repeated, 0, "Welcome said what was stored");
        assert_eq!(
            seen.stored.keys().filter(|(_, lane)| *lane == 1).count(),
            1,
            "one spool"
        );
    });
    life.stop().await;
}

#[tokio::test]
async fn a_controller_that_knows_more_of_a_spool_than_the_agent_gets_a_new_spool() {
    let controller = Controller::start().await;
    controller.set(|seen| seen.acks_too_much = true);
    let life = Life::start(&controller);
    let first = controller.wait("hello", |seen| seen.hellos.first().cloned()).await;
    let second = controller
        .wait("another spool", |seen| seen.hellos.get(1).cloned())
        .await;
    assert!(first.spools[0].spool_id.starts_with("1-") && second.spools[0].spool_id.starts_with("2-"));
    controller.set(|seen| seen.acks_too_much = false);
    controller
        .wait("a welcome that fits", |seen| seen.heartbeats.first().map(drop))
        .await;
    life.stop().await;
}

#[tokio::test]
async fn a_policy_set_that_does_not_fit_makes_the_agent_ask_for_the_whole() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    controller.send(controller.sync(&[controller.check("echo", 1)]));
    controller
        .wait("the set", |seen| {
            seen.statuses.iter().find(|it| it.policies.len() == 1).map(drop)
        })
        .await;
    let Frame::PolicySync(sync) = controller.sync(&[]) else {
        panic!("a sync")
    };
    controller.send(Frame::PolicySync(v1::PolicySync {
        base_digest: "sha256:0".into(),
        ..sync
    }));
    let hello = controller
        .wait("a second hello", |seen| seen.hellos.get(1).cloned())
        .await;
    assert_eq!(hello.policy_set_digest, "");
    let before = controller.wait("results", |seen| Some(seen.results().len())).await;
    controller
        .wait("the old set still runs", |seen| {
            (seen.results().len() > before + 1).then_some(())
        })
        .await;
    life.stop().await;
}

#[tokio::test]
async fn policies_run_at_the_next_start_while_the_controller_is_away() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    controller.send(controller.sync(&[controller.check("echo", 1)]));
    controller
        .wait("a result", |seen| seen.results().first().map(drop))
        .await;
    let (dir, config) = life.stop().await;
    let life = Life::resume(dir, config);
    let hello = controller
        .wait("the second start", |seen| seen.hellos.get(1).cloned())
        .await;
    assert!(hello.policy_set_digest.starts_with("sha256:"));
    assert!(hello.spools[0].spool_id.starts_with("2-"), "a new spool at every start");
    controller
        .wait("results of the second start", |seen| {
            let spool = &hello.spools[0].spool_id;
            seen.stored
                .get(&(spool.clone(), v1::Lane::Results.into()))
                .filter(|records| !records.is_empty())
                .map(drop)
        })
        .await;
    life.stop().await;
}

#[tokio::test]
async fn new_labels_are_told_at_once_and_the_ceiling_stops_checks() {
    let controller = Controller::start().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    controller.send(controller.sync(&[controller.check("echo", 1)]));
    controller
        .wait("a result", |seen| seen.results().first().map(drop))
        .await;
    life.change(|config| {
        config.agent.labels.insert("zone".into(), "eu".into());
        config.allow = Allow {
            checks: false,
            ..Allow::default()
        };
    });
    let hello = controller
        .wait("a second hello", |seen| seen.hellos.get(1).cloned())
        .await;
    assert_eq!(hello.labels["zone"], "eu");
    let refused = |status: &&v1::PolicyStatus| {
        status
            .policies
            .iter()
            .any(|it| it.outcome() == v1::PolicyOutcome::Refused)
    };
    controller
        .wait("the refusal", |seen| seen.statuses.iter().find(refused).map(drop))
        .await;
    life.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_sent_elsewhere_says_goodbye_goes_there_and_loses_nothing() {
    let controller = Controller::start().await;
    let elsewhere = controller.second_address().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    controller.send(controller.sync(&[controller.check("echo", 1)]));
    controller
        .wait("results", |seen| (seen.results().len() >= 2).then_some(()))
        .await;
    controller.send(Frame::Drain(v1::Drain {
        within_micros: 300_000,
        endpoints: vec!["no endpoint".into(), elsewhere.to_string()],
        reason: "the machine is updated".into(),
    }));
    controller
        .wait("goodbye", |seen| {
            (seen.goodbyes == [v1::GoodbyeReason::Drained]).then_some(())
        })
        .await;
    let before = controller
        .wait("a second hello", |seen| {
            seen.hellos.get(1).map(|_| seen.results().len())
        })
        .await;
    controller
        .wait("more results", |seen| (seen.results().len() > before + 1).then_some(()))
        .await;
    controller.set(|seen| assert_eq!(seen.repeated, 0, "nothing came twice"));
    // With each heartbeat it is looked again.
    let there = |status: &Status| status.connection.endpoint == elsewhere.to_string();
    let status = controller
        .wait("the status", |_| Some(life.status()).filter(there))
        .await;
    assert_eq!(
        status.endpoints.len(),
        1,
        "it was for this once: {:?}",
        status.endpoints
    );
    life.stop().await;
}

#[tokio::test]
async fn a_controller_that_goes_before_the_agent_has_left_has_sent_it_elsewhere_all_the_same() {
    let controller = Controller::start().await;
    let elsewhere = controller.second_address().await;
    let life = Life::start(&controller);
    controller.wait("hello", |seen| seen.hellos.first().map(drop)).await;
    controller.send(Frame::Drain(v1::Drain {
        within_micros: 3_600_000_000,
        endpoints: vec![elsewhere.to_string()],
        reason: String::new(),
    }));
    let heartbeats = controller.wait("a heartbeat", |seen| Some(seen.heartbeats.len())).await;
    // It has read what came before the answer to that.
    controller
        .wait("heartbeats", |seen| seen.heartbeats.get(heartbeats + 2).map(drop))
        .await;
    controller.cut();
    controller
        .wait("a second hello", |seen| seen.hellos.get(1).map(drop))
        .await;
    let there = |status: &Status| status.connection.endpoint == elsewhere.to_string();
    controller
        .wait("the status", |_| Some(life.status()).filter(there))
        .await;
    life.stop().await;
}

#[tokio::test]
async fn an_agent_goes_back_to_the_first_endpoint_when_that_takes_links_and_not_while_it_drains() {
    let controller = Controller::start().await;
    let second = controller.second_address().await;
    controller.set(|seen| {
        let problem = Problem::new(Code::Unavailable, ErrorReason::ControllerDraining, "not now");
        seen.refuses_links = Some(problem);
        seen.draining = true;
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = controller.config(dir.path());
    config.server.endpoints.push(second.to_string().parse().unwrap());
    config.server.fail_back = Duration::from_millis(200);
    let life = Life::resume(dir, config);
    let at = |endpoint: &str, status: Status| status.connection.endpoint == endpoint;
    controller
        .wait("the second endpoint", |seen| {
            seen.heartbeats
                .first()
                .filter(|_| at(&second.to_string(), life.status()))
                .map(drop)
        })
        .await;
    controller.wait("it asks", |seen| (seen.asked >= 3).then_some(())).await;
    controller.set(|seen| {
        assert_eq!(
            (seen.links, seen.goodbyes.len()),
            (2, 0),
            "the first refused one, and it stays"
        );
        seen.draining = false;
    });
    controller
        .wait("the first endpoint", |seen| {
            (seen.links == 3 && at(&controller.address.to_string(), life.status())).then_some(())
        })
        .await;
    life.stop().await;
}
