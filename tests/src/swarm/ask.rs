//! What the swarm asks the controller's API: to assign its checks, and what has arrived. With the client of `musterctl`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{anyhow, bail};
use muster_proto::{error, v1};
use musterctl::{
    client::{Client, Manner},
    context::Context,
    problem::Problem,
    problem::status::Asked,
};
use tokio::time::sleep;
use tonic::{Response, Status};

use super::traffic;

/// Of one call; a page of the history of many agents takes its time.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often one call is made that the controller puts off.
const TIMES: u32 = 60;
/// The least time until such a call is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// The largest pages.
const RESULTS: i32 = 1_000;
const USAGE: i32 = 500;

#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    asked: std::sync::Arc<Asked>,
}

/// What a controller says of a page after the first: the answer, and the next token.
macro_rules! pages {
    ($api:ident, $service:ident . $method:ident, $request:expr, $each:expr) => {{
        let mut token = String::new();
        loop {
            let mut request = $request;
            request.page_token = token;
            let answer = $api
                .call(async |request| $api.client.$service().$method(request).await, request)
                .await?;
            token = answer.next_page_token.clone();
            $each(answer);
            if token.is_empty() {
                break;
            }
        }
    }};
}

impl Api {
    pub async fn connect(context: &Path) -> anyhow::Result<Self> {
        let context = Context::load(Some(context), None, None).map_err(|problem| said(&problem))?;
        let asked = Asked::new("ask the controller what has arrived");
        let client = Client::connect(&context, Manner::alone(PATIENCE), &asked)
            .await
            .map_err(|problem| said(&problem))?;
        Ok(Self {
            client,
            asked: asked.into(),
        })
    }

    /// Waits when the controller says so: it limits how often an operator may ask.
    async fn call<T: Clone, R>(
        &self,
        call: impl AsyncFn(tonic::Request<T>) -> Result<Response<R>, Status>,
        message: T,
    ) -> anyhow::Result<R> {
        for _ in 0..TIMES {
            let mut wait = None;
            let asking = async |request| {
                let answer = call(request).await;
                let refused = answer.as_ref().err().and_then(error::Problem::from_status);
                wait = refused.and_then(|refused| refused.retry_after);
                answer
            };
            let answer = self.client.call(&self.asked, asking, message.clone()).await;
            match (answer, wait) {
                // It says when the next call may come, and there are many that wait for it.
                (Err(_), Some(wait)) => sleep(wait.max(AGAIN)).await,
                (answer, _) => return answer.map_err(|problem| said(&problem)),
            }
        }
        bail!("the controller has no time for the question")
    }

    /// Checks of a swarm, or with another description the same anew.
    pub async fn assign(&self, run: &str, selector: &str, checks: u64, description: &str) -> anyhow::Result<()> {
        let policy = |number| v1::Policy {
            kind: "Check".to_owned(),
            metadata: Some(v1::PolicyMetadata {
                name: traffic::check_name(run, number),
                ..Default::default()
            }),
            spec: Some(v1::policy::Spec::Check(v1::Check {
                description: description.to_owned(),
                selector: selector.to_owned(),
                run: Some(v1::Run {
                    memory: Some(v1::MemoryRun::default()),
                    ..Default::default()
                }),
                ..Default::default()
            })),
            counts: None,
        };
        let request = v1::ApplyPoliciesRequest {
            policies: (0..checks).map(policy).collect(),
        };
        self.call(
            async |request| self.client.policies().apply_policies(request).await,
            request,
        )
        .await?;
        Ok(())
    }

    pub async fn withdraw(&self, run: &str, checks: u64) -> anyhow::Result<()> {
        for number in 0..checks {
            let request = v1::DeletePolicyRequest {
                kind: "Check".to_owned(),
                name: traffic::check_name(run, number),
                revision: 0,
            };
            self.call(
                async |request| self.client.policies().delete_policy(request).await,
                request,
            )
            .await?;
        }
        Ok(())
    }

    /// On how many agents the current version of a check is applied.
    pub async fn applied(&self, check: &str) -> anyhow::Result<u64> {
        let request = v1::GetPolicyRequest {
            kind: "Check".to_owned(),
            name: check.to_owned(),
            read_mask: None,
        };
        let answer = self
            .call(
                async |request| self.client.policies().get_policy(request).await,
                request,
            )
            .await?;
        let counts = answer.policy.and_then(|policy| policy.counts);
        Ok(counts.map_or(0, |counts| u64::try_from(counts.applied).unwrap_or(0)))
    }

    /// The numbers of the results that are stored of an agent, and how often each is.
    pub async fn results(&self, agent: &str) -> anyhow::Result<HashMap<u64, u32>> {
        let mut numbers = HashMap::new();
        let request = || v1::ListResultsRequest {
            agent: agent.to_owned(),
            page_size: RESULTS,
            ..Default::default()
        };
        pages!(
            self,
            history.list_results,
            request(),
            |answer: v1::ListResultsResponse| {
                for item in answer.items {
                    let number = item.result.and_then(|result| traffic::number(&result.output));
                    *numbers.entry(number.unwrap_or(0)).or_insert(0) += 1;
                }
            }
        );
        Ok(numbers)
    }

    /// What is kept of each agent, by id.
    pub async fn usage(&self, selector: &str) -> anyhow::Result<BTreeMap<String, v1::AgentHistory>> {
        let mut usage = BTreeMap::new();
        let request = || v1::ListHistoryUsageRequest {
            selector: selector.to_owned(),
            page_size: USAGE,
            ..Default::default()
        };
        pages!(
            self,
            history.list_history_usage,
            request(),
            |answer: v1::ListHistoryUsageResponse| {
                let items = answer.items.into_iter();
                usage.extend(items.map(|item| (item.agent_id.clone(), item)));
            }
        );
        Ok(usage)
    }

    /// The status of each agent, by id.
    pub async fn statuses(&self, selector: &str) -> anyhow::Result<BTreeMap<String, v1::AgentStatus>> {
        let mut statuses = BTreeMap::new();
        let request = || v1::ListAgentsRequest {
            selector: selector.to_owned(),
            page_size: RESULTS,
            ..Default::default()
        };
        pages!(self, agents.list_agents, request(), |answer: v1::ListAgentsResponse| {
            let items = answer.items.into_iter();
            statuses.extend(items.map(|agent| (agent.id.clone(), agent.status())));
        });
        Ok(statuses)
    }

    /// How often one of these agents was declared offline since then.
    pub async fn offline_events(&self, agents: &HashSet<String>, since: SystemTime) -> anyhow::Result<u64> {
        let mut count = 0;
        let request = || v1::ListEventsRequest {
            reasons: vec!["AGENT_OFFLINE".to_owned()],
            since: Some(since.into()),
            page_size: RESULTS,
            ..Default::default()
        };
        pages!(self, events.list_events, request(), |answer: v1::ListEventsResponse| {
            let of_ours = answer.items.iter().filter(|event| agents.contains(&event.agent_id));
            count += of_ours.count() as u64;
        });
        Ok(count)
    }
}

fn said(problem: &Problem) -> anyhow::Error {
    anyhow!("{}: {}", problem.headline, problem.why)
}
