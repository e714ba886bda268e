//! `LogService`.

use std::collections::HashMap;

use muster_proto::{
    error::Problem,
    v1::{self, log_service_server::LogService},
};
use tonic::{Request, Response, Status};

use super::{
    Api, history,
    mask::Mask,
    paging,
    problem::{context, invalid_field, moment, selector, status},
};
use crate::{
    access::scope::Scopes,
    arrival,
    clock::to_optional_timestamp,
    history::Place,
    logs::{self, Wanted},
    store::LogRow,
};

/// Of the text that is looked for.
const MAX_CONTAINS: usize = 1_024;

#[tonic::async_trait]
impl LogService for Api {
    async fn list_logs(&self, request: Request<v1::ListLogsRequest>) -> Result<Response<v1::ListLogsResponse>, Status> {
        let ctx = context(&request)?;
        let request = request.into_inner();
        let mask = Mask::of::<v1::StoredLog>(request.read_mask.as_ref()).map_err(|problem| status(&ctx, problem))?;
        let selector = selector(&ctx, &request.selector)?;
        let scopes = ctx.scopes();
        let wanted = wanted(self, &request, &scopes).map_err(|problem| status(&ctx, problem))?;
        let text = request.contains.to_lowercase();
        let is_selected = |id: &str| match request.selector.as_str() {
            "" => self.reaches(&scopes, id),
            _ => id
                .parse()
                .ok()
                .and_then(|id| {
                    self.agents
                        .with(id, |entry| entry.is_in(&scopes) && entry.matches(&selector))
                })
                .unwrap_or(false),
        };
        // One answer for each agent of a page.
        let mut selected: HashMap<String, bool> = HashMap::new();
        let is_wanted = |row: &LogRow| {
            row.severity >= i64::from(request.min_severity)
                && logs::contains(&row.message, &text)
                && match selected.get(&row.agent_id) {
                    Some(is_selected) => *is_selected,
                    None => *selected
                        .entry(row.agent_id.clone())
                        .or_insert(is_selected(&row.agent_id)),
                }
        };
        let (rows, next) = logs::page(&self.db, wanted, is_wanted)
            .await
            .map_err(|error| status(&ctx, error))?;
        Ok(Response::new(v1::ListLogsResponse {
            items: rows.into_iter().map(|row| mask.keep(encode(self, row))).collect(),
            next_page_token: next.map(Place::write).unwrap_or_default(),
        }))
    }
}

fn wanted(api: &Api, request: &v1::ListLogsRequest, scopes: &Scopes) -> Result<Wanted, Problem> {
    if request.contains.len() > MAX_CONTAINS {
        return Err(invalid_field("contains", format!("has more than {MAX_CONTAINS} bytes")));
    }
    let agent = match request.agent.as_str() {
        "" => None,
        text => Some(history::find_or_gone(api, text, scopes)?),
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => {
            Some(Place::read(token).ok_or_else(|| invalid_field("page_token", "is not one that a list has returned"))?)
        }
    };
    Ok(Wanted {
        agent,
        since: moment("since", request.since, i64::MIN)?,
        until: moment("until", request.until, i64::MAX)?,
        after,
        size: paging::size(request.page_size, 100, 1_000)?,
    })
}

fn encode(api: &Api, row: LogRow) -> v1::StoredLog {
    let name = row
        .agent_id
        .parse()
        .ok()
        .and_then(|id| api.agents.with(id, |entry| entry.name.clone()));
    v1::StoredLog {
        arrival: arrival::of(row.at, row.received_at) as i32,
        agent_id: row.agent_id,
        agent_name: name.unwrap_or_default(),
        time: to_optional_timestamp(row.at),
        receive_time: to_optional_timestamp(row.received_at),
        severity: i32::try_from(row.severity).unwrap_or_default(),
        source: row.source,
        unit: row.unit,
        message: row.message,
        fields: serde_json::from_str(&row.fields).unwrap_or_default(),
    }
}
