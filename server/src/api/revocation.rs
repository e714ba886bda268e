//! The end of trust in agents and the way back: `RevokeAgent`, `DeleteAgent`, `ReadmitAgent` of `AgentService`.

use std::{sync::Arc, time::Duration};

use muster_proto::{error::FieldViolation, v1};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::{
    Api, agents,
    problem::{context, invalid_field, status},
};
use crate::{
    agents::Ending,
    clock::{self, HOUR, Micros},
};

const MAX_REASON: usize = 1_024;
const READMIT_WINDOW: Micros = 24 * HOUR;
const MIN_WINDOW: Duration = Duration::from_secs(60);
const MAX_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) async fn revoke_agent(
    api: &Api,
    request: Request<v1::RevokeAgentRequest>,
) -> Result<Response<v1::RevokeAgentResponse>, Status> {
    let ctx = context(&request)?;
    let request = request.into_inner();
    let reason = reason(request.reason).map_err(|problem| status(&ctx, problem))?;
    let id = agents::noted(api, &ctx, &request.agent)?;
    let (fleet, by) = (api.fleet.clone(), ctx.user());
    let change = async move {
        let ending = Ending {
            by: &by,
            reason: &reason,
        };
        fleet.revoke(id, ending, clock::now()).await
    };
    let entry = api.whole(change).await.map_err(|problem| status(&ctx, problem))?;
    ctx.note.after(&agents::audited(&entry));
    info!(agent.id = %id, user = ctx.user(), request.id = ctx.request_id, "agent revoked");
    Ok(Response::new(v1::RevokeAgentResponse {
        agent: Some(agents::encode(api, &entry)),
    }))
}

pub(super) async fn delete_agent(
    api: &Api,
    request: Request<v1::DeleteAgentRequest>,
) -> Result<Response<v1::DeleteAgentResponse>, Status> {
    let ctx = context(&request)?;
    let request = request.into_inner();
    let id = agents::noted(api, &ctx, &request.agent)?;
    let (fleet, by) = (api.fleet.clone(), ctx.user());
    let change = async move {
        let ending = Ending { by: &by, reason: "" };
        fleet.delete(id, request.revision, ending, clock::now()).await
    };
    api.whole(change).await.map_err(|problem| status(&ctx, problem))?;
    info!(agent.id = %id, user = ctx.user(), request.id = ctx.request_id, "agent deleted");
    // Retention takes what is left of them when this fails: the agent is gone all the same.
    let db = api.db.clone();
    let logs = async move { db.log_remove(&id.to_string()).await };
    if let Err(error) = api.whole(logs).await {
        warn!(agent.id = %id, ?error, "failed to remove the logs of a deleted agent");
    }
    Ok(Response::new(v1::DeleteAgentResponse {}))
}

pub(super) async fn readmit_agent(
    api: &Api,
    request: Request<v1::ReadmitAgentRequest>,
) -> Result<Response<v1::ReadmitAgentResponse>, Status> {
    let ctx = context(&request)?;
    let request = request.into_inner();
    let window = window(request.window, READMIT_WINDOW).map_err(|problem| status(&ctx, problem))?;
    let id = agents::noted(api, &ctx, &request.agent)?;
    let (agents, by) = (Arc::clone(&api.agents), ctx.user());
    let change = async move {
        let now = clock::now();
        agents.readmit(id, now.saturating_add(window), &by, now).await
    };
    let entry = api.whole(change).await.map_err(|problem| status(&ctx, problem))?;
    ctx.note.after(&agents::audited(&entry));
    info!(agent.id = %id, user = ctx.user(), request.id = ctx.request_id, "agent readmitted");
    Ok(Response::new(v1::ReadmitAgentResponse {
        agent: Some(agents::encode(api, &entry)),
    }))
}

/// How long a window stays open.
pub(super) fn window(
    asked: Option<prost_types::Duration>,
    default: Micros,
) -> Result<Micros, muster_proto::error::Problem> {
    let Some(asked) = asked else { return Ok(default) };
    Duration::try_from(asked)
        .ok()
        .filter(|window| (MIN_WINDOW..=MAX_WINDOW).contains(window))
        .map(clock::from_duration)
        .ok_or_else(|| invalid_field("window", "must be from 1 minute to 30 days"))
}

/// A reason that people give.
pub(super) fn reason(text: String) -> Result<String, muster_proto::error::Problem> {
    if text.len() > MAX_REASON || text.chars().any(char::is_control) {
        let text = format!("must be at most {MAX_REASON} bytes without control characters");
        return Err(muster_proto::error::Problem::invalid_fields(vec![FieldViolation::new(
            "reason", text,
        )]));
    }
    Ok(text)
}
