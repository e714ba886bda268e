//! `musterctl agent revoke`, `delete`, `readmit`, `preregister`: who is one of us, and who no longer.

use std::time::Duration;

use clap::Args;
use muster_proto::{duration, v1};

use super::naming;
use crate::{age, app::Session, problem::Problem, resources::token};

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Name or UUID of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Name or UUID of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
}

#[derive(Debug, Args)]
pub struct ReadmitArgs {
    /// Name or UUID of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// How long it may take to come back: 1m to 30d [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::parse_duration)]
    window: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct PreregisterArgs {
    /// The UUID that the machine will enroll with
    #[arg(long, value_name = "UUID")]
    id: String,
    /// What people call it [default: what the machine calls itself]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// A label of the machine; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = token::parse_label)]
    labels: Vec<(String, String)>,
    /// Though an agent with this id has enrolled without being pre-registered
    #[arg(long)]
    adopt: bool,
    /// Though an agent with this id was deleted
    #[arg(long)]
    revive: bool,
}

pub async fn revoke(args: RevokeArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming(&args.agent, "revoke");
    let client = session.connect(&asked).await?;
    let request = v1::RevokeAgentRequest {
        agent: args.agent.clone(),
        reason: args.reason,
    };
    let call = async |request| client.agents().revoke_agent(request).await;
    let agent = client.call(&asked, call, request).await?.agent.unwrap_or_default();
    show(&agent, session)?;
    session.printer.note(&format!(
        "to let it in again: musterctl token create --agent-id {} --allow-reenroll",
        agent.id
    ))?;
    Ok(())
}

pub async fn delete(args: DeleteArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming(&args.agent, "delete");
    let client = session.connect(&asked).await?;
    let request = v1::DeleteAgentRequest {
        agent: args.agent.clone(),
        revision: 0,
    };
    let call = async |request| client.agents().delete_agent(request).await;
    client.call(&asked, call, request).await?;
    session.printer.note(&format!("agent {} is deleted", args.agent))?;
    Ok(())
}

pub async fn readmit(args: ReadmitArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming(&args.agent, "readmit");
    let client = session.connect(&asked).await?;
    let request = v1::ReadmitAgentRequest {
        agent: args.agent.clone(),
        window: args.window.map(duration::to_proto),
    };
    let call = async |request| client.agents().readmit_agent(request).await;
    let agent = client.call(&asked, call, request).await?.agent.unwrap_or_default();
    show(&agent, session)?;
    session.printer.note(&format!(
        "{} may renew its certificate until {}; it asks by itself within five minutes",
        agent.name,
        age::moment(agent.readmit_until.as_ref()).unwrap_or_default()
    ))?;
    Ok(())
}

pub async fn preregister(args: PreregisterArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming(&args.id, "preregister");
    let client = session.connect(&asked).await?;
    let request = v1::PreregisterAgentRequest {
        id: args.id.clone(),
        name: args.name,
        labels: token::distinct(args.labels)?,
        adopt: args.adopt,
        revive: args.revive,
    };
    let call = async |request| client.agents().preregister_agent(request).await;
    let agent = client.call(&asked, call, request).await?.agent.unwrap_or_default();
    show(&agent, session)
}

fn show(agent: &v1::Agent, session: &mut Session) -> Result<(), Problem> {
    if session.printer.format.is_table() {
        session.printer.table(std::slice::from_ref(agent))?;
    } else {
        session.printer.item(agent, |_, _| ())?;
    }
    Ok(())
}
