//! What agents trust: `EnrollmentService/GetTrustBundle`.

use muster_proto::v1;
use tonic::{Request, Response, Status};

use super::Api;
use crate::clock;

pub(super) async fn get_trust_bundle(
    api: &Api,
    _request: Request<v1::GetTrustBundleRequest>,
) -> Result<Response<v1::GetTrustBundleResponse>, Status> {
    Ok(Response::new(v1::GetTrustBundleResponse {
        trust_bundle: Some(api.pki.signed_trust_bundle()),
        time_unix_micros: clock::now(),
        draining: api.takes_no_links().is_some(),
    }))
}
