//! What agents trust: `EnrollmentService/GetTrustBundle`.

use muster_proto::v1;
use tonic::{Request, Response, Status};

use super::Api;

pub(super) async fn get_trust_bundle(
    _api: &Api,
    _request: Request<v1::GetTrustBundleRequest>,
) -> Result<Response<v1::GetTrustBundleResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
