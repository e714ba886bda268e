//! `musterctl agent`: the inventory.

mod describe;
mod fork;
mod label;
mod row;
mod targets;
mod trust;

use clap::{Args, Subcommand};
use muster_proto::v1;

use super::{LimitArgs, SelectorArgs};
use crate::{
    app::Session,
    count, paging,
    problem::{Problem, status::Asked},
    watching,
};
pub use row::gone;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List agents
    ///
    /// In order of name. FOR is how long the status has lasted, SEEN when the agent was last heard of; a "?" marks a status
    /// from before the controller's own restart that the agent has not confirmed yet.
    #[command(
        after_help = "Examples:\n  musterctl agent list\n  musterctl agent list -l 'env=prod,role!=db' -o wide\n  \
                            musterctl agent list -o json | jq -r '.items[] | select(.status != \"AGENT_STATUS_ONLINE\") | .name'"
    )]
    List(ListArgs),
    /// Show all that is known of one agent
    ///
    /// Status, certificate, connection, labels with their sources, facts, what became of each policy, and its problems.
    #[command(
        after_help = "Examples:\n  musterctl agent get db-01.fra\n  musterctl agent get 7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21 -o yaml"
    )]
    Get(GetArgs),
    /// Print agents as they change
    ///
    /// First the agents that match now, then a row for every change. After a lost connection the watch goes on where it was.
    /// With -o json every change is one object on one line. Ends with Ctrl-C.
    #[command(
        after_help = "Examples:\n  musterctl agent watch -l env=prod\n  musterctl agent watch -o json | jq -c '[.type, .agent.name, .agent.status]'"
    )]
    Watch(WatchArgs),
    /// Set and remove labels of agents
    ///
    /// The first word is an agent, and further agents stand before the labels; with -l, --nodes-from or --all there are labels
    /// only. These are an operator's labels: they win over those of the token and over those the agent claims for itself.
    /// Removing one brings back what it covered.
    #[command(
        after_help = "Examples:\n  musterctl agent label db-01.fra role=db zone=eu\n  musterctl agent label db-01.fra zone-          # removes zone\n  \
                            musterctl agent label -l role=db tier=1\n  musterctl agent label --nodes-from rack7.txt rack=7"
    )]
    Label(label::LabelArgs),
    /// Let copies of an agent become agents of their own
    ///
    /// A machine that was copied with its agent is refused as long as the original answers. Within this window a copy gets
    /// an id, a certificate and an entry of its own instead, with the labels that the token gave the original.
    #[command(after_help = "Examples:\n  musterctl agent fork db-01.fra\n  musterctl agent fork db-01.fra --window 1d")]
    Fork(fork::ForkArgs),
    /// Make an entry for a machine that will enroll with a given id
    ///
    /// For those who make machines: name and labels are there before the machine is. Doing it again changes nothing but name
    /// and labels, so that a tool may run it at every apply.
    #[command(
        after_help = "Examples:\n  musterctl agent preregister --id 7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21 --name db-01.fra --label role=db"
    )]
    Preregister(trust::PreregisterArgs),
    /// End the trust in agents
    ///
    /// The link is cut at once, and none of the certificates is taken again. An agent stays in the inventory, and comes back
    /// only with a token for its id.
    #[command(
        after_help = "Examples:\n  musterctl agent revoke db-01.fra --reason 'the disk was stolen'\n  \
                            musterctl agent revoke --nodes-from stolen.txt"
    )]
    Revoke(trust::RevokeArgs),
    /// Let agents in again whose certificates expired too long ago
    ///
    /// An agent renews by itself for some time after its certificate has expired; after that it needs this. Not for one that
    /// was revoked.
    #[command(
        after_help = "Examples:\n  musterctl agent readmit db-01.fra\n  musterctl agent readmit db-01.fra --window 7d"
    )]
    Readmit(trust::ReadmitArgs),
    /// Revoke agents and take them out of the inventory
    ///
    /// With their states and their logs; what else they reported stays until its time has come. Their ids stay taken: agent
    /// preregister --revive gives one free.
    #[command(
        after_help = "Examples:\n  musterctl agent delete db-01.fra\n  musterctl agent delete -l env=test\n  \
                            terraform output -json ids | jq -r '.[]' | musterctl agent delete --nodes-from -"
    )]
    Delete(trust::DeleteArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// Name or UUID of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    selector: SelectorArgs,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Get(args) => get(args, session).await,
        Command::Watch(args) => watch(args, session).await,
        Command::Label(args) => label::run(args, session).await,
        Command::Fork(args) => fork::fork(args, session).await,
        Command::Preregister(args) => trust::preregister(args, session).await,
        Command::Revoke(args) => trust::revoke(args, session).await,
        Command::Readmit(args) => trust::readmit(args, session).await,
        Command::Delete(args) => trust::delete(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list agents").with_selector(args.selector.text());
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListAgentsRequest {
            selector: args.selector.text(),
            page_size,
            page_token,
            read_mask: None,
        };
        client.call(
            &asked,
            async |request| client.agents().list_agents(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, list.revision)?;
    session.printer.note(&footer(&list, args.selector.selector.is_some()))?;
    for warning in warnings(&list.items) {
        session.printer.note(&warning)?;
    }
    Ok(())
}

/// "2 of 3,004 agents match: 1 online, 1 offline."
fn footer(list: &v1::ListAgentsResponse, selected: bool) -> String {
    let number = i64::from(list.total_size);
    let mut note = if selected {
        let fleet = count::of(i64::from(list.fleet_size), "agent", "agents");
        format!(
            "{} of {fleet} {}",
            count::grouped(number),
            if number == 1 { "matches" } else { "match" }
        )
    } else {
        count::of(number, "agent", "agents")
    };
    if (list.items.len() as i64) < number {
        return format!(
            "{note}; the first {} are shown.",
            count::grouped(list.items.len() as i64)
        );
    }
    let having = |status| list.items.iter().filter(|agent| agent.status() == status).count() as i32;
    let counts = count::parts(&[
        (having(v1::AgentStatus::Online), "online"),
        (having(v1::AgentStatus::Late), "late"),
        (having(v1::AgentStatus::Offline), "offline"),
        (having(v1::AgentStatus::Pending), "pending"),
    ]);
    if let Some(counts) = counts {
        note.push_str(": ");
        note.push_str(&counts);
    }
    note + "."
}

/// What agents say of their own configuration, of a few of them.
fn warnings(agents: &[v1::Agent]) -> Vec<String> {
    const MOST: usize = 5;
    let all = || agents.iter().filter(|agent| !agent.warnings.is_empty());
    let mut notes: Vec<String> = all()
        .take(MOST)
        .map(|agent| format!("{} warns: {}", agent.name, agent.warnings.join("; ")))
        .collect();
    if let Some(more @ 1..) = all().count().checked_sub(MOST) {
        let agents = count::of(more as i64, "more agent warns", "more agents warn");
        notes.push(format!("{agents}; `musterctl agent list -o wide` shows them all"));
    }
    notes
}

async fn get(args: GetArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming(&args.agent, "get");
    let client = session.connect(&asked).await?;
    let request = v1::GetAgentRequest {
        agent: args.agent.clone(),
        read_mask: None,
    };
    let response = client
        .call(
            &asked,
            async |request| client.agents().get_agent(request).await,
            request,
        )
        .await?;
    let agent = response.agent.unwrap_or_default();
    // The counts are in the agent; which states they count is worth a second call only where a person reads.
    let mut problems = Vec::new();
    if session.printer.format == crate::output::Format::Table && describe::has_problems(&agent) {
        let request = v1::ListStatesRequest {
            agent: agent.id.clone(),
            problems: true,
            ..Default::default()
        };
        let asked = Asked::new(format!("list the problems of {}", agent.name));
        let list = client
            .call(
                &asked,
                async |request| client.states().list_states(request).await,
                request,
            )
            .await?;
        problems = list.items;
    }
    session
        .printer
        .item(&agent, |page, now| describe::describe(page, &agent, &problems, now))?;
    Ok(())
}

async fn watch(args: WatchArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("watch agents").with_selector(args.selector.text());
    let client = session.connect(&asked).await?;
    let open = |revision| {
        let client = client.clone();
        let request = v1::WatchAgentsRequest {
            selector: args.selector.text(),
            revision,
        };
        async move { client.agents().watch_agents(client.endless(request)).await }
    };
    watching::run::<v1::WatchAgentsResponse, _, _>(session, &client, &asked, open).await
}

fn naming(agent: &str, verb: &str) -> Asked {
    Asked::new(format!("{verb} agent {agent}"))
        .listed_by("musterctl agent list")
        .by_command(format!("musterctl agent {verb}"))
}

/// What has become of agents that were changed: the agent itself when one was named, else a list; and then what went wrong.
fn changed(
    agents: &[v1::Agent],
    is_one: bool,
    failed: Option<Problem>,
    note: impl Fn(&v1::Agent) -> String,
    session: &mut Session,
) -> Result<(), Problem> {
    match agents {
        [] if failed.is_some() => {}
        [agent] if is_one && !session.printer.format.is_table() => session.printer.item(agent, |_, _| ())?,
        agents if session.printer.format.is_table() => session.printer.table(agents)?,
        agents => {
            let revision = agents.iter().map(|agent| agent.revision).max().unwrap_or_default();
            session.printer.list(agents, revision)?;
        }
    }
    if let [agent] = agents {
        session.printer.note(&note(agent))?;
    } else if !agents.is_empty() {
        let number = agents.len() as i64;
        session
            .printer
            .note(&format!("{} changed", count::of(number, "agent", "agents")))?;
    }
    failed.map_or(Ok(()), Err)
}

/// As [`naming`], for those that may be several.
fn naming_all(names: &[String], verb: &str) -> Asked {
    match names {
        [agent] => naming(agent, verb),
        _ => Asked::new(format!("{verb} agents"))
            .listed_by("musterctl agent list")
            .by_command(format!("musterctl agent {verb}")),
    }
}

#[cfg(test)]
mod tests;
