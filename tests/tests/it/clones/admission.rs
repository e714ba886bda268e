//! Who is let in when the agent may be there already.

use std::{sync::Arc, time::Instant};

use muster_certs::identity_file::IdentityFile;
use muster_proto::v1::{
    ConnectRequest, Fingerprint, Hello, connect_request::Frame, link_service_client::LinkServiceClient,
};
use muster_tests::{
    Controller, ServerYaml,
    agent::Setup,
    dial,
    poll::{self, SECOND},
    turn,
};
use rustix::process::Signal;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    agent, copy_of, is_undisturbed,
    machine::{self, Machine},
    original, says_it_is_a_copy, session, warnings,
};

/// Real processes, of 7 MB each.
const COPIES: usize = 100;

/// What the controller answers to so many links at once that show the identity of `setup`, each as another process that
/// was refused before or was not.
pub(super) fn connect_all(controller: &Controller, setup: &Setup, count: usize, was_refused: bool) -> Vec<String> {
    let identity = Arc::new(IdentityFile::load(&setup.path("state/identity.pem")).expect("an identity"));
    let agent_id = std::fs::read_to_string(setup.path("agent-id")).expect("an id");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let links = (0..count).map(|n| {
            let hello = Hello {
                agent_id: agent_id.trim().to_owned(),
                agent_version: "1".into(),
                protocol_version: 1,
                fingerprint: Some(Fingerprint {
                    machine_id: "0123".into(),
                    process_nonce: format!("copy-{n}"),
                    was_refused,
                    ..Fingerprint::default()
                }),
                ..Hello::default()
            };
            connect(controller, identity.clone(), hello)
        });
        futures_util::future::join_all(links).await
    })
}

/// "admitted", or the status.
async fn connect(controller: &Controller, identity: Arc<IdentityFile>, hello: Hello) -> String {
    let link = async {
        let channel = dial::channel(controller, controller.agents_port, Some(&identity))
            .await
            .map_err(|error| error.to_string())?;
        let (requests, outbound) = tokio::sync::mpsc::channel(4);
        let frame = Some(Frame::Hello(hello));
        requests
            .send(ConnectRequest { frame })
            .await
            .map_err(|error| error.to_string())?;
        let call = LinkServiceClient::new(channel)
            .connect(ReceiverStream::new(outbound))
            .await;
        let mut frames = call.map_err(|status| status.to_string())?.into_inner();
        frames.message().await.map_err(|status| {
            let problem = muster_proto::error::Problem::from_status(&status);
            problem.map_or_else(|| status.to_string(), |problem| format!("{:?}", problem.reason))
        })
    };
    match link.await {
        Ok(_) => "admitted".to_owned(),
        Err(why) => why,
    }
}

#[test]
fn a_hundred_copies_with_one_machine_id_are_refused_and_the_original_never_notices() {
    let _turn = turn::of_heavy_tests();
    let controller = Controller::start_with(&ServerYaml::new().heartbeat("5s").to_string());
    let original = original(&controller, "web-01");
    let before = session(&controller, "web-01");

    let started = Instant::now();
    let copies: Vec<_> = (0..COPIES)
        .map(|n| copy_of(original.setup(), &controller, &format!("copy-{n}")).start())
        .collect();
    for copy in &copies {
        poll::until("a copy says what it is and what to do", 120 * SECOND, || {
            says_it_is_a_copy(copy)
        });
    }
    poll::all_through("the original is as before", 5 * SECOND, || {
        is_undisturbed(&controller, "web-01", &before)
    });

    let shown = warnings(&controller, "web-01");
    assert!(
        shown.contains("was refused") && shown.contains("musterctl agent fork"),
        "{shown}"
    );
    let ctl = controller.ctl();
    let list = ctl.ok(&["agent", "list"]);
    assert!(list.stdout.contains("web-01"), "{list}");
    assert_eq!(ctl.items(&["agent", "list"]).expect("a list").len(), 1);
    let events = poll::until("an event tells of it", 20 * SECOND, || {
        match ctl.events("AGENT_CLONE_REFUSED") {
            Ok(events) if events.is_empty() => Err("none".to_owned()),
            other => other,
        }
    });
    let minutes = started.elapsed().as_secs() as usize / 60;
    assert!(events.len() <= minutes + 1, "one event a minute: {events:?}");
    for reason in ["AGENT_LATE", "AGENT_OFFLINE"] {
        assert_eq!(ctl.events(reason).expect("events").len(), 0, "{reason}");
    }
    let count = shown
        .split_once("was refused ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    assert!(count.is_some_and(|count: usize| count >= COPIES), "{shown}");
}

#[test]
fn an_image_of_an_enrolled_machine_is_refused_and_both_machines_are_named() {
    let controller = Controller::start();
    let original = original(&controller, "web-01");
    let before = session(&controller, "web-01");
    let image = copy_of(original.setup(), &controller, "web-02");
    let other = Machine {
        machine_id: "aaaabbbbccccddddeeeeffff00001111",
        boot_id: "11111111-2222-4333-8444-555555555555",
    };
    let Some(_process) = machine::run(&image, &other) else {
        return;
    };

    let event = poll::until("an event names both machines", 60 * SECOND, || {
        let events = controller.ctl().events("AGENT_CLONE_REFUSED")?;
        events.first().cloned().ok_or_else(|| "none".to_owned())
    });
    let own = std::fs::read_to_string("/etc/machine-id").expect("a machine id");
    let metadata = &event["metadata"];
    assert_eq!(metadata["machine_id"], own.trim(), "{event}");
    assert_eq!(metadata["refused_machine_id"], other.machine_id, "{event}");
    assert_eq!(metadata["refused_boot_id"], other.boot_id, "{event}");
    assert!(
        metadata["remote"]
            .as_str()
            .is_some_and(|remote| remote.starts_with("127.0.0.1:")),
        "{event}"
    );
    let shown = warnings(&controller, "web-01");
    assert!(shown.contains(other.machine_id), "{shown}");
    is_undisturbed(&controller, "web-01", &before).expect("undisturbed");
}

#[test]
fn of_two_machines_with_one_uuid_and_two_tokens_the_second_is_refused_and_keeps_its_token() {
    let controller = Controller::start();
    let original = original(&controller, "web-01");
    let before = session(&controller, "web-01");
    let second = controller.agent("web-02");
    let id = std::fs::read_to_string(original.setup().path("agent-id")).expect("an id");
    second.write("agent-id", &id);

    let refused = second.enroll();
    assert_ne!(refused.code, 0, "{refused}");
    assert!(
        refused.stderr.contains("ALREADY_EXISTS") || refused.stderr.contains("already enrolled"),
        "{refused}"
    );
    assert!(refused.stderr.contains("was not used up"), "{refused}");
    is_undisturbed(&controller, "web-01", &before).expect("undisturbed");

    // The token is as good as before, once the machine has an id of its own.
    std::fs::remove_file(second.path("agent-id")).expect("the id goes");
    second.enroll().expect_code(0);
}

#[test]
fn a_copy_takes_over_from_a_machine_that_is_gone() {
    let controller = Controller::start();
    let mut original = original(&controller, "web-01");
    let id = agent(&controller, "web-01")["id"].clone();
    let before = session(&controller, "web-01");
    original.kill();
    let _copy = copy_of(original.setup(), &controller, "web-01").start();
    poll::until("the copy is the agent", 20 * SECOND, || {
        let agent = controller.ctl().agent_is("web-01", "ONLINE")?;
        match agent["connection"]["sessionId"] == before || agent["id"] != id {
            true => Err(agent.to_string()),
            false => Ok(()),
        }
    });
    assert_eq!(controller.ctl().events("AGENT_CLONE_REFUSED").expect("events").len(), 0);
}

#[test]
fn a_copy_that_was_refused_leaves_the_agent_time_to_connect_again() {
    let controller = Controller::start_with(&ServerYaml::new().heartbeat("2s").to_string());
    let mut original = original(&controller, "web-01");
    original.kill();
    let answers = connect_all(&controller, original.setup(), 20, true);
    assert_eq!(answers, vec!["CloneDetected"; 20]);
    original.run();
    poll::until("the original is back", 20 * SECOND, || {
        match session(&controller, "web-01").is_null() {
            true => Err("not connected"),
            false => Ok(()),
        }
    });

    // It is gone for good: after four heartbeats a copy is better than nothing.
    original.kill();
    poll::until("a copy is let in", 40 * SECOND, || {
        match connect_all(&controller, original.setup(), 1, true)[0].as_str() {
            "admitted" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

#[test]
fn a_machine_that_freezes_is_replaced_and_refused_when_it_comes_back() {
    let controller = Controller::start_with(&ServerYaml::new().heartbeat("3s").to_string());
    let mut original = original(&controller, "web-01");
    let before = session(&controller, "web-01");
    original.process().signal(Signal::STOP);
    let _copy = copy_of(original.setup(), &controller, "web-01").start();
    let after = poll::until("the copy has taken over", 30 * SECOND, || {
        let after = session(&controller, "web-01");
        match after.is_null() || after == before {
            true => Err(after.to_string()),
            false => Ok(after),
        }
    });

    original.process().signal(Signal::CONT);
    poll::until("the first machine is told that it is a copy now", 60 * SECOND, || {
        says_it_is_a_copy(&original)
    });
    poll::until(
        "an operator is told that there are two",
        20 * SECOND,
        || match controller.ctl().events("AGENT_CLONE_SUSPECTED") {
            Ok(events) if events.is_empty() => Err("none".to_owned()),
            other => other,
        },
    );
    is_undisturbed(&controller, "web-01", &after).expect("the one that took over is undisturbed");
}

#[test]
fn an_agent_that_is_killed_and_started_again_is_never_taken_for_a_copy() {
    let controller = Controller::start();
    let mut agent = original(&controller, "web-01");
    for _ in 0..5 {
        let before = session(&controller, "web-01");
        agent.kill();
        agent.run();
        poll::until("it is back", 20 * SECOND, || {
            let after = session(&controller, "web-01");
            match after.is_null() || after == before {
                true => Err(after.to_string()),
                false => Ok(()),
            }
        });
    }
    for reason in ["AGENT_CLONE_REFUSED", "AGENT_CLONE_SUSPECTED"] {
        assert_eq!(controller.ctl().events(reason).expect("events").len(), 0, "{reason}");
    }
    assert_eq!(warnings(&controller, "web-01"), "null");
}
