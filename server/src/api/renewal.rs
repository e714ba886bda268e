//! Renewal of agents' certificates: `EnrollmentService/Renew`.

use muster_proto::v1;
use tonic::{Request, Response, Status};

use super::Api;

pub(super) async fn renew(
    _api: &Api,
    _request: Request<v1::RenewRequest>,
) -> Result<Response<v1::RenewResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
