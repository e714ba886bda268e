//! What agents report is there for those in whose scope the agents are, and for nobody else: not in a list, not by name, not in
//! a watch, not in a count.

use muster_proto::v1::{WatchEventType, WatchStatesRequest, state_service_client::StateServiceClient};
use muster_tests::{
    Controller, Ctl, dial,
    operators::Operator,
    poll::{self, SECOND},
};
use serde_json::json;

const CHECK: &str = "apiVersion: muster/v1\nkind: Check\nmetadata: { name: here }\nspec:\n  selector: \"*\"\n  \
                     schedule: { interval: 1s }\n  timeout: 1s\n  run: { command: [/bin/true] }\n";

/// All that shows something of what agents have reported, or of what happened to them.
const VIEWS: &[&[&str]] = &[
    &["agent", "list"],
    &["state", "list"],
    &["event", "list"],
    &["result", "list", "-l", "*"],
    &["history", "usage"],
    &["metric", "query", "node_load1"],
    &["log", "list"],
];

fn told(ctl: &Ctl, view: &[&str]) -> String {
    ctl.ok(&[view, &["-o", "json"]].concat()).stdout
}

#[test]
fn what_agents_out_of_scope_report_is_not_there() {
    let controller = Controller::start();
    controller.apply(CHECK);
    let [dev, prod] = ["dev-1", "prod-1"].map(|name| {
        let mut setup = controller.agent(name);
        setup.config["logs"]["agent"] = json!("info");
        setup.start()
    });
    let [dev_id, prod_id] = [("dev-1", &dev), ("prod-1", &prod)].map(|(name, agent)| {
        controller.wait_for_agent(name, "ONLINE");
        agent.id().expect("an id")
    });
    let admin = controller.ctl();
    admin.ok(&["agent", "label", "dev-1", "env=dev"]);
    let path = controller.path("dora.yaml").display().to_string();
    admin.ok(&[
        "user", "create", "dora", "--role", "viewer", "--scope", "env=dev", "--out", &path,
    ]);
    let dora = controller.ctl_as("dora.yaml");
    for view in VIEWS {
        poll::until("both agents have reported", 60 * SECOND, || {
            let all = told(&admin, view);
            match all.contains(&dev_id) && all.contains(&prod_id) {
                true => Ok(()),
                false => Err(format!("{view:?}: {all}")),
            }
        });
        let some = told(&dora, view);
        assert!(some.contains(&dev_id), "{view:?}: {some}");
        assert!(!some.contains(&prod_id) && !some.contains("prod-1"), "{view:?}: {some}");
    }
    for noun in ["state", "event", "result", "log"] {
        let named = dora.run(&[noun, "list", "--agent", "prod-1"]).expect_code(5);
        assert_eq!(named.stdout, "", "{named}");
    }
    let states = |ctl: &Ctl| ctl.items(&["state", "list"]).expect("states").len();
    assert_eq!((states(&admin), states(&dora)), (2, 1));

    let seen = |context: &str| {
        let identity = dial::operator(&controller.path(context));
        let seen = async {
            let operator = Operator::with(&controller, &identity).await;
            let mut watch = StateServiceClient::new(operator.service());
            let watch = watch.watch_states(WatchStatesRequest::default()).await;
            let mut watch = watch.expect("a watch").into_inner();
            let mut seen = Vec::new();
            while let Some(event) = watch.message().await.expect("an event") {
                if event.r#type() == WatchEventType::Synced {
                    break;
                }
                seen.extend(event.state.map(|state| state.agent_name));
            }
            seen.sort();
            seen
        };
        tokio::runtime::Runtime::new().expect("a runtime").block_on(seen)
    };
    assert_eq!(seen("tester.yaml"), ["dev-1", "prod-1"]);
    assert_eq!(seen("dora.yaml"), ["dev-1"]);
}
