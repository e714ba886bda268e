//! The agent on a disk that takes nothing: its checks go on, and what they find arrives.

use muster_tests::{Agent, Controller, SmallDisk, small_disk};

use super::{FILE, PATIENCE, all_arrived, poll, stored, told};
use crate::counting;

/// A controller with one agent that counts, and the disk that its state directory is.
fn start() -> (Controller, SmallDisk, Agent) {
    let controller = Controller::start();
    counting::apply(&controller, FILE);
    let setup = controller.agent("host");
    let disk = SmallDisk::at(&setup.path("state"), "size=32m");
    let agent = setup.start();
    controller.wait_for_agent("host", "ONLINE");
    stored(&agent, 2);
    (controller, disk, agent)
}

fn runs(controller: &Controller, more: u64) {
    let before = counting::runs(controller, FILE);
    poll::until("checks run", PATIENCE, || {
        let now = counting::runs(controller, FILE);
        if now >= before + more { Ok(()) } else { Err(now) }
    });
}

/// Its status is in a file on that disk, so the log has to do.
fn says(agent: &Agent, text: &str) {
    poll::until(&format!("the agent says: {text}"), PATIENCE, || {
        let log = agent.log();
        if log.contains(text) { Ok(()) } else { Err(log) }
    });
}

#[test]
fn an_agent_whose_disk_fills_goes_on_in_memory_and_loses_nothing() {
    small_disk::alone("an agent on a full disk", || {
        let (mut controller, disk, agent) = start();
        controller.stop();
        runs(&controller, 2);
        disk.leave_free(0.0);
        says(&agent, "it stays in memory lane=\"results\"");
        runs(&controller, 4);
        disk.make_room();
        says(&agent, "records of lane results are on disk again");
        runs(&controller, 2);
        controller.run();
        controller.wait_for_agent("host", "ONLINE");
        all_arrived(&controller, agent);
        told(&controller, "AGENT_QUEUE_IN_MEMORY");
        told(&controller, "AGENT_QUEUE_ON_DISK");
    });
}

#[test]
fn an_agent_that_starts_on_a_disk_that_is_read_only_works_and_is_back_on_it_later() {
    small_disk::alone("an agent on a disk that is read-only", || {
        let (mut controller, disk, mut agent) = start();
        controller.stop();
        runs(&controller, 3);
        agent.stop();
        disk.remount("ro");
        let before = counting::runs(&controller, FILE);
        agent.run();
        runs(&controller, 3);
        controller.run();
        controller.wait_for_agent("host", "ONLINE");
        disk.remount("rw");
        says(&agent, "records of lane results are on disk again");
        runs(&controller, 2);
        told(&controller, "AGENT_QUEUE_ON_DISK");
        agent.stop();
        let stored = counting::stored(&controller, &agent.id().expect("an id"));
        let mut once = stored.clone();
        once.dedup();
        assert_eq!(stored, once, "nothing is there twice");
        // Two ends of the agent have each cut off a run at most.
        let made = counting::runs(&controller, FILE);
        let missing: Vec<u64> = (1..=made).filter(|count| !stored.contains(count)).collect();
        let excused = |count: &&u64| **count == before || **count == before + 1 || **count >= made;
        assert!(
            missing.iter().all(|count| excused(&count)),
            "{missing:?} of {made} are missing"
        );
    });
}
