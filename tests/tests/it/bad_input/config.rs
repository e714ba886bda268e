//! An agent.yaml with something wrong, or with something forbidden.

use muster_tests::{
    Agent, Controller,
    poll::{self, SECOND},
};
use serde_json::json;

use super::{check, names, text};

#[test]
fn an_unknown_key_is_a_warning_in_the_inventory_and_under_allow_it_is_fatal() {
    let controller = Controller::start();
    let mut setup = controller.agent("web-01");
    setup.config["checks"] = json!({ "max_concurent": 5 });
    let mut agent: Agent = setup.start();
    let entry = controller.wait_for_agent("web-01", "ONLINE");
    assert!(entry["warnings"].to_string().contains("max_concurent"), "{entry}");
    agent.stop();

    let mut setup = controller.agent("web-02");
    setup.config["allow"] = json!({ "cheks": false });
    let mut agent = setup.start();
    let status = agent.process().wait(10 * SECOND);
    assert!(!status.success());
    assert!(
        agent.log().contains("cheks") && agent.log().contains("checks"),
        "{}",
        agent.log()
    );
    assert_eq!(names(&controller), ["web-01"]);
}

#[test]
fn an_agent_that_does_not_allow_checks_runs_none_and_says_so() {
    let controller = Controller::start();
    controller.apply(&check("disk", json!({ "disk": {} })));
    let mut setup = controller.agent("web-01");
    setup.config["allow"] = json!({ "checks": false });
    let _agent = setup.start();
    let report = poll::until("the agent refuses the policy", 20 * SECOND, || {
        let agent = controller.ctl().try_json(&["agent", "get", "web-01"])?;
        let reports = agent["policies"]["reports"].as_array().cloned().unwrap_or_default();
        reports.first().cloned().ok_or_else(|| agent.to_string())
    });
    assert_eq!(report["outcome"], "POLICY_OUTCOME_REFUSED", "{report}");
    assert!(text(&report, "reason").contains("allow"), "{report}");
}
