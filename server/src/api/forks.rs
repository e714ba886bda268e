//! Copies that become agents of their own: `EnrollmentService/Fork` and `AgentService/ForkAgent`.

use muster_proto::v1;
use tonic::{Request, Response, Status};

use super::Api;

pub(super) async fn fork(_api: &Api, _request: Request<v1::ForkRequest>) -> Result<Response<v1::ForkResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}

pub(super) async fn fork_agent(
    _api: &Api,
    _request: Request<v1::ForkAgentRequest>,
) -> Result<Response<v1::ForkAgentResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
