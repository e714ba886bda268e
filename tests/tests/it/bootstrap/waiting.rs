//! `muster-agent wait`, by which whatever sets machines up learns how that went.

use muster_tests::{
    Controller,
    poll::{self, SECOND},
};

/// The exit code of a wait that took too long.
const TOO_LONG: i32 = 6;

#[test]
fn a_wait_ends_as_soon_as_the_machine_is_enrolled_and_connected() {
    let controller = Controller::start();
    let agent = controller.agent("host").start();
    for goal in ["--for=enrolled", "--for=connected"] {
        agent.verb(&["wait", goal, "--timeout", "20s"]).expect_code(0);
    }
    controller.wait_for_agent("host", "ONLINE");
}

#[test]
fn a_wait_that_takes_too_long_says_what_keeps_the_machine() {
    let controller = Controller::start();
    let setup = controller.agent("host");
    let wait = ["wait", "--timeout", "1s"];
    let outcome = muster_tests::ctl::Outcome::of(setup.command(&wait)).expect_code(TOO_LONG);
    assert!(outcome.stderr.contains("the agent does not run"), "{outcome}");

    let wrong = format!("mst_{}_{}", "0".repeat(16), "0".repeat(64));
    setup.write_token(&wrong);
    let agent = setup.start();
    poll::until("the refusal is told", 20 * SECOND, || {
        let outcome = agent.verb(&wait).expect_code(TOO_LONG);
        if outcome.stderr.contains("TOKEN_INVALID") {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
}
