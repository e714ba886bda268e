//! `musterctl wait`: until an agent is as it should be. For Terraform and CI, which go on when it is.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use muster_proto::{duration, error::ErrorReason, v1};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::{
    app::Session,
    client::Client,
    exit::Exit,
    output::Row as _,
    problem::{
        Problem,
        status::{self, Asked},
    },
};

/// How long it is waited when nothing is said.
const USUAL: Duration = Duration::from_secs(5 * 60);
/// Between two watches, when one has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Wait until something is as it should be
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Wait until an agent is online, runs its policies, or is gone
    ///
    /// Follows the agent's changes until then; --timeout is the whole time, five minutes unless given, and the exit code after it
    /// is 6. An agent that is not there is an error at once (5), save for --for absent; one that was pre-registered is there. With
    /// --allow-missing it may also appear while it is waited for. What is printed at the end is the agent.
    #[command(
        after_help = "Examples:\n  musterctl wait agent db-01.fra --for online --timeout 5m\n  \
                            musterctl wait agent 7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21 --for policy-applied --allow-missing\n  \
                            musterctl wait agent db-01.fra --for absent"
    )]
    Agent(WaitArgs),
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Name or UUID of the agent
    #[arg(value_name = "AGENT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    agent: String,
    /// online, policy-applied (online, and every assigned policy is applied) or absent
    #[arg(long = "for", value_name = "WHAT", value_enum, hide_possible_values = true)]
    goal: Goal,
    /// Wait for an agent that is not there yet, too
    #[arg(long)]
    allow_missing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    Online,
    PolicyApplied,
    Absent,
}

impl Goal {
    fn word(self) -> &'static str {
        match self {
            Goal::Online => "online",
            Goal::PolicyApplied => "policy-applied",
            Goal::Absent => "absent",
        }
    }

    /// Whether an agent, or none, is what is waited for.
    fn is_reached(self, agent: Option<&v1::Agent>) -> bool {
        let Some(agent) = agent else {
            return self == Goal::Absent;
        };
        // What the controller only remembers from before its restart is not known to be so.
        let is_online = agent.status() == v1::AgentStatus::Online && !agent.status_unconfirmed;
        match self {
            Goal::Online => is_online,
            Goal::PolicyApplied => {
                let policies = agent.policies.as_ref();
                is_online && policies.is_some_and(|policies| policies.applied >= policies.assigned)
            }
            Goal::Absent => false,
        }
    }
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    let Command::Agent(args) = command;
    let asked = Asked::new(format!("wait until agent {} is {}", args.agent, args.goal.word()))
        .listed_by("musterctl agent list")
        .by_command("musterctl wait agent");
    let limit = session.global().timeout.unwrap_or(USUAL);
    let end = Instant::now() + limit;
    let mut last = String::new();
    let reached = {
        let waiting = follow(&args, &asked, session, &mut last);
        timeout_at(end, waiting).await
    };
    match reached {
        Ok(agent) => {
            if let Some(agent) = agent? {
                if session.printer.format.is_table() {
                    session.printer.table(std::slice::from_ref(&agent))?;
                } else {
                    session.printer.item(&agent, |_, _| ())?;
                }
            }
            Ok(())
        }
        Err(_) => Err(Problem::new(
            Exit::DeadlinePassed,
            format!(
                "agent {} is not {} after {}",
                args.agent,
                args.goal.word(),
                duration::format(limit)
            ),
        )
        .what(asked.what())
        .why(match last.as_str() {
            "" => "nothing was heard of it".to_owned(),
            last => last.to_owned(),
        })
        .step(format!("see why: musterctl agent get {}", args.agent))
        .step(format!("or wait longer: --timeout {}", duration::format(limit * 2)))),
    }
}

/// Until it is reached. The watch begins at a revision from before the agent is looked at, so that nothing is missed in between.
async fn follow(
    args: &WaitArgs,
    asked: &Asked,
    session: &mut Session,
    last: &mut String,
) -> Result<Option<v1::Agent>, Problem> {
    let client = session.connect(asked).await?;
    let mut ever_seen = false;
    loop {
        let revision = revision(&client, asked).await?;
        let agent = get(&client, asked, &args.agent).await?;
        if agent.is_none() && args.goal != Goal::Absent && !args.allow_missing && !ever_seen {
            return Err(missing(args, asked));
        }
        ever_seen |= agent.is_some();
        progress(args, agent.as_ref(), session, last)?;
        if args.goal.is_reached(agent.as_ref()) {
            return Ok(agent);
        }
        let id = agent.map(|agent| agent.id);
        let ended = watch(args, &client, id, revision, session, last).await;
        match ended {
            Ok(End::Reached(agent)) => return Ok(agent.map(|agent| *agent)),
            Ok(End::Again) => {}
            Err(status) if is_for_good(&status) => return Err(client.problem(asked, &status)),
            // A controller that restarts, or changes that it no longer holds: the agent is looked at again.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

enum End {
    Reached(Option<Box<v1::Agent>>),
    /// The stream ended.
    Again,
}

async fn watch(
    args: &WaitArgs,
    client: &Client,
    mut id: Option<String>,
    revision: i64,
    session: &mut Session,
    last: &mut String,
) -> Result<End, Status> {
    let open = async |revision| {
        let request = v1::WatchAgentsRequest {
            selector: String::new(),
            revision,
        };
        client.agents().watch_agents(client.endless(request)).await
    };
    // Of a list from the beginning: whether the agent was in it.
    let mut listed = None;
    let mut stream = match open(revision).await {
        Ok(response) => response.into_inner(),
        // Who has a scope follows from the beginning, always.
        Err(status) if status::has_reason(&status, ErrorReason::RevisionGone) => {
            listed = Some(false);
            open(0).await?.into_inner()
        }
        Err(status) => return Err(status),
    };
    loop {
        let event = match stream.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(End::Again),
            Err(status) if status::has_reason(&status, ErrorReason::RevisionGone) => {
                listed = Some(false);
                stream = open(0).await?.into_inner();
                continue;
            }
            Err(status) => return Err(status),
        };
        if event.r#type() == v1::WatchEventType::Synced && listed.take() == Some(false) && args.goal.is_reached(None) {
            return Ok(End::Reached(None));
        }
        let Some(agent) = &event.agent else { continue };
        let is_meant = match &id {
            Some(id) => *id == agent.id,
            None => agent.name == args.agent || agent.id.eq_ignore_ascii_case(&args.agent),
        };
        if !is_meant {
            continue;
        }
        let now = match event.r#type() {
            v1::WatchEventType::Put => {
                id = Some(agent.id.clone());
                listed = listed.map(|_| true);
                Some(agent)
            }
            v1::WatchEventType::Delete => None,
            _ => continue,
        };
        // A note that cannot be written stops nothing.
        let _ = progress(args, now, session, last);
        if args.goal.is_reached(now) {
            return Ok(End::Reached(now.cloned().map(Box::new)));
        }
    }
}

/// That of the fleet now.
async fn revision(client: &Client, asked: &Asked) -> Result<i64, Problem> {
    let request = v1::ListAgentsRequest {
        page_size: 1,
        read_mask: Some(prost_types::FieldMask {
            paths: vec!["id".to_owned()],
        }),
        ..Default::default()
    };
    let call = async |request| client.agents().list_agents(request).await;
    Ok(client.call(asked, call, request).await?.revision)
}

async fn get(client: &Client, asked: &Asked, agent: &str) -> Result<Option<v1::Agent>, Problem> {
    let request = v1::GetAgentRequest {
        agent: agent.to_owned(),
        read_mask: None,
    };
    let call = async |request| client.agents().get_agent(request).await;
    match client.call(asked, call, request).await {
        Ok(response) => Ok(response.agent),
        Err(problem) if problem.exit == Exit::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Says on stderr how things stand, whenever that is something else than before.
fn progress(
    args: &WaitArgs,
    agent: Option<&v1::Agent>,
    session: &mut Session,
    last: &mut String,
) -> Result<(), Problem> {
    let line = match agent {
        None => format!("agent {} is not there", args.agent),
        Some(agent) => {
            let policies = agent.policies.clone().unwrap_or_default();
            let mut line = format!("agent {} is {}", agent.name(), word(agent.status()));
            if agent.status_unconfirmed {
                line.push_str(" by what was known before the controller's restart");
            }
            if args.goal == Goal::PolicyApplied {
                line.push_str(&format!(
                    ", with {} of {} policies applied",
                    policies.applied, policies.assigned
                ));
            }
            line
        }
    };
    if *last != line {
        session.printer.note(&line)?;
        *last = line;
    }
    Ok(())
}

fn word(status: v1::AgentStatus) -> &'static str {
    match status {
        v1::AgentStatus::Unspecified => "in an unknown status",
        v1::AgentStatus::Pending => "pending",
        v1::AgentStatus::Online => "online",
        v1::AgentStatus::Late => "late",
        v1::AgentStatus::Offline => "offline",
        v1::AgentStatus::Expected => "expected",
        v1::AgentStatus::Revoked => "revoked",
    }
}

fn missing(args: &WaitArgs, asked: &Asked) -> Problem {
    Problem::new(Exit::NotFound, format!("there is no agent {}", args.agent))
        .what(asked.what())
        .why("no agent of that name or UUID has enrolled or was pre-registered")
        .step("see what there is: musterctl agent list")
        .step("or wait for it to appear: --allow-missing")
}

/// Whether trying again would not help.
fn is_for_good(status: &Status) -> bool {
    matches!(
        status.code(),
        tonic::Code::InvalidArgument
            | tonic::Code::PermissionDenied
            | tonic::Code::Unauthenticated
            | tonic::Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_not_what_was_before_a_restart() {
        let agent = |status: v1::AgentStatus, applied, is_unconfirmed| v1::Agent {
            status: status.into(),
            status_unconfirmed: is_unconfirmed,
            policies: Some(v1::AgentPolicies {
                assigned: 2,
                applied,
                ..Default::default()
            }),
            ..Default::default()
        };
        let reached = |goal: Goal, agent: &v1::Agent| goal.is_reached(Some(agent));
        let online = agent(v1::AgentStatus::Online, 1, false);
        assert!(reached(Goal::Online, &online) && !reached(Goal::PolicyApplied, &online));
        assert!(reached(Goal::PolicyApplied, &agent(v1::AgentStatus::Online, 2, false)));
        assert!(!reached(
            Goal::PolicyApplied,
            &agent(v1::AgentStatus::Offline, 2, false)
        ));
        assert!(!reached(Goal::Online, &agent(v1::AgentStatus::Online, 2, true)));
        for goal in [Goal::Online, Goal::PolicyApplied] {
            assert!(!goal.is_reached(None));
        }
        assert!(Goal::Absent.is_reached(None) && !reached(Goal::Absent, &online));
    }
}
