//! `muster-agent enroll` on a machine that is not ready yet, or not alone: it waits for what passes, ends at what a person has to
//! mend, and may be run again and beside itself.

use muster_tests::{
    Controller, Process,
    agent::Setup,
    ctl::Outcome,
    poll::{self, SECOND},
};
use serde_json::{Value, json};

/// Exit codes, as in docs/exit-codes.md.
const DENIED: i32 = 4;
const TOO_LONG: i32 = 6;
const CONFLICT: i32 = 8;

/// `muster-agent enroll` that goes on beside the test, once it has said that it will try again.
fn waiting(setup: &Setup) -> Process {
    let process = Process::start("enroll", setup.command(&["enroll"]), setup.path("enroll.log"));
    poll::until("it says what it waits for", 20 * SECOND, || {
        let said = process.output();
        match said.contains("trying again in") {
            true => Ok(()),
            false => Err(said),
        }
    });
    process
}

#[track_caller]
fn json_lines(text: &str) -> Vec<Value> {
    let parsed: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    parsed.unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

#[test]
fn enroll_waits_for_a_controller_that_comes_later_and_uses_the_token_once() {
    let mut controller = Controller::start();
    let setup = controller.agent("web-01");
    controller.stop();
    let mut process = waiting(&setup);
    let said = process.output();
    assert!(said.contains(&controller.endpoint()), "{said}");
    controller.run();
    let status = process.wait(60 * SECOND);
    assert!(status.success(), "{}", process.output());
    assert!(process.output().contains("enrolled as agent"), "{}", process.output());

    let tokens = controller.ctl().items(&["token", "list", "--all"]).expect("tokens");
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    assert_eq!(tokens[0]["status"], "TOKEN_STATUS_USED_UP", "{tokens:?}");
    let again = setup.enroll().expect_code(0);
    assert!(again.stdout.contains("already enrolled"), "{again}");
}

#[test]
fn enroll_gives_up_when_its_time_is_over_and_says_what_was_in_the_way() {
    let controller = Controller::start();
    let setup = controller.agent("web-01").through("controller.invalid:8443");
    let outcome = Outcome::of(setup.command(&["enroll", "--timeout", "2s"])).expect_code(TOO_LONG);
    outcome
        .explains()
        .says(&["trying again in", "not enrolled after 2s", "controller.invalid:8443"]);

    // What it says for scripts is JSON from the first line to the last.
    let outcome = Outcome::of(setup.command(&["enroll", "--timeout", "2s", "-o", "json"])).expect_code(TOO_LONG);
    let lines = json_lines(&outcome.stderr);
    let (last, tries) = lines.split_last().expect("a line");
    assert!(!tries.is_empty(), "{outcome}");
    for attempt in tries {
        assert!(attempt["retryAfterMs"].is_u64(), "{outcome}");
    }
    assert_eq!(last["exitCode"], TOO_LONG, "{outcome}");
    assert_eq!(outcome.stdout, "", "{outcome}");
}

#[test]
fn enroll_ends_at_once_where_only_a_person_can_help() {
    let controller = Controller::start();
    let setup = controller.agent("web-01");
    let right = std::fs::read_to_string(setup.path("join-token")).expect("the token");
    setup.write_token(&format!("mst_{}_{}", "0".repeat(16), "0".repeat(64)));
    let outcome = Outcome::of(setup.command(&["enroll", "--timeout", "10m", "-o", "json"])).expect_code(DENIED);
    let lines = json_lines(&outcome.stderr);
    assert_eq!(lines.len(), 1, "{outcome}");
    assert_eq!(
        (&lines[0]["code"], &lines[0]["reason"], &lines[0]["exitCode"]),
        (&json!("UNAUTHENTICATED"), &json!("TOKEN_INVALID"), &json!(DENIED)),
        "{outcome}"
    );

    // Whoever writes the file may leave blanks and line ends around the token.
    setup.write_token(&format!("\n  {} \r\n\n", right.trim()));
    let outcome = Outcome::of(setup.command(&["enroll", "-o", "json"])).expect_code(0);
    let answer: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(answer["enrolledNow"], true, "{outcome}");
}

#[test]
fn of_two_enrollments_at_once_the_second_is_told_who_is_at_it() {
    let mut controller = Controller::start();
    let setup = controller.agent("web-01");
    controller.stop();
    let mut first = waiting(&setup);
    let second = setup.enroll().expect_code(CONFLICT);
    second.says(&[&format!("process {}", first.pid())]);
    controller.run();
    assert!(first.wait(60 * SECOND).success(), "{}", first.output());
    setup.enroll().expect_code(0);
}
