//! The controller on a disk that fills: what it takes less of, what operators can still do, and that nothing is lost.

use muster_tests::{Agent, Controller, ServerYaml, SmallDisk, poll, small_disk};
use serde_json::Value;

use super::counting;

const FILE: &str = "host";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A controller on a small disk of its own with one agent that counts.
fn start() -> (Controller, SmallDisk, Agent) {
    let settings = ServerYaml::new().heartbeat("1s").to_string();
    let (mut controller, disk) = Controller::set_up_on("size=64m", &settings);
    controller.run();
    counting::apply(&controller, FILE);
    let agent = controller.agent("host").start();
    controller.wait_for_agent("host", "ONLINE");
    stored(&controller, &agent, 2);
    (controller, disk, agent)
}

/// Until so many more results are acknowledged than now.
fn stored(_controller: &Controller, agent: &Agent, more: u64) {
    let acknowledged = || Ok::<u64, String>(counting::results(&agent.status()?, "acknowledged"));
    let before = poll::until("the agent has a status", PATIENCE, acknowledged);
    poll::until("results are stored", PATIENCE, || {
        let now = acknowledged()?;
        if now >= before + more {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
}

fn waiting(agent: &Agent, queue: &str) -> Result<u64, String> {
    let status = agent.status()?;
    let queues = status["queues"].as_array().ok_or("no queues")?;
    let queue = queues.iter().find(|it| it["name"] == queue).ok_or("no such queue")?;
    queue["records"].as_u64().ok_or_else(|| status.to_string())
}

fn more_wait(agent: &Agent, queue: &str, count: u64) {
    poll::until(&format!("{queue} wait with the agent"), PATIENCE, || {
        let now = waiting(agent, queue)?;
        if now >= count { Ok(()) } else { Err(now.to_string()) }
    });
}

fn told(controller: &Controller, reason: &str) -> Value {
    poll::until(&format!("the event {reason}"), PATIENCE, || {
        let events = controller.ctl().events(reason)?;
        events.first().cloned().ok_or_else(|| "not yet".to_owned())
    })
}

fn all_arrived(controller: &Controller, mut agent: Agent) {
    for queue in ["results", "metrics"] {
        poll::until(&format!("nothing of {queue} waits any longer"), PATIENCE, || {
            let now = waiting(&agent, queue)?;
            if now <= 1 { Ok(()) } else { Err(now.to_string()) }
        });
    }
    agent.stop();
    let stored = counting::stored(controller, &agent.id().expect("an id"));
    let mut once = stored.clone();
    once.dedup();
    assert_eq!(stored, once, "nothing is there twice");
    // The run that the agent's end has cut off has no result.
    let made = counting::runs(controller, FILE);
    let missing: Vec<u64> = (1..made).filter(|count| !stored.contains(count)).collect();
    assert!(missing.is_empty(), "{missing:?} of {made} are missing");
}

#[test]
fn a_disk_that_fills_is_given_less_and_less_and_gets_everything_when_there_is_room() {
    small_disk::alone("a controller on a full disk", || {
        let (controller, disk, agent) = start();
        let ballast = controller.data_dir().join("ballast");
        assert!(ballast.exists());

        disk.leave_free(8.0);
        let low = told(&controller, "DISK_LOW");
        assert_eq!(low["severity"], "EVENT_SEVERITY_WARNING", "{low}");
        more_wait(&agent, "metrics", 2);
        stored(&controller, &agent, 3);

        disk.leave_free(3.0);
        told(&controller, "DISK_FULL");
        more_wait(&agent, "results", 5);
        controller.wait_for_agent("host", "ONLINE");

        disk.make_room();
        told(&controller, "DISK_OK");
        all_arrived(&controller, agent);
        let log = controller.log();
        assert_eq!(log.matches("agent disconnected").count(), 1, "links stay: {log}");
    });
}
