//! `EnrollmentService`.

use std::sync::Arc;

use muster_proto::{
    error::reason_name,
    ids::AgentId,
    v1::{EnrollRequest, EnrollResponse, enrollment_service_server::EnrollmentService},
};
use rustls::pki_types::CertificateDer;
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Api, problem};
use crate::{clock, enroll};

#[tonic::async_trait]
impl EnrollmentService for Api {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let ctx = problem::context(&request)?;
        let request = request.into_inner();
        let agent_id = match request.agent_id.as_str() {
            "" => None,
            text => match text.parse::<AgentId>() {
                Ok(id) => Some(id),
                Err(_) => {
                    return Err(problem::status(
                        &ctx,
                        problem::invalid_field("agent_id", "is not a UUID"),
                    ));
                }
            },
        };
        let request = enroll::Request {
            token: request.token,
            agent_id,
            csr: request.csr,
            name: request.name,
            labels: request.labels,
            version: request.agent_version,
            source: ctx.source.ip(),
        };
        let enroller = Arc::clone(&self.enroller);
        match self
            .whole(async move { enroller.enroll(request, clock::now()).await })
            .await
        {
            Ok(enrolled) => {
                self.telemetry
                    .enrollment(if enrolled.is_new { "created" } else { "repeated" });
                info!(
                    agent.id = %enrolled.agent_id,
                    agent.name = enrolled.name,
                    source = %ctx.source,
                    repeated = !enrolled.is_new,
                    "agent enrolled"
                );
                let chain = self.pki.agent_chain(CertificateDer::from(enrolled.certificate));
                Ok(Response::new(EnrollResponse {
                    agent_id: enrolled.agent_id.to_string(),
                    certificates: chain.into_iter().map(|certificate| certificate.to_vec()).collect(),
                    trust_bundle: Some(self.pki.trust_bundle()),
                    name: enrolled.name,
                    time_unix_micros: clock::now(),
                }))
            }
            Err(problem) => {
                self.telemetry.enrollment(reason_name(problem.reason));
                info!(source = %ctx.source, request.id = ctx.request_id, reason = problem.message, "enrollment refused");
                Err(problem::status(&ctx, problem))
            }
        }
    }

    async fn renew(
        &self,
        request: Request<muster_proto::v1::RenewRequest>,
    ) -> Result<Response<muster_proto::v1::RenewResponse>, Status> {
        super::renewal::renew(self, request).await
    }

    async fn fork(
        &self,
        request: Request<muster_proto::v1::ForkRequest>,
    ) -> Result<Response<muster_proto::v1::ForkResponse>, Status> {
        super::forks::fork(self, request).await
    }

    async fn get_trust_bundle(
        &self,
        request: Request<muster_proto::v1::GetTrustBundleRequest>,
    ) -> Result<Response<muster_proto::v1::GetTrustBundleResponse>, Status> {
        super::trust::get_trust_bundle(self, request).await
    }
}
