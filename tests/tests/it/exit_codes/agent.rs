//! Those of `muster-agent`.

use muster_tests::{
    Agent, Controller, Process, Proxy,
    agent::Setup,
    ctl::Outcome,
    poll::{self, SECOND},
    ports,
    proxy::Fault,
};
use rustix::process::Signal;
use serde_json::json;

/// Each is expected below, by its number.
pub const CODES: &[i32] = &[0, 1, 2, 3, 4, 5, 6, 8, 130];

const CHECK: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: load }\nspec: { selector: \"*\", run: { load: { warning: \"1000\" } } }\n";

fn run(setup: &Setup, arguments: &[&str]) -> Outcome {
    Outcome::of(setup.command(arguments))
}

/// Until it ends with that code.
#[track_caller]
fn becomes(agent: &Agent, arguments: &[&str], code: i32) {
    poll::until(
        &format!("{arguments:?} ends with {code}"),
        20 * SECOND,
        || match agent.verb(arguments) {
            outcome if outcome.code == code => Ok(()),
            outcome => Err(outcome),
        },
    );
}

#[test]
fn muster_agent_ends_with_the_code_that_the_page_names() {
    let controller = Controller::start();
    controller.apply(CHECK);
    let mut setup = controller.agent("web-01");
    setup.config["allow"] = json!({ "checks": false });

    // Nothing has run here; a configuration without a mistake, and with one.
    run(&setup, &["config", "check"]).expect_code(0);
    run(&setup, &["status"]).expect_code(1).explains();
    setup.config["agnet"] = json!({});
    run(&setup, &["config", "check"]).expect_code(1);
    setup.config.as_object_mut().expect("an object").remove("agnet");
    // The command line; no token, no endpoint, no pin.
    run(&setup, &["enrol"]).expect_code(2);
    for part in ["token_file", "endpoints", "ca_pin"] {
        let mut lacking = controller.agent("lacking");
        lacking.config["server"]
            .as_object_mut()
            .expect("an object")
            .remove(part);
        run(&lacking, &["enroll", "--no-wait"]).expect_code(2).explains();
    }
    // Nobody is there; somebody who is not the one that the pin is of.
    let away = controller
        .agent("away")
        .through(&format!("127.0.0.1:{}", ports::free()));
    run(&away, &["enroll", "--no-wait"]).expect_code(3).explains();
    let mut mistaken = controller.agent("mistaken");
    mistaken.config["server"]["ca_pin"] = json!([format!("sha256:{}", "0".repeat(64))]);
    run(&mistaken, &["enroll", "--no-wait"]).expect_code(3).explains();
    // A token that is refused.
    let refused = controller.agent("refused");
    refused.write_token(&format!("mst_{}_{}", "0".repeat(16), "0".repeat(64)));
    run(&refused, &["enroll", "--no-wait"]).expect_code(4).explains();
    // It did not come about in time.
    run(&away, &["enroll", "--timeout", "1s"]).expect_code(6).explains();
    run(&setup, &["wait", "--timeout", "1s"]).expect_code(6).explains();

    // Enrolled now, and before.
    run(&setup, &["enroll"]).expect_code(0);
    run(&setup, &["enroll"]).expect_code(0);
    let again = controller.agent("again");
    again.write(
        "agent-id",
        &std::fs::read_to_string(setup.path("agent-id")).expect("an id"),
    );
    run(&again, &["enroll", "--no-wait"]).expect_code(8).explains();

    let mut agent = setup.start();
    becomes(&agent, &["status"], 0);
    // What this machine forbids, and what nobody has told it to run.
    becomes(&agent, &["check", "load"], 4);
    agent.verb(&["check", "load"]).explains();
    agent.verb(&["check", "nothing"]).expect_code(5).explains();
    // It is at its state directory.
    agent.verb(&["run"]).expect_code(8).explains();
    agent.verb(&["seal"]).expect_code(8).explains();
    agent.stop();
    agent.verb(&["status"]).expect_code(1);

    // It runs, and cannot connect.
    let nowhere = format!("127.0.0.1:{}", ports::free());
    agent.setup_mut().config["server"]["endpoints"] = json!([nowhere]);
    agent.setup_mut().config["allow"] = json!({ "endpoints": false });
    agent.run();
    becomes(&agent, &["status"], 3);
    becomes(&agent, &["check", "load"], 0);
}

#[test]
fn muster_agent_is_stopped_at_once_by_a_second_signal() {
    let controller = Controller::start();
    let proxy = Proxy::to(&controller.endpoint());
    let setup = controller.agent("web-01").through(&proxy.endpoint());
    let log = setup.path("agent.log");
    let mut agent = Process::start("agent", setup.command(&["run"]), log);
    controller.wait_for_agent("web-01", "ONLINE");
    // Its goodbye does not get through.
    proxy.set(Fault::Stall);
    agent.signal(Signal::TERM);
    poll::until("it stops", 20 * SECOND, || match agent.output() {
        output if output.contains("stopping") => Ok(()),
        output => Err(output),
    });
    agent.signal(Signal::INT);
    assert_eq!(agent.wait(20 * SECOND).code(), Some(130), "{}", agent.output());
}
