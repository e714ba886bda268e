//! What a call failed with.

use muster_proto::error::{ErrorReason, Problem};
use tonic::Status;

/// Of a status that came back from a call.
pub(super) fn of_status(status: &Status) -> Problem {
    Problem::from_status(status).unwrap_or_else(|| {
        // Of others than us, such as a call that was cut short.
        Problem::new(status.code(), ErrorReason::Unspecified, status.message())
    })
}
