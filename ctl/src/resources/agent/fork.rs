//! `musterctl agent fork`: lets copies of an agent become agents of their own for a while.

use std::time::Duration;

use clap::Args;
use muster_proto::{duration, v1};

use super::{changed, naming};
use crate::{age, app::Session, problem::Problem};

#[derive(Debug, Args)]
pub struct ForkArgs {
    /// Name or UUID of the agent that others are copies of
    #[arg(value_name = "AGENT")]
    agent: String,
    /// How long copies may do so: 1m to 30d [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::parse_duration)]
    window: Option<Duration>,
}

pub async fn fork(args: ForkArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming(&args.agent, "fork");
    let client = session.connect(&asked).await?;
    let request = v1::ForkAgentRequest {
        agent: args.agent.clone(),
        window: args.window.map(duration::to_proto),
    };
    let call = async |request| client.agents().fork_agent(request).await;
    let agent = client.call(&asked, call, request).await?.agent.unwrap_or_default();
    let note = |agent: &v1::Agent| {
        format!(
            "copies of {} become agents of their own until {}; one that was refused comes back within five minutes",
            agent.name,
            age::moment(agent.fork_until.as_ref()).unwrap_or_default()
        )
    };
    changed(&[agent], true, None, note, session)
}
