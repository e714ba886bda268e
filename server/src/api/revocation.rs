//! The end of trust in agents and the way back: `RevokeAgent`, `DeleteAgent`, `ReadmitAgent` of `AgentService`.

use muster_proto::v1;
use tonic::{Request, Response, Status};

use super::Api;

pub(super) async fn revoke_agent(
    _api: &Api,
    _request: Request<v1::RevokeAgentRequest>,
) -> Result<Response<v1::RevokeAgentResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn delete_agent(
    _api: &Api,
    _request: Request<v1::DeleteAgentRequest>,
) -> Result<Response<v1::DeleteAgentResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn readmit_agent(
    _api: &Api,
    _request: Request<v1::ReadmitAgentRequest>,
) -> Result<Response<v1::ReadmitAgentResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
