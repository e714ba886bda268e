//! The agent is killed before each system call of an enrollment that leaves something behind: on disk, or at the controller.

use std::thread;

use muster_tests::{Controller, agent::Setup, ctl::Outcome, strace::Strace};

use super::assert_enrolled_once;

/// In what an enrollment does that anybody could see afterwards. That a file is made shows in what is done to it next.
const CALLS: [&str; 10] = [
    "mkdir,mkdirat",
    "ftruncate",
    "fchmod",
    "write",
    "fsync",
    "rename,renameat,renameat2",
    "connect",
    "writev",
    "recvfrom",
    "unlink,unlinkat",
];

/// More points than these would be a loop that does not end.
const MANY: usize = 100;

#[test]
fn an_agent_killed_at_any_step_of_its_enrollment_enrolls_with_the_use_it_had() {
    let controller = Controller::start();
    let Some(strace) = Strace::find(&controller.path("")) else {
        return;
    };
    let points: Vec<(&str, Vec<Setup>)> = thread::scope(|scope| {
        let killing = CALLS.map(|call| (call, scope.spawn(|| kill_at_each(&controller, &strace, call))));
        let ended = killing.map(|(call, points)| (call, points.join().expect("no panic")));
        ended.into_iter().collect()
    });
    for (call, setups) in &points {
        // The last one was not killed.
        assert!(setups.len() > 1, "nobody was killed at {call}");
    }
    let counts: Vec<String> = points
        .iter()
        .map(|(call, setups)| format!("{call} {}", setups.len() - 1))
        .collect();
    println!("killed at: {}", counts.join("; "));
    let mut setups: Vec<Setup> = points.into_iter().flat_map(|(_, setups)| setups).collect();
    assert_enrolled_once(&controller, &setups);

    let agents: Vec<_> = setups.drain(..).step_by(8).map(Setup::start).collect();
    for agent in &agents {
        let name = agent.setup().config["agent"]["name"].as_str().expect("a name");
        controller.wait_for_agent(name, "ONLINE");
    }
}

/// One machine for each call that there is, the last of which nobody killed.
fn kill_at_each(controller: &Controller, strace: &Strace, call: &str) -> Vec<Setup> {
    let name = call.split(',').next().unwrap_or_default();
    let mut setups = Vec::new();
    for nth in 1..MANY {
        let setup = controller.agent(&format!("{name}-{nth}"));
        let outcome = Outcome::of(strace.kill(&setup.command(&["enroll"]), call, nth));
        let was_killed = outcome.was_killed();
        if !was_killed {
            outcome.expect_code(0);
        }
        setup.enroll().expect_code(0);
        setups.push(setup);
        if !was_killed {
            return setups;
        }
    }
    panic!("an enrollment has more than {MANY} calls of {call}");
}
