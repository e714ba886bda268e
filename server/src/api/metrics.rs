//! `MetricService`.

use muster_proto::v1::{MetricValue, QueryMetricsRequest, QueryMetricsResponse, metric_service_server::MetricService};
use tonic::{Request, Response, Status};

use super::{
    Api, paging,
    problem::{context, invalid_field, selector, status},
};
use crate::{
    agents::Entry,
    clock::{self, to_timestamp},
    metrics::{self, Query, Value},
};

#[tonic::async_trait]
impl MetricService for Api {
    async fn query_metrics(
        &self,
        request: Request<QueryMetricsRequest>,
    ) -> Result<Response<QueryMetricsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let query = Query::parse(&request.query).map_err(|error| {
            let problem = invalid_field("query", error.to_string());
            status(&ctx, problem.with_metadata("position", error.position.to_string()))
        })?;
        let selector = selector(&ctx, &request.selector)?;
        let size = paging::size(request.page_size, 10_000, 10_000).map_err(|error| status(&ctx, error))?;
        // "<series to leave out> <agent>": a page ends within or after an agent.
        let (skip, after) = match request.page_token.as_str() {
            "" => (0, String::new()),
            token => token
                .split_once(' ')
                .and_then(|(skip, agent)| Some((skip.parse().ok()?, agent.to_owned())))
                .ok_or_else(|| status(&ctx, invalid_field("page_token", "is not one that a list has returned")))?,
        };
        let revision = self.changes.revision();
        let mut agents: Vec<Entry> = Vec::new();
        let scopes = ctx.scopes();
        self.agents.each(|entry| {
            if entry.is_in(&scopes) && entry.matches(&selector) && entry.id.to_string() >= after {
                agents.push(entry.clone());
            }
        });
        let mut items = Vec::new();
        let mut next_page_token = String::new();
        for agent in agents {
            let id = agent.id.to_string();
            let skip = if id == after { skip } else { 0 };
            let values = metrics::latest(&self.db, &agent, &query, clock::now())
                .await
                .map_err(|error| status(&ctx, error))?;
            let room = size - items.len();
            let rest = values.len().saturating_sub(skip);
            items.extend(values.into_iter().skip(skip).take(room).map(to_value));
            if rest > room {
                next_page_token = format!("{} {id}", skip + room);
                break;
            }
        }
        Ok(Response::new(QueryMetricsResponse {
            items,
            revision,
            next_page_token,
        }))
    }
}

fn to_value(value: Value) -> MetricValue {
    MetricValue {
        name: value.name.to_string(),
        labels: value.labels,
        value: value.value,
        time: Some(to_timestamp(value.at)),
        r#type: value.kind as i32,
    }
}
