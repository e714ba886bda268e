//! `CaService`.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use muster_proto::{
    error::Problem,
    v1::{self, ca_service_server::CaService},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    problem::{context, invalid_field, status},
};
use crate::{
    access::OpCtx,
    cas,
    clock::{self, to_optional_timestamp},
    pki::{Authority, Phase},
};

const MAX_LEFT_BEHIND: usize = 1_000;

#[tonic::async_trait]
impl CaService for Api {
    async fn get_ca_status(
        &self,
        request: Request<v1::GetCaStatusRequest>,
    ) -> Result<Response<v1::GetCaStatusResponse>, Status> {
        let ctx = context(&request)?;
        Ok(Response::new(v1::GetCaStatusResponse {
            status: Some(self.ca_status(&ctx).await?),
        }))
    }

    async fn prepare_ca(
        &self,
        request: Request<v1::PrepareCaRequest>,
    ) -> Result<Response<v1::PrepareCaResponse>, Status> {
        let ctx = context(&request)?;
        let (cas, by) = (Arc::clone(&self.cas), ctx.user());
        self.change(&ctx, async move { cas.prepare(&by, SystemTime::now()).await })
            .await?;
        Ok(Response::new(v1::PrepareCaResponse {
            status: Some(self.ca_status(&ctx).await?),
        }))
    }

    async fn activate_ca(
        &self,
        request: Request<v1::ActivateCaRequest>,
    ) -> Result<Response<v1::ActivateCaResponse>, Status> {
        let ctx = context(&request)?;
        let (cas, by) = (Arc::clone(&self.cas), ctx.user());
        let force = request.into_inner().force;
        self.change(&ctx, async move { cas.activate(force, &by, clock::now()).await })
            .await?;
        Ok(Response::new(v1::ActivateCaResponse {
            status: Some(self.ca_status(&ctx).await?),
        }))
    }

    async fn retire_ca(&self, request: Request<v1::RetireCaRequest>) -> Result<Response<v1::RetireCaResponse>, Status> {
        let ctx = context(&request)?;
        let (cas, by) = (Arc::clone(&self.cas), ctx.user());
        let request = request.into_inner();
        if request.leave_behind.len() > MAX_LEFT_BEHIND {
            let text = format!("must be at most {MAX_LEFT_BEHIND} agents");
            return Err(status(&ctx, invalid_field("leave_behind", text)));
        }
        let left_behind = request
            .leave_behind
            .iter()
            .map(|agent| self.agents.find(agent, &ctx.scopes()));
        let left_behind: BTreeSet<_> = left_behind
            .collect::<Result<_, _>>()
            .map_err(|error| status(&ctx, error))?;
        let retire = async move { cas.retire(request.compromised, &left_behind, &by, clock::now()).await };
        self.change(&ctx, retire).await?;
        Ok(Response::new(v1::RetireCaResponse {
            status: Some(self.ca_status(&ctx).await?),
        }))
    }
}

impl Api {
    async fn change(
        &self,
        ctx: &OpCtx,
        change: impl Future<Output = Result<(), cas::Error>> + Send + 'static,
    ) -> Result<(), Status> {
        ctx.note.resource("ca", self.pki.trust_domain());
        if let Ok(before) = self.ca_status(ctx).await {
            ctx.note.before(&before);
        }
        self.whole(change).await.map_err(|problem| status(ctx, problem))?;
        if let Ok(after) = self.ca_status(ctx).await {
            ctx.note.after(&after);
        }
        Ok(())
    }

    async fn ca_status(&self, ctx: &OpCtx) -> Result<v1::CaStatus, Status> {
        let now = self.cas.status(clock::now()).await;
        let now = now.map_err(|error| status(ctx, Problem::from(error)))?;
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let encode = |authority: &Authority| {
            let uses = now.uses.get(&authority.entry.id).copied().unwrap_or_default();
            v1::Ca {
                id: authority.id(),
                phase: match authority.phase() {
                    Phase::Prepared => v1::CaPhase::Prepared,
                    Phase::Active => v1::CaPhase::Active,
                    Phase::Old => v1::CaPhase::Old,
                    Phase::Retired => v1::CaPhase::Retired,
                } as i32,
                pin: authority.pin.to_string(),
                create_time: to_optional_timestamp(authority.entry.created_at),
                expire_time: to_optional_timestamp(authority.not_after()),
                root_expire_time: to_optional_timestamp(authority.root_not_after()),
                agents: count(uses.agents),
                agents_in_grace: count(uses.in_grace),
                tokens: count(uses.tokens),
                is_external: authority.entry.external,
                is_compromised: authority.entry.compromised,
            }
        };
        Ok(v1::CaStatus {
            items: now.authorities.all().iter().rev().map(encode).collect(),
            trust_bundle_version: now.authorities.bundle_version,
            agents_acknowledged: count(now.acknowledged),
            agents_total: count(now.total),
            waiting_for: waiting(&now.waiting),
        })
    }
}

fn waiting(waiting: &cas::Waiting) -> Vec<v1::CaAgent> {
    let encode = |(id, name, last_seen, why): &(muster_proto::ids::AgentId, String, i64, &'static str)| v1::CaAgent {
        id: id.to_string(),
        name: name.clone(),
        last_seen: to_optional_timestamp(*last_seen),
        reason: (*why).to_owned(),
    };
    waiting.named.iter().map(encode).collect()
}
