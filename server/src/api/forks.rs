//! Copies that become agents of their own: `EnrollmentService/Fork` and `AgentService/ForkAgent`.

use std::{sync::Arc, time::Duration};

use muster_proto::{
    error::{ErrorReason, Problem},
    ids::AgentId,
    v1,
};
use rustls::pki_types::CertificateDer;
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::{
    Api,
    agents::{self, Viewer},
    problem::{self, context, status},
};
use crate::{
    access::Caller,
    clock,
    clones::Party,
    forks::{Error, Request as ForkRequest},
};

const MIN_WINDOW: Duration = Duration::from_secs(60);
const DEFAULT_WINDOW: Duration = Duration::from_secs(60 * 60);
const MAX_WINDOW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) async fn fork(api: &Api, request: Request<v1::ForkRequest>) -> Result<Response<v1::ForkResponse>, Status> {
    let ctx = context(&request)?;
    let Caller::Renewer(renewer) = &ctx.caller else {
        let problem = Problem::new(
            Code::PermissionDenied,
            ErrorReason::MethodNotAllowed,
            "only who shows the certificate of an agent forks it",
        );
        return Err(status(&ctx, problem));
    };
    let request = request.into_inner();
    let id = request
        .agent_id
        .parse::<AgentId>()
        .map_err(|_| status(&ctx, problem::invalid_field("agent_id", "is not a UUID")))?;
    let parent = renewer.agent;
    let request = ForkRequest {
        parent,
        serial: renewer.serial.clone(),
        standing: renewer.standing,
        not_after: clock::from_system(renewer.not_after),
        id,
        csr: request.csr,
        name: request.name,
        labels: request.labels,
        version: request.agent_version,
        party: Party::new(request.fingerprint, &renewer.serial, &ctx.source.to_string()),
    };
    let forks = Arc::clone(&api.forks);
    let forked = api
        .whole(async move { forks.fork(request, clock::now()).await })
        .await
        .map_err(|problem| {
            info!(
                agent.id = %parent,
                source = %ctx.source,
                request.id = ctx.request_id,
                reason = problem.message,
                "fork refused"
            );
            status(&ctx, problem)
        })?;
    if forked.is_new {
        api.telemetry.clone_seen("forked");
    }
    info!(agent.id = %id, parent.id = %parent, source = %ctx.source, repeated = !forked.is_new, "agent forked");
    let chain = api.pki.agent_chain(CertificateDer::from(forked.certificate));
    Ok(Response::new(v1::ForkResponse {
        agent_id: id.to_string(),
        certificates: chain.into_iter().map(|certificate| certificate.to_vec()).collect(),
        trust_bundle: Some(api.pki.signed_trust_bundle()),
        name: forked.name,
        time_unix_micros: clock::now(),
    }))
}

pub(super) async fn fork_agent(
    api: &Api,
    request: Request<v1::ForkAgentRequest>,
) -> Result<Response<v1::ForkAgentResponse>, Status> {
    let ctx = context(&request)?;
    let request = request.into_inner();
    let window = match request.window {
        None => DEFAULT_WINDOW,
        Some(window) => Duration::try_from(window)
            .ok()
            .filter(|window| (MIN_WINDOW..=MAX_WINDOW).contains(window))
            .ok_or_else(|| {
                status(
                    &ctx,
                    problem::invalid_field("window", "must be from 1 minute to 30 days"),
                )
            })?,
    };
    let id = agents::noted(api, &ctx, &request.agent)?;
    let forks = Arc::clone(&api.forks);
    let entry = api
        .whole(async move { forks.open_window(id, clock::from_duration(window), clock::now()).await })
        .await
        .map_err(|problem| status(&ctx, problem))?;
    ctx.note.after(&agents::audited(&entry));
    info!(agent.id = %id, user = ctx.user(), request.id = ctx.request_id, "copies of the agent may fork");
    let agent = Viewer::of(api, clock::now()).agent(&entry);
    Ok(Response::new(v1::ForkAgentResponse { agent: Some(agent) }))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Invalid(fields) => Problem::invalid_fields(fields),
            Error::Csr(error) => Problem::new(
                Code::InvalidArgument,
                ErrorReason::CsrInvalid,
                format!("the certificate request is not acceptable: {error}"),
            ),
            Error::SameKey(_) => Problem::new(Code::InvalidArgument, ErrorReason::CsrInvalid, text),
            Error::Standing(standing) => {
                let reason = match standing {
                    muster_certs::tls::Standing::Expired => ErrorReason::CertificateExpired,
                    muster_certs::tls::Standing::Revoked => ErrorReason::CertificateRevoked,
                    _ => ErrorReason::CertificateUnknown,
                };
                Problem::new(Code::Unauthenticated, reason, text).with_metadata("standing", standing.to_string())
            }
            Error::NotAllowed(_) | Error::NoConflict(_) => {
                Problem::new(Code::FailedPrecondition, ErrorReason::CloneDetected, text)
            }
            Error::IdTaken(_) => Problem::new(Code::AlreadyExists, ErrorReason::AgentAlreadyEnrolled, text),
            Error::Deleted(_) => Problem::new(Code::AlreadyExists, ErrorReason::AgentDeleted, text),
            Error::TooMany(_) => Problem::new(Code::ResourceExhausted, ErrorReason::RateLimited, text)
                .with_retry_after(Duration::from_secs(10 * 60)),
            Error::Pki(error) => problem::internal(&error),
            Error::Agents(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}
