//! What agents measure of themselves, as operators see it: how their certificates stand.

use std::time::UNIX_EPOCH;

use muster_certs::identity_file::IdentityFile;
use muster_tests::{
    Controller, Ctl, Proxy, ServerYaml,
    poll::{self, SECOND},
    proxy::Fault,
};
use serde_json::{Value, json};

const END: &str = "muster_agent_certificate_not_after_timestamp_seconds";
const BEHIND: &str = "muster_agent_certificate_renewal_behind";

/// The one series of the metric, once it is there.
fn value(ctl: &Ctl, metric: &str) -> Result<Value, String> {
    match ctl.items(&["metric", "query", metric])?.as_slice() {
        [value] => Ok(value.clone()),
        others => Err(format!("{} series of {metric}", others.len())),
    }
}

#[test]
fn the_end_of_an_agents_certificate_is_a_metric() {
    let controller = Controller::start();
    let agent = controller.agent("web-01").start();
    let end = poll::until("the metric is there", 30 * SECOND, || value(&controller.ctl(), END));
    let labels = &end["labels"];
    assert_eq!(
        (&labels["instance"], &labels["job"]),
        (&json!("web-01"), &json!("muster-agent")),
        "{end}"
    );
    let identity = IdentityFile::load(&agent.setup().path("state/identity.pem")).expect("an identity");
    let expires = identity.not_after().duration_since(UNIX_EPOCH).expect("a time");
    assert_eq!(end["value"].as_f64(), Some(expires.as_secs_f64()), "{end}");
    let behind = poll::until("the other one too", 30 * SECOND, || value(&controller.ctl(), BEHIND));
    assert_eq!(behind["value"].as_f64().unwrap_or_default(), 0.0, "{behind}");
}

#[test]
fn an_agent_that_could_not_renew_in_time_says_so_in_a_metric_and_in_its_status() {
    // Behind from 54 s on: a round of metrics, of which there is one each 15 s, comes before the end.
    let controller = Controller::start_with(&ServerYaml::new().agent_certificates("72s").to_string());
    let proxy = Proxy::to(&controller.endpoint());
    let agent = controller.agent("web-01").through(&proxy.endpoint()).start();
    controller.wait_for_agent("web-01", "ONLINE");
    // The link stays, and no other connection comes about.
    proxy.set(Fault::Refuse);
    poll::until("the metric says so", 100 * SECOND, || {
        let behind = value(&controller.ctl(), BEHIND)?;
        match behind["value"].as_f64() == Some(1.0) {
            true => Ok(()),
            false => Err(behind.to_string()),
        }
    });
    // It is written when the next attempt has failed, and each quarter of a minute.
    poll::until("its status says so", 20 * SECOND, || {
        let status = agent.status()?;
        let is_told = |told: &str| status["certificate"][told].is_string();
        match is_told("behindSince") && is_told("lastError") {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });

    proxy.set(Fault::Forward);
    poll::until("it has renewed and is behind no longer", 60 * SECOND, || {
        let status = agent.status()?;
        let behind = value(&controller.ctl(), BEHIND)?;
        let is_behind = behind["value"].as_f64() == Some(1.0);
        match is_behind || status["certificate"]["behindSince"].is_string() {
            true => Err(format!("{behind}\n{status}")),
            false => Ok(()),
        }
    });
}
