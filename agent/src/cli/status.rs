//! `muster-agent status`: what the running agent wrote of itself, and whether it runs at all.

use std::{fmt::Write as _, io, process::ExitCode};

use super::{ConfigFile, Look};
use crate::{
    failure::{Exit, Failure},
    state_dir::StateDir,
    status::{self, Connection, State, Status},
};

/// Succeeds when the agent is connected.
pub(super) fn status(file: &ConfigFile, args: Look) -> Result<ExitCode, Failure> {
    let config = file.load(args.state_dir.as_deref())?;
    let state = StateDir::at(&config.agent.state_dir);
    let path = state.status();
    let mut status = status::read(&path).map_err(|error| {
        let failure = Failure::new(Exit::Failure, "no agent has run here").what(format!("read {}", path.display()));
        match error.kind() {
            io::ErrorKind::NotFound => failure
                .why("there is no such file")
                .remedy("start the agent, or give its state directory with --config FILE or --state-dir DIR"),
            io::ErrorKind::PermissionDenied => Failure {
                summary: "the agent's status is for its own user and root".into(),
                ..failure
            }
            .why(error.to_string())
            .remedy("run the same with sudo"),
            _ => Failure {
                summary: "the agent's status cannot be read".into(),
                ..failure
            }
            .why(error.to_string()),
        }
    })?;
    // An agent that was killed could not write that it stopped.
    if !state.is_locked() {
        status.connection.state = State::Stopped;
    }
    args.output.print(&status, || text(&status))?;
    Ok(match status.connection.state {
        State::Connected => ExitCode::SUCCESS,
        State::Stopped => ExitCode::from(Exit::Failure as u8),
        State::Starting | State::Enrolling | State::Connecting => ExitCode::from(Exit::Unreachable as u8),
    })
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key:<12}{value}");
        }
    };
    let connection = &status.connection;
    line(
        "agent",
        format!("{} {}", status.agent.name, status.agent.id).trim().to_owned(),
    );
    line(
        "version",
        format!("{}, process {} since {}", status.version, status.pid, status.started),
    );
    line("state", state(status));
    // The last word of an agent that has stopped is in its state.
    if connection.state != State::Stopped {
        line("as of", status.written.clone());
    }
    for (index, place) in status.endpoints.iter().enumerate() {
        let key = if index == 0 { "endpoints" } else { "" };
        line(key, format!("{}, {}", place.endpoint, place.source));
    }
    line("last error", connection.last_error.clone());
    line("last ack", connection.last_ack.clone());
    for queue in &status.queues {
        let mut what = format!("{} records, {} bytes", queue.records, queue.bytes);
        if queue.records > 0 {
            let _ = write!(what, ", oldest {} s", queue.oldest_age_seconds);
        }
        let _ = write!(
            what,
            "; {} acknowledged, {} dropped, {} rejected",
            queue.acknowledged, queue.dropped, queue.rejected
        );
        if !queue.in_memory.is_empty() {
            let _ = write!(what, "; in memory, since the disk takes nothing: {}", queue.in_memory);
        }
        line(&queue.name, what);
    }
    let policies = &status.policies;
    line(
        "policies",
        format!(
            "{} applied, {} not applied",
            policies.applied,
            policies.not_applied.len()
        ),
    );
    for policy in &policies.not_applied {
        line(
            "",
            format!("{} {}: {}: {}", policy.kind, policy.name, policy.outcome, policy.reason),
        );
    }
    if let Some(certificate) = &status.certificate {
        line(
            "certificate",
            format!("{} good until {}", certificate.serial, certificate.expires),
        );
    }
    for warning in &status.warnings {
        line("warning", warning.clone());
    }
    text
}

fn state(status: &Status) -> String {
    let connection = &status.connection;
    match connection.state {
        State::Connected => {
            format!(
                "connected to {} at {} since {}",
                connection.controller,
                place(connection),
                connection.since
            )
        }
        State::Connecting => format!("connecting to {} since {}", place(connection), connection.since),
        State::Enrolling => format!("enrolling since {}", connection.since),
        State::Starting => "starting".to_owned(),
        State::Stopped => format!("stopped; last heard of at {}", status.written),
    }
}

fn place(connection: &Connection) -> String {
    match connection.proxy.as_str() {
        "" => connection.endpoint.clone(),
        proxy => format!("{} through the proxy {proxy}", connection.endpoint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_is_wrong_and_leaves_out_what_is_not_known() {
        let place = |endpoint: &str, source: &str| status::Place {
            endpoint: endpoint.into(),
            source: source.into(),
        };
        let status = Status {
            version: "0.1.0".into(),
            pid: 7,
            started: "2026-01-02T03:04:05Z".into(),
            written: "2026-01-02T03:05:05Z".into(),
            agent: status::Agent {
                name: "db-01".into(),
                ..Default::default()
            },
            connection: status::Connection {
                state: State::Connecting,
                since: "2026-01-02T03:04:06Z".into(),
                endpoint: "a:1".into(),
                proxy: "http://proxy.example:3128".into(),
                last_error: "a:1: no answer".into(),
                ..Default::default()
            },
            endpoints: vec![place("a:1", "configured"), place("b:1", "told by the controller")],
            certificate: None,
            queues: vec![],
            policies: status::Policies {
                not_applied: vec![status::NotApplied {
                    kind: "Check".into(),
                    name: "load".into(),
                    version: 1,
                    outcome: "refused".into(),
                    reason: "its signature does not fit".into(),
                }],
                ..Default::default()
            },
            warnings: vec!["agent.yaml:3: unknown key \"x\"".into()],
        };
        assert_eq!(
            text(&status),
            "agent       db-01\n\
             version     0.1.0, process 7 since 2026-01-02T03:04:05Z\n\
             state       connecting to a:1 through the proxy http://proxy.example:3128 since 2026-01-02T03:04:06Z\n\
             as of       2026-01-02T03:05:05Z\n\
             endpoints   a:1, configured\n\
             \x20           b:1, told by the controller\n\
             last error  a:1: no answer\n\
             policies    0 applied, 1 not applied\n\
             \x20           Check load: refused: its signature does not fit\n\
             warning     agent.yaml:3: unknown key \"x\"\n"
        );
    }
}
