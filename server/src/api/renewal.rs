//! Renewal of agents' certificates: `EnrollmentService/Renew`.

use std::sync::Arc;

use muster_proto::{error::reason_name, v1};
use rustls::pki_types::CertificateDer;
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Api, problem};
use crate::{
    access::{Caller, OpCtx, Renewer},
    clock,
    clones::Party,
    renewal,
};

pub(super) async fn renew(
    api: &Api,
    request: Request<v1::RenewRequest>,
) -> Result<Response<v1::RenewResponse>, Status> {
    let ctx = problem::context(&request)?;
    let caller = caller(&ctx)?;
    let request = request.into_inner();
    let (agent, serial) = (caller.agent, caller.serial.clone());
    let request = renewal::Request {
        agent,
        standing: caller.standing,
        not_before: clock::from_system(caller.not_before),
        not_after: clock::from_system(caller.not_after),
        csr: request.csr,
        party: Party::new(request.fingerprint, &serial, &ctx.source.to_string()),
        serial,
    };
    let renewer = Arc::clone(&api.renewer);
    let standing = request.standing;
    match api
        .whole(async move { renewer.renew(request, clock::now()).await })
        .await
    {
        Ok(certificate) => {
            api.telemetry.renewal("renewed");
            info!(agent.id = %agent, source = %ctx.source, %standing, "certificate renewed");
            let chain = api.pki.agent_chain(CertificateDer::from(certificate));
            Ok(Response::new(v1::RenewResponse {
                certificates: chain.into_iter().map(|certificate| certificate.to_vec()).collect(),
                trust_bundle: Some(api.pki.signed_trust_bundle()),
                time_unix_micros: clock::now(),
            }))
        }
        Err(problem) => {
            api.telemetry.renewal(reason_name(problem.reason));
            info!(agent.id = %agent, source = %ctx.source, request.id = ctx.request_id, reason = problem.message, "renewal refused");
            let problem = problem
                .with_metadata("standing", standing.to_string())
                .with_metadata("controller_time", clock::to_text(clock::now()));
            Err(problem::status(&ctx, problem))
        }
    }
}

/// The certificate that the door has found.
pub(super) fn caller(ctx: &OpCtx) -> Result<Renewer, Status> {
    match &ctx.caller {
        Caller::Renewer(renewer) => Ok(renewer.clone()),
        _ => Err(problem::status(ctx, problem::through_another_door())),
    }
}
