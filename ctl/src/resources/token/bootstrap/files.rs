//! The files of a machine that is to enroll: where they are and what is in them. The same whoever writes them.

use super::Machine;

pub(super) const TOKEN: &str = "/etc/muster/join-token";
pub(super) const CONFIG: &str = "/etc/muster/agent.yaml";
pub(super) const AGENT_ID: &str = "/etc/muster/agent-id";
pub(super) const IDENTITY: &str = "/var/lib/muster-agent/identity.pem";
pub(super) const UNIT: &str = "/etc/systemd/system/muster-agent.service";

/// The unit of the packages, without its comments: user data has little room.
pub(super) fn unit() -> String {
    let unit = include_str!("../../../../../deploy/systemd/muster-agent.service");
    let mut text = String::new();
    for line in unit.lines().filter(|line| !line.starts_with('#')) {
        if !(line.is_empty() && (text.is_empty() || text.ends_with("\n\n"))) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// `agent.yaml`: where the controller is and how to know it.
pub(super) fn agent_yaml(machine: &Machine) -> String {
    let list = |items: Vec<String>| {
        let quoted: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
        quoted.join(", ")
    };
    let endpoints = machine.endpoints.iter().map(ToString::to_string).collect();
    let pins = machine.pins.iter().map(ToString::to_string).collect();
    format!(
        "server:\n  endpoints: [{}]\n  ca_pin: [{}]\n  token_file: \"{TOKEN}\"\n",
        list(endpoints),
        list(pins)
    )
}

/// Every line that is not empty, so far to the right.
pub(super) fn indent(text: &str, by: usize) -> String {
    let mut indented = String::with_capacity(text.len());
    for line in text.lines() {
        if !line.is_empty() {
            indented.extend(std::iter::repeat_n(' ', by));
            indented.push_str(line);
        }
        indented.push('\n');
    }
    indented
}
