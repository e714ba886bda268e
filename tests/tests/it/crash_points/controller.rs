//! The controller is killed before each part of the commit of an enrollment: while it writes, before it syncs, and before it
//! answers. The machine waits, and asks again.

use muster_tests::{Controller, Process, agent::Setup, poll, poll::SECOND, strace::Strace};

use super::assert_enrolled_once;

/// Between one crash and the next, in calls: a commit writes two of the first for each page.
const SQLITE: [(&str, usize); 2] = [("pwrite64", 7), ("fsync,fdatasync", 1)];
/// What it says to the database.
const POSTGRES: [(&str, usize); 1] = [("sendto", 1)];
/// What it says to the machine.
const ANSWER: (&str, usize) = ("writev", 2);

const MANY: usize = 200;

#[test]
fn a_controller_killed_at_any_step_of_a_commit_enrolls_the_machine_when_it_is_back_with_one_use() {
    let mut controller = Controller::start();
    let Some(strace) = Strace::find(&controller.path("")) else {
        return;
    };
    let calls = match controller.database_url() {
        Some(_) => &POSTGRES[..],
        None => &SQLITE[..],
    };
    let mut setups = Vec::new();
    for &(call, step) in calls.iter().chain([&ANSWER]) {
        let before = setups.len();
        for nth in (1..MANY).step_by(step) {
            let name = call.split(',').next().unwrap_or_default();
            let setup = controller.agent(&format!("{name}-{nth}"));
            let was_killed = enroll_while_it_is_killed(&mut controller, &strace, &setup, call, nth);
            setups.push(setup);
            if !was_killed {
                break;
            }
        }
        println!("killed at {} of {call}", setups.len() - before - 1);
        assert!(setups.len() - before > 1, "nobody was killed at {call}");
    }
    assert_enrolled_once(&controller, &setups);
}

/// Whether it was killed before the machine was enrolled.
fn enroll_while_it_is_killed(
    controller: &mut Controller,
    strace: &Strace,
    setup: &Setup,
    call: &str,
    nth: usize,
) -> bool {
    let mut follower = strace.kill_running(controller.process(), call, nth);
    let mut enroll = Process::start("enroll", setup.command(&["enroll"]), setup.path("enroll.log"));
    poll::until("it is enrolled or the controller is dead", 60 * SECOND, || {
        match enroll.is_running() && controller.is_running() {
            true => Err("neither"),
            false => Ok(()),
        }
    });
    let was_killed = enroll.is_running();
    if !was_killed {
        follower.stop();
    }
    if !controller.is_running() {
        controller.run();
    }
    let ended = enroll.wait(60 * SECOND);
    assert!(ended.success(), "{}", enroll.output());
    was_killed
}
