//! `AgentService/PreregisterAgent`.

use muster_proto::v1;
use tonic::{Request, Response, Status};

use super::Api;

pub(super) async fn preregister_agent(
    _api: &Api,
    _request: Request<v1::PreregisterAgentRequest>,
) -> Result<Response<v1::PreregisterAgentResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
