//! The life of an agent's certificate through the real binaries: renewed, late, expired, revoked, deleted; what the agent and
//! its operator see of it, and what a connection is told that shows one that does not count. Lives are of ten seconds here.

mod absence;
mod revocation;
mod standings;

use std::time::SystemTime;

use muster_certs::identity_file::IdentityFile;
use muster_tests::{
    Agent, Controller, ServerYaml,
    peer::{self, Peer},
    poll::{self, SECOND},
};
use serde_json::Value;

/// Certificates of ten seconds, and this much grace after their end.
fn controller(grace: &str) -> Controller {
    let settings = ServerYaml::new().agent_certificates("10s").grace(grace).heartbeat("1s");
    Controller::start_with(&settings.to_string())
}

/// An agent that was online and has stopped.
fn stopped(controller: &Controller, name: &str) -> Agent {
    let mut agent = controller.agent(name).start();
    controller.wait_for_agent(name, "ONLINE");
    agent.stop();
    controller.wait_for_agent(name, "OFFLINE");
    agent
}

fn identity(agent: &Agent) -> IdentityFile {
    peer::load(&agent.setup().path("state/identity.pem"))
}

/// Waits until so many seconds have gone since the end of a certificate.
fn wait_for_end(identity: &IdentityFile, seconds: u32) {
    let end = identity.not_after() + seconds * SECOND;
    poll::until("the certificate has ended", 40 * SECOND, || {
        match end.duration_since(SystemTime::now()) {
            Ok(left) => Err(format!("{left:?} are left")),
            Err(_) => Ok(()),
        }
    });
}

/// Waits until the agent has said this.
#[track_caller]
fn wait_for_log(agent: &Agent, text: &str, times: usize) {
    poll::until(text, 30 * SECOND, || match agent.log().matches(text).count() {
        count if count < times => Err(agent.log()),
        _ => Ok(()),
    });
}

fn event(controller: &Controller, reason: &str) -> Value {
    poll::until(reason, 20 * SECOND, || {
        let events = controller.ctl().events(reason)?;
        events.first().cloned().ok_or_else(|| "no event".to_owned())
    })
}

/// A machine of a test that has enrolled.
fn enrolled(controller: &Controller, name: &str) -> IdentityFile {
    let machine = Peer::new(name);
    let answer = machine.enroll(controller, &controller.token(&[]).secret);
    machine.identity(answer.expect("it enrolls").certificates)
}

/// Status by serial, of all certificates of an agent.
fn listed(controller: &Controller, name: &str) -> Vec<(String, String)> {
    let list = controller.ctl().items(&["cert", "list", "--agent", name, "--all"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = list.expect("a list");
    list.iter()
        .map(|it| (text(&it["serial"]), text(&it["status"])))
        .collect()
}
