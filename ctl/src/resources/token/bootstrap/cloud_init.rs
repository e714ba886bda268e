//! User data for cloud-init: `#cloud-config`, in YAML 1.1. Its last command waits until the machine is enrolled, so that
//! `cloud-init status` says whether it is.

use super::{
    Machine, files,
    install::{self, Install},
};

/// Of a machine that installs the program from a URL.
const INSTALL_SCRIPT: &str = "/etc/muster/install-agent.sh";

pub(super) fn render(machine: &Machine) -> String {
    let id = machine.agent_id.map(|id| id.to_string());
    format!(
        "#cloud-config\n# {}\n{}",
        machine.comment,
        body(machine, &machine.token.expose(), id.as_deref())
    )
}

/// All below the first lines, with the token and the id as they are to stand there, in double quotes.
pub(super) fn body(machine: &Machine, token: &str, agent_id: Option<&str>) -> String {
    let mut text = String::new();
    if machine.install == Install::Apt {
        text.push_str("package_update: true\npackages: [\"muster-agent\"]\n");
    }
    text.push_str("write_files:\n");
    text.push_str(&file(files::CONFIG, "0644", &block(&files::agent_yaml(machine))));
    if let Some(id) = agent_id {
        text.push_str(&file(files::AGENT_ID, "0644", &format!("\"{id}\\n\"\n")));
    }
    text.push_str(&file(files::TOKEN, "0600", &format!("\"{token}\\n\"\n")));
    if matches!(machine.install, Install::Url { .. }) {
        text.push_str(&file(INSTALL_SCRIPT, "0700", &block(&install_script(&machine.install))));
    }
    text.push_str("runcmd:\n");
    if matches!(machine.install, Install::Url { .. }) {
        text.push_str(&command(&["sh", INSTALL_SCRIPT]));
    }
    text.push_str(&command(&["systemctl", "enable", "muster-agent"]));
    text.push_str(&command(&["systemctl", "restart", "muster-agent"]));
    text.push_str(&command(&["muster-agent", "wait", "--for=enrolled", "--timeout", "5m"]));
    text
}

fn file(path: &str, mode: &str, content: &str) -> String {
    format!("  - path: \"{path}\"\n    owner: \"root:root\"\n    permissions: '{mode}'\n    content: {content}")
}

/// A block of lines, as the value of a key that is four blanks to the right.
fn block(text: &str) -> String {
    format!("|\n{}", files::indent(text, 6))
}

/// cloud-init quotes each word for the shell that it writes the commands for.
fn command(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("  - [{}]\n", quoted.join(", "))
}

fn install_script(install: &Install) -> String {
    format!(
        "#!/bin/sh\nset -eu\numask 077\n{}{}",
        install::FUNCTIONS,
        install::commands(install)
    )
}
