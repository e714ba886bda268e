//! A script for POSIX sh that makes a machine an agent. The token is in a here-document: no argument, no environment.

use super::{Machine, files, install};

pub(super) fn render(machine: &Machine) -> String {
    let agent_id = machine
        .agent_id
        .map(|id| here(files::AGENT_ID, "0644", &format!("{id}\n")))
        .unwrap_or_default();
    format!(
        "\
#!/bin/sh
# {comment}
# Makes this machine an agent of Muster; run it as root. Running it again does no harm. It holds the token, a secret.
set -eu
umask 077
{functions}
[ \"$(id -u)\" = 0 ] || fail \"this has to be run as root\"

{install}
# A machine that is enrolled stays as it is.
if [ -s {identity} ]; then
  systemctl enable --now muster-agent
else
  [ -d /etc/muster ] || mkdir -m 0755 /etc/muster
{config}{agent_id}{token}  systemctl enable muster-agent
  systemctl restart muster-agent
fi
muster-agent wait --for=enrolled --timeout 5m
",
        comment = machine.comment,
        functions = install::FUNCTIONS,
        install = install::commands(&machine.install),
        identity = files::IDENTITY,
        config = here(files::CONFIG, "0644", &files::agent_yaml(machine)),
        token = here(files::TOKEN, "0600", &format!("{}\n", *machine.token.expose())),
    )
}

/// Writes a file of these lines.
fn here(path: &str, mode: &str, text: &str) -> String {
    format!("  write {path} {mode} <<'MUSTER_END'\n{text}MUSTER_END\n")
}
