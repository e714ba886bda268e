//! `musterctl agent revoke`, `delete`, `readmit`, `preregister`: who is one of us, and who no longer.

use std::time::Duration;

use clap::Args;
use muster_proto::{duration, v1};

use super::{
    changed, naming, naming_all,
    targets::{Target, TargetArgs, Targets},
};
use crate::{
    age,
    app::Session,
    problem::Problem,
    resources::{self, token},
};

#[derive(Debug, Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    targets: TargetArgs,
}

#[derive(Debug, Args)]
pub struct ReadmitArgs {
    #[command(flatten)]
    targets: TargetArgs,
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
    let TargetArgs { agents, chosen } = args.targets;
    let asked = naming_all(&agents, "revoke");
    let client = session.connect(&asked).await?;
    let targets = Targets::of(&agents, &chosen, &client, &asked, session).await?;
    let change = async |target: &Target| {
        let request = v1::RevokeAgentRequest {
            agent: target.agent.clone(),
            reason: args.reason.clone(),
        };
        let call = async |request| client.agents().revoke_agent(request).await;
        Ok(client.call(&asked, call, request).await?.agent.unwrap_or_default())
    };
    let (agents, failed) = targets.each(&asked, change).await;
    let note = |agent: &v1::Agent| {
        let id = &agent.id;
        format!("to let it in again: musterctl token create --agent-id {id} --allow-reenroll")
    };
    changed(&agents, targets.is_one, failed, note, session)
}

pub async fn delete(args: DeleteArgs, session: &mut Session) -> Result<(), Problem> {
    let TargetArgs { agents, chosen } = args.targets;
    let asked = naming_all(&agents, "delete");
    let client = session.connect(&asked).await?;
    let targets = Targets::of(&agents, &chosen, &client, &asked, session).await?;
    let change = async |target: &Target| {
        let request = v1::DeleteAgentRequest {
            agent: target.agent.clone(),
            revision: 0,
        };
        let call = async |request| client.agents().delete_agent(request).await;
        client.call(&asked, call, request).await?;
        Ok(v1::Agent {
            id: target.agent.clone(),
            name: target.name.clone(),
            ..Default::default()
        })
    };
    let (deleted, failed) = targets.each(&asked, change).await;
    if targets.is_one && !deleted.is_empty() {
        resources::deleted("agent", "agent", &targets.items[0].name, session)?;
    } else if session.printer.format.is_table() {
        for agent in &deleted {
            resources::deleted("agent", "agent", &agent.name, session)?;
        }
    } else if !deleted.is_empty() {
        session.printer.list(&deleted, 0)?;
    }
    failed.map_or(Ok(()), Err)
}

pub async fn readmit(args: ReadmitArgs, session: &mut Session) -> Result<(), Problem> {
    let TargetArgs { agents, chosen } = args.targets;
    let asked = naming_all(&agents, "readmit");
    let client = session.connect(&asked).await?;
    let targets = Targets::of(&agents, &chosen, &client, &asked, session).await?;
    let change = async |target: &Target| {
        let request = v1::ReadmitAgentRequest {
            agent: target.agent.clone(),
            window: args.window.map(duration::to_proto),
        };
        let call = async |request| client.agents().readmit_agent(request).await;
        Ok(client.call(&asked, call, request).await?.agent.unwrap_or_default())
    };
    let (agents, failed) = targets.each(&asked, change).await;
    let note = |agent: &v1::Agent| {
        format!(
            "{} may renew its certificate until {}; it asks by itself within five minutes",
            agent.name,
            age::moment(agent.readmit_until.as_ref()).unwrap_or_default()
        )
    };
    changed(&agents, targets.is_one, failed, note, session)
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
    changed(&[agent], true, None, |_| String::new(), session)
}
