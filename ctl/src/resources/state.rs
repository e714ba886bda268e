//! `musterctl state`: what the checks found, and whether that is still worth anything.

mod row;

use clap::{Args, Subcommand};
use muster_proto::v1;

use super::{LimitArgs, SelectorArgs, of_agents::AgentsArgs};
use crate::{
    app::Session,
    count, paging,
    problem::{Problem, status::Asked},
    watching,
};
pub use row::{COLUMNS, gone};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List states of checks
    ///
    /// In order of agent and check; with --problems the worst first. A state that is "stale" has had no result for longer than
    /// it should, one that is "unreachable" belongs to an agent that is offline: what is in brackets was, and may not be.
    /// TRY counts consecutive problems: one is "soft" until it has been seen as often as the check's attempts ask.
    #[command(
        after_help = "Examples:\n  musterctl state list --problems\n  musterctl state list -l env=prod --check disk-root\n  \
                            musterctl state list --agent db-01.fra -o wide"
    )]
    List(ListArgs),
    /// Print states as they change
    ///
    /// First the states that match now, then a row for every transition. After a lost connection the watch goes on where it
    /// was. With -o json every change is one object on one line. Ends with Ctrl-C.
    #[command(
        after_help = "Examples:\n  musterctl state watch --problems\n  musterctl state watch -l env=prod -o json | jq -c '[.state.agentName, .state.check, .state.state]'"
    )]
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    agents: AgentsArgs,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Of this agent only: its name or UUID
    #[arg(long, value_name = "AGENT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    agent: Option<String>,
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Debug, Clone, Args)]
struct WhichArgs {
    /// Of this check only
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    check: Option<String>,
    /// Only what is not known to be well: warning, critical, unknown, stale, unreachable
    #[arg(long)]
    problems: bool,
}

fn asked(verb: &str, agents: &[String], selector: &SelectorArgs) -> Asked {
    let mut what = format!("{verb} states");
    if let [agent] = agents {
        what.push_str(&format!(" of agent {agent}"));
    }
    Asked::new(what)
        .with_selector(selector.text())
        .listed_by("musterctl agent list, musterctl policy list")
        .by_command(format!("musterctl state {verb} --agent"))
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Watch(args) => watch(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let ListArgs { agents, which, limit } = args;
    let asked = asked("list", &agents.agents, &agents.selector);
    let client = session.connect(&asked).await?;
    // The API takes one agent beside the selector.
    let names = match agents.agents.as_slice() {
        [] => vec![String::new()],
        names => names.to_vec(),
    };
    let limit = limit.count();
    let mut joined: Option<v1::ListStatesResponse> = None;
    for agent in names {
        let list = paging::collect(limit, |page_size, page_token| {
            let request = v1::ListStatesRequest {
                selector: agents.selector.text(),
                agent: agent.clone(),
                check: which.check.clone().unwrap_or_default(),
                problems: which.problems,
                page_size,
                page_token,
                read_mask: None,
            };
            let call = async |request| client.states().list_states(request).await;
            client.call(&asked, call, request)
        })
        .await?;
        joined = Some(match joined {
            Some(joined) => together(joined, list),
            None => list,
        });
    }
    let mut list = joined.unwrap_or_default();
    list.items.truncate(limit.unwrap_or(usize::MAX));
    session.printer.list(&list.items, list.revision)?;
    session.printer.note(&footer(&list))?;
    Ok(())
}

/// The states of several agents, with what they add up to.
fn together(mut list: v1::ListStatesResponse, more: v1::ListStatesResponse) -> v1::ListStatesResponse {
    let (a, b) = (list.counts.unwrap_or_default(), more.counts.unwrap_or_default());
    list.counts = Some(v1::StateCounts {
        ok: a.ok + b.ok,
        warning: a.warning + b.warning,
        critical: a.critical + b.critical,
        unknown: a.unknown + b.unknown,
        pending: a.pending + b.pending,
        stale: a.stale + b.stale,
        unreachable: a.unreachable + b.unreachable,
    });
    list.total_size += more.total_size;
    list.items.extend(more.items);
    list
}

/// "3 problems in 41,820 states: 1 critical, 1 stale, 1 unreachable"
fn footer(list: &v1::ListStatesResponse) -> String {
    let counts = list.counts.unwrap_or_default();
    let problems = [
        (counts.critical, "critical"),
        (counts.warning, "warning"),
        (counts.unknown, "unknown"),
        (counts.stale, "stale"),
        (counts.unreachable, "unreachable"),
    ];
    let sum = |parts: &[(i32, &str)]| parts.iter().map(|(number, _)| i64::from(*number)).sum::<i64>();
    let bad = sum(&problems);
    let all = count::of(
        bad + i64::from(counts.ok) + i64::from(counts.pending),
        "state",
        "states",
    );
    let mut note = match count::parts(&problems) {
        Some(parts) => format!("{} in {all}: {parts}", count::of(bad, "problem", "problems")),
        // A name that was mistyped must not read as if all were well.
        None if counts == v1::StateCounts::default() => "no states match".to_owned(),
        None => format!("no problems in {all}"),
    };
    if counts.pending > 0 {
        note.push_str(&format!("; {} pending", count::grouped(i64::from(counts.pending))));
    }
    let shown = list.items.len() as i64;
    if shown < i64::from(list.total_size) {
        note.push_str(&format!("; the first {} are shown", count::grouped(shown)));
    }
    note
}

async fn watch(args: WatchArgs, session: &mut Session) -> Result<(), Problem> {
    let WatchArgs { selector, agent, which } = args;
    let asked = asked("watch", agent.as_slice(), &selector);
    let client = session.connect(&asked).await?;
    let open = |revision| {
        let client = client.clone();
        let request = v1::WatchStatesRequest {
            selector: selector.text(),
            agent: agent.clone().unwrap_or_default(),
            check: which.check.clone().unwrap_or_default(),
            problems: which.problems,
            revision,
        };
        async move { client.states().watch_states(client.endless(request)).await }
    };
    watching::run::<v1::WatchStatesResponse, _, _>(session, &client, &asked, open).await
}

#[cfg(test)]
mod tests;
