//! The small forms of benches: what they check of their own figures holds, whatever these are.

use muster_tests::{binaries, ctl::Outcome, process, throughput, turn};
use serde_json::Value;

const ENROLLMENTS: usize = 300;

#[test]
fn every_enrollment_of_a_rush_outlives_the_controller_that_answered_it() {
    let _turn = turn::of_heavy_tests();
    let figures = throughput::measure(ENROLLMENTS);
    println!("{figures:#}");
    assert_eq!(figures["stored_after_kill"], ENROLLMENTS);
}

#[test]
fn a_plan_for_hundreds_of_agents_names_as_many_as_their_labels_mean() {
    let _turn = turn::of_heavy_tests();
    let figures = figures("plan-scale", &["300", "24"]);
    // Six times all, six times a third, and six of the eight zones with what of each is a third.
    assert_eq!(figures["assignments"], 6 * 300 + 6 * 100 + 226 + 75);
}

#[test]
fn operators_of_a_fleet_are_answered_and_every_watcher_is_told() {
    let _turn = turn::of_heavy_tests();
    let figures = figures("api-latency", &["300"]);
    assert_eq!(figures["page_size"], 300);
}

/// More than a page of them.
#[test]
fn the_command_line_lists_as_many_agents_as_a_bare_client() {
    let _turn = turn::of_heavy_tests();
    let figures = figures("ctl-speed", &["600"]);
    assert_eq!(figures["agents"], 600);
    for figure in ["nothing_ms", "version_ms", "list_one_ms", "bare_call_ms"] {
        assert!(figures["start"][figure].as_f64().is_some_and(|ms| ms > 0.0), "{figure}");
    }
    let ratio = &figures["list"]["ratio_of_json_to_bare"];
    assert!(ratio.as_f64().is_some_and(f64::is_normal), "{ratio}");
}

/// What a bench says.
fn figures(bench: &str, arguments: &[&str]) -> Value {
    let bench = binaries::path(bench);
    let mut command = process::command(&bench);
    // What it starts lies beside it.
    let beside = bench.parent().expect("it lies in a folder");
    command.args(arguments).env("MUSTER_TEST_BIN_DIR", beside);
    let outcome = Outcome::of(command).expect_code(0);
    println!("{}", outcome.stdout);
    serde_json::from_str(&outcome.stdout).expect("a document of JSON")
}
