//! `AgentService/PreregisterAgent`.

use std::sync::Arc;

use muster_proto::{ids::AgentId, label, v1};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Api, agents,
    problem::{context, invalid_field, status},
};
use crate::{agents::Preregistration, clock, tokens::label_violations};

pub(super) async fn preregister_agent(
    api: &Api,
    request: Request<v1::PreregisterAgentRequest>,
) -> Result<Response<v1::PreregisterAgentResponse>, Status> {
    let ctx = context(&request)?;
    let request = request.into_inner();
    let id: AgentId = request
        .id
        .parse()
        .map_err(|_| status(&ctx, invalid_field("id", "is not a UUID")))?;
    let violations = label_violations("labels", &request.labels);
    if !violations.is_empty() {
        return Err(status(&ctx, muster_proto::error::Problem::invalid_fields(violations)));
    }
    if !request.name.is_empty() && !label::value_is_valid(&request.name) {
        let text = "must be without control characters and without blanks at its ends, and not too long";
        return Err(status(&ctx, invalid_field("name", text)));
    }
    ctx.note.agent(id);
    if let Some(before) = api.agents.get(id).filter(|entry| entry.is_in(&ctx.scopes())) {
        ctx.note.before(&agents::audited(&before));
    }
    let (inventory, links) = (Arc::clone(&api.agents), Arc::clone(&api.links));
    let (grants, scopes, by) = (Arc::clone(&api.grants), ctx.scopes(), ctx.user());
    let wanted = Preregistration {
        id,
        name: request.name,
        labels: request.labels,
        adopt: request.adopt,
        revive: request.revive,
    };
    let change = async move {
        let entry = inventory
            .preregister(wanted, &scopes, grants.rights(), &by, clock::now())
            .await?;
        links.nudge(id);
        Ok::<_, crate::agents::Error>(entry)
    };
    let entry = api.whole(change).await.map_err(|problem| status(&ctx, problem))?;
    ctx.note.after(&agents::audited(&entry));
    info!(agent.id = %id, user = ctx.user(), request.id = ctx.request_id, "agent pre-registered");
    Ok(Response::new(v1::PreregisterAgentResponse {
        agent: Some(agents::encode(api, &entry)),
    }))
}
