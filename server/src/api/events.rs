//! `EventService`.

use muster_proto::v1::{self, event_service_server::EventService};
use tonic::{Request, Response, Status};

use super::{
    Api, history,
    mask::Mask,
    paging,
    problem::{context, invalid_field, moment, status},
};
use crate::{
    arrival,
    clock::to_optional_timestamp,
    store::{EventFilter, EventRow},
};

const MAX_REASONS: usize = 32;
/// Events that are looked through for one page of a caller who may see few of them.
const LOOKED_THROUGH: usize = 20_000;

#[tonic::async_trait]
impl EventService for Api {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let mask = Mask::of::<v1::Event>(request.read_mask.as_ref()).map_err(|problem| status(&ctx, problem))?;
        let size = paging::size(request.page_size, 100, 1_000).map_err(|problem| status(&ctx, problem))?;
        if request.reasons.len() > MAX_REASONS {
            let text = format!("has more than {MAX_REASONS}");
            return Err(status(&ctx, invalid_field("reasons", text)));
        }
        let agent_id = match request.agent.as_str() {
            "" => String::new(),
            text => history::find_or_gone(self, text, &ctx.scopes())
                .map_err(|problem| status(&ctx, problem))?
                .to_string(),
        };
        let skip = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse()
                .ok()
                .filter(|skip| *skip >= 0)
                .ok_or_else(|| status(&ctx, invalid_field("page_token", "is not one that a list has returned")))?,
        };
        let time = |field, time, default| moment(field, time, default).map_err(|problem| status(&ctx, problem));
        let mut filter = EventFilter {
            agent_id,
            min_severity: i64::from(request.min_severity),
            since: time("since", request.since, i64::MIN)?,
            until: time("until", request.until, i64::MAX)?,
            reasons: request.reasons,
            skip,
            limit: size as i64 + 1,
        };
        let (mut items, mut looked_through, mut next_page_token) = (Vec::new(), 0, String::new());
        let scopes = ctx.scopes();
        'pages: loop {
            let rows = self.db.event_list(&filter).await.map_err(|error| status(&ctx, error))?;
            let is_last = rows.len() < filter.limit as usize;
            for row in rows {
                if items.len() == size || looked_through == LOOKED_THROUGH {
                    next_page_token = filter.skip.to_string();
                    break 'pages;
                }
                (filter.skip, looked_through) = (filter.skip + 1, looked_through + 1);
                if self.reaches(&scopes, &row.agent_id) {
                    items.push(mask.keep(encode(self, row)));
                }
            }
            if is_last {
                break;
            }
        }
        Ok(Response::new(v1::ListEventsResponse { items, next_page_token }))
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
