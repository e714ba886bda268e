//! `EventService`.

use muster_proto::v1::{self, event_service_server::EventService};
use tonic::{Request, Response, Status};

use super::{
    Api, paging,
    problem::{context, invalid_field, status},
};
use crate::{
    arrival,
    clock::{self, to_optional_timestamp},
    store::{EventFilter, EventRow},
};

const MAX_REASONS: usize = 32;

#[tonic::async_trait]
impl EventService for Api {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let size = paging::size(request.page_size, 100, 1_000).map_err(|problem| status(&ctx, problem))?;
        if request.reasons.len() > MAX_REASONS {
            let text = format!("has more than {MAX_REASONS}");
            return Err(status(&ctx, invalid_field("reasons", text)));
        }
        let agent_id = match request.agent.as_str() {
            "" => String::new(),
            // Those of an agent that is gone can be found by its id.
            text => match self.agents.find(text) {
                Ok(id) => id.to_string(),
                Err(error) => match text.parse::<muster_proto::ids::AgentId>() {
                    Ok(id) => id.to_string(),
                    Err(_) => return Err(status(&ctx, error)),
                },
            },
        };
        let skip = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse()
                .ok()
                .filter(|skip| *skip >= 0)
                .ok_or_else(|| status(&ctx, invalid_field("page_token", "is not one that a list has returned")))?,
        };
        let moment = |field, time: Option<prost_types::Timestamp>| match time {
            None => Ok(None),
            Some(time) => std::time::SystemTime::try_from(time)
                .map(|time| Some(clock::from_system(time)))
                .map_err(|_| status(&ctx, invalid_field(field, "is not a time"))),
        };
        let filter = EventFilter {
            agent_id,
            min_severity: i64::from(request.min_severity),
            since: moment("since", request.since)?.unwrap_or(i64::MIN),
            until: moment("until", request.until)?.unwrap_or(i64::MAX),
            reasons: request.reasons,
            skip,
            limit: size as i64 + 1,
        };
        let mut rows = self
            .db
            .event_list(&filter)
            .await
            .map_err(|error| status(&ctx, crate::agents::Error::from(error)))?;
        let has_more = rows.len() > size;
        rows.truncate(size);
        let next_page_token = if has_more {
            (skip + size as i64).to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ListEventsResponse {
            items: rows.into_iter().map(|row| encode(self, row)).collect(),
            next_page_token,
        }))
    }
}

fn encode(api: &Api, row: EventRow) -> v1::Event {
    let name = row
        .agent_id
        .parse()
        .ok()
        .and_then(|id| api.agents.with(id, |entry| entry.name.clone()));
    let metadata: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&row.metadata).unwrap_or_default();
    v1::Event {
        arrival: arrival::of(row.at, row.received_at) as i32,
        time: to_optional_timestamp(row.at),
        receive_time: to_optional_timestamp(row.received_at),
        agent_id: row.agent_id,
        agent_name: name.unwrap_or_default(),
        reason: row.reason,
        severity: i32::try_from(row.severity).unwrap_or_default(),
        message: row.message,
        metadata: metadata
            .into_iter()
            .map(|(key, value)| match value {
                serde_json::Value::String(text) => (key, text),
                other => (key, other.to_string()),
            })
            .collect(),
    }
}
