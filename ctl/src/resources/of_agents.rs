//! `-l` and `--agent`, the same wherever what is listed belongs to agents. Where the API takes one agent only, the agents are
//! found first and asked for one by one.

use std::{cmp::Reverse, collections::BTreeSet};

use muster_proto::v1;

use super::SelectorArgs;
use crate::{
    client::Client,
    exit::Exit,
    paging::{self, Page},
    problem::{Problem, status::Asked},
};

/// More agents than these are not asked for one by one.
const MOST: usize = 1_000;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct AgentsArgs {
    #[command(flatten)]
    pub selector: SelectorArgs,
    /// Of this agent only, by name or UUID; may be repeated
    #[arg(long = "agent", value_name = "AGENT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub agents: Vec<String>,
}

impl AgentsArgs {
    pub fn is_everything(&self) -> bool {
        self.agents.is_empty() && self.selector.selector.is_none()
    }

    /// What the API is to be asked for, one after the other. None: for all at once.
    pub async fn named(&self, client: &Client, asked: &Asked) -> Result<Option<Vec<String>>, Problem> {
        if self.is_everything() {
            return Ok(None);
        }
        if self.selector.selector.is_none() {
            let mut known = BTreeSet::new();
            let agents = self.agents.iter().filter(|agent| known.insert(agent.as_str()));
            return Ok(Some(agents.cloned().collect()));
        }
        let found = find(client, asked, &self.selector.text(), Some(MOST)).await?;
        let is_wanted = |agent: &v1::Agent| {
            let is = |name: &String| *name == agent.name || *name == agent.id;
            self.agents.is_empty() || self.agents.iter().any(is)
        };
        let wanted = found.into_iter().filter(is_wanted);
        Ok(Some(wanted.map(|agent| agent.id).collect()))
    }

    /// The UUIDs of those of `--agent`, for an answer of which the others are left out here. None: nothing is left out.
    pub async fn ids(&self, client: &Client) -> Result<Option<BTreeSet<String>>, Problem> {
        if self.agents.is_empty() {
            return Ok(None);
        }
        let mut ids = BTreeSet::new();
        for agent in &self.agents {
            ids.insert(look_up(client, agent).await?.id);
        }
        Ok(Some(ids))
    }

    /// The lists of all that are wanted, one behind the other in the first; `fetch` is given an agent, or "" for all at once.
    pub async fn collect<P, F, Pending>(
        &self,
        client: &Client,
        asked: &Asked,
        limit: Option<usize>,
        fetch: F,
    ) -> Result<P, Problem>
    where
        P: Page + Default,
        F: Fn(String, i32, String) -> Pending,
        Pending: Future<Output = Result<P, Problem>>,
    {
        let agents = self.named(client, asked).await?.unwrap_or_else(|| vec![String::new()]);
        let mut joined: Option<P> = None;
        for agent in agents {
            let mut list = paging::collect(limit, |size, token| fetch(agent.clone(), size, token)).await?;
            match &mut joined {
                Some(joined) => {
                    joined.items().append(list.items());
                    if !list.next_page_token().is_empty() {
                        joined.set_next_page_token(list.next_page_token().to_owned());
                    }
                }
                None => joined = Some(list),
            }
        }
        Ok(joined.unwrap_or_default())
    }

    /// The newest of all that are wanted, as many as the limit says, and whether there are more.
    pub async fn newest<P, F, Pending>(
        &self,
        client: &Client,
        asked: &Asked,
        limit: Option<usize>,
        fetch: F,
        time: impl Fn(&P::Item) -> Option<prost_types::Timestamp>,
    ) -> Result<(P, bool), Problem>
    where
        P: Page + Default,
        F: Fn(String, i32, String) -> Pending,
        Pending: Future<Output = Result<P, Problem>>,
    {
        let mut list = self.collect(client, asked, limit, fetch).await?;
        let items = list.items();
        items.sort_by_key(|item| Reverse(time(item).map(|time| (time.seconds, time.nanos))));
        let is_cut = limit.is_some_and(|limit| items.len() > limit);
        items.truncate(limit.unwrap_or(usize::MAX));
        let has_more = is_cut || !list.next_page_token().is_empty();
        Ok((list, has_more))
    }

    /// For a call that takes a selector itself: who is asked for one by one all the same, and the selector.
    pub fn at_once(&self) -> (AgentsArgs, String) {
        let one_by_one = AgentsArgs {
            agents: self.agents.clone(),
            ..AgentsArgs::default()
        };
        (one_by_one, self.selector.text())
    }
}

/// Names and UUIDs of the agents that match.
pub async fn find(
    client: &Client,
    asked: &Asked,
    selector: &str,
    most: Option<usize>,
) -> Result<Vec<v1::Agent>, Problem> {
    let list = paging::collect(most, |page_size, page_token| {
        let request = v1::ListAgentsRequest {
            selector: selector.to_owned(),
            page_size,
            page_token,
            read_mask: Some(names_only()),
        };
        let call = async |request| client.agents().list_agents(request).await;
        client.call(asked, call, request)
    })
    .await?;
    let total = usize::try_from(list.total_size).unwrap_or_default();
    match most {
        Some(most) if total > most => Err(Problem::new(Exit::Usage, format!("{total} agents match"))
            .what(asked.what())
            .why(format!(
                "the controller is asked for each of them by itself, which is done for {most} at most"
            ))
            .step("narrow the selector down, or name the agents: --agent NAME")),
        _ => Ok(list.items),
    }
}

/// One agent, before anything is done with it. That there are several of that name is an error, which lists their UUIDs.
pub async fn look_up(client: &Client, agent: &str) -> Result<v1::Agent, Problem> {
    let asked = Asked::new(format!("find agent {agent}"))
        .listed_by("musterctl agent list")
        .by_command("musterctl agent get");
    let request = v1::GetAgentRequest {
        agent: agent.to_owned(),
        read_mask: Some(names_only()),
    };
    let call = async |request| client.agents().get_agent(request).await;
    let response = client.call(&asked, call, request).await?;
    Ok(response.agent.unwrap_or_default())
}

fn names_only() -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: vec!["id".to_owned(), "name".to_owned()],
    }
}
