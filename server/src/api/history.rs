//! `HistoryService`.

use muster_proto::{
    error::Problem,
    ids::AgentId,
    v1::{self, history_service_server::HistoryService},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    Api, paging,
    problem::{context, internal, invalid_field, moment, selector, status},
};
use crate::{
    access::scope::Scopes,
    arrival,
    clock::to_optional_timestamp,
    history::{self, Place, Wanted},
    store::{AgentUsage, ResultRow},
};

#[tonic::async_trait]
impl HistoryService for Api {
    async fn list_results(
        &self,
        request: Request<v1::ListResultsRequest>,
    ) -> Result<Response<v1::ListResultsResponse>, Status> {
        let ctx = context(&request)?;
        let wanted = wanted(self, request.into_inner(), &ctx.scopes()).map_err(|problem| status(&ctx, problem))?;
        let name = self.agents.with(wanted.agent, |entry| entry.name.clone());
        let name = name.unwrap_or_default();
        let (rows, next) = history::results(&self.db, wanted)
            .await
            .map_err(|error| status(&ctx, error))?;
        let items: Result<_, _> = rows.into_iter().map(|row| to_result(row, &name)).collect();
        Ok(Response::new(v1::ListResultsResponse {
            items: items.map_err(|error| status(&ctx, internal(&error)))?,
            next_page_token: next.map(Place::write).unwrap_or_default(),
        }))
    }

    async fn list_history_usage(
        &self,
        request: Request<v1::ListHistoryUsageRequest>,
    ) -> Result<Response<v1::ListHistoryUsageResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let selector = selector(&ctx, &request.selector)?;
        let size = paging::size(request.page_size, 200, 1_000).map_err(|error| status(&ctx, error))?;
        let mut agents: Vec<(AgentId, String)> = Vec::new();
        let scopes = ctx.scopes();
        self.agents.each(|entry| {
            if entry.is_in(&scopes) && entry.matches(&selector) {
                agents.push((entry.id, entry.name.clone()));
            }
        });
        agents.sort_unstable();
        let total_size = i32::try_from(agents.len()).unwrap_or(i32::MAX);
        let (page, next_page_token) = paging::page(
            agents,
            size,
            &request.page_token,
            |(id, _)| *id,
            |(id, _)| id.to_string(),
            |token| token.parse().ok(),
        )
        .map_err(|error| status(&ctx, error))?;
        let ids: Vec<AgentId> = page.iter().map(|(id, _)| *id).collect();
        let usage = history::usage(&self.db, &ids)
            .await
            .map_err(|error| status(&ctx, error))?;
        let items = page.into_iter().zip(usage);
        Ok(Response::new(v1::ListHistoryUsageResponse {
            items: items.map(|((id, name), usage)| to_history(id, name, usage)).collect(),
            next_page_token,
            total_size,
        }))
    }
}

fn wanted(api: &Api, request: v1::ListResultsRequest, scopes: &Scopes) -> Result<Wanted, Problem> {
    if request.agent.is_empty() {
        return Err(invalid_field("agent", "is missing: the name or the UUID of one agent"));
    }
    let agent = find_or_gone(api, &request.agent, scopes)?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => {
            Some(Place::read(token).ok_or_else(|| invalid_field("page_token", "is not one that a list has returned"))?)
        }
    };
    Ok(Wanted {
        agent,
        check: request.check,
        since: moment("since", request.since, i64::MIN)?,
        until: moment("until", request.until, i64::MAX)?,
        after,
        size: paging::size(request.page_size, 100, 1_000)?,
    })
}

/// As `Agents::find`. What is on file of an agent that is gone can be found by its id, by who has no scope: which labels it had
/// nobody knows any longer.
pub(super) fn find_or_gone(api: &Api, text: &str, scopes: &Scopes) -> Result<AgentId, Problem> {
    api.agents.find(text, scopes).or_else(|error| {
        let id = text.parse::<AgentId>().ok().filter(|_| scopes.is_all());
        id.ok_or_else(|| Problem::from(error))
    })
}

fn to_result(row: ResultRow, agent_name: &str) -> Result<v1::StoredResult, prost::DecodeError> {
    Ok(v1::StoredResult {
        arrival: arrival::of(row.at, row.received_at) as i32,
        agent_id: row.agent_id,
        agent_name: agent_name.to_owned(),
        time: to_optional_timestamp(row.at),
        receive_time: to_optional_timestamp(row.received_at),
        result: Some(v1::CheckResult::decode(row.result.as_slice())?),
    })
}

fn to_history(id: AgentId, name: String, usage: history::Usage) -> v1::AgentHistory {
    let of = |usage: AgentUsage| v1::HistoryUsage {
        records: usage.records,
        bytes: usage.bytes,
        first_time: to_optional_timestamp(usage.first_at),
        last_time: to_optional_timestamp(usage.last_at),
    };
    v1::AgentHistory {
        agent_id: id.to_string(),
        agent_name: name,
        results: Some(of(usage.results)),
        events: Some(of(usage.events)),
        metrics: Some(of(usage.metrics)),
        metric_samples: usage.samples.samples,
        metric_moments: usage.samples.moments,
        logs: Some(of(usage.logs)),
        log_moments: usage.log_moments,
    }
}
