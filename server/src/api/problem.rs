//! From errors of the domain to statuses: the code, the reason, the words.

use std::error::Error as _;

use muster_proto::{
    error::{ErrorReason, FieldViolation, Problem},
    selector::Selector,
};
use tonic::{Code, Status};
use tracing::error;

use crate::{access::OpCtx, agents, changes, enroll, policies, store, tokens};

/// The context that the door has put into every request.
pub fn context<T>(request: &tonic::Request<T>) -> Result<OpCtx, Status> {
    let missing = || {
        Problem::new(
            Code::Internal,
            ErrorReason::Internal,
            "the request did not come through the door",
        )
    };
    request
        .extensions()
        .get::<OpCtx>()
        .cloned()
        .ok_or_else(|| missing().into())
}

/// A status with the request's id.
pub fn status(ctx: &OpCtx, problem: impl Into<Problem>) -> Status {
    problem.into().with_request_id(&ctx.request_id).into()
}

/// The selector of a request; empty is every agent.
pub fn selector(ctx: &OpCtx, text: &str) -> Result<Selector, Status> {
    if text.is_empty() {
        return Ok(Selector::all());
    }
    Selector::parse(text).map_err(|error| {
        let problem = Problem::invalid_selector("selector", &error).with_metadata("selector", text);
        status(ctx, problem)
    })
}

pub fn invalid_field(field: &str, text: impl Into<String>) -> Problem {
    Problem::invalid_fields(vec![FieldViolation::new(field, text)])
}

/// The operator is not told what broke, the log is.
pub fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
    error!(error, "call failed");
    Problem::new(
        Code::Internal,
        ErrorReason::Internal,
        "the controller failed; its log tells more under this request id",
    )
}

fn of_store(error: &store::Error) -> Problem {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    error!(error = error as &dyn std::error::Error, cause, "the database failed");
    Problem::new(
        Code::Unavailable,
        ErrorReason::Unavailable,
        "the database does not answer as it should; try again later",
    )
}

impl From<agents::Error> for Problem {
    fn from(error: agents::Error) -> Self {
        match error {
            agents::Error::NotFound(name) => Problem::new(
                Code::NotFound,
                ErrorReason::NotFound,
                format!("there is no agent {name}"),
            ),
            agents::Error::Ambiguous { ref name, ref ids } => {
                let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                let text = format!(
                    "the name {name} belongs to {} agents; give a UUID: {}",
                    ids.len(),
                    list.replace(',', ", ")
                );
                Problem::new(Code::FailedPrecondition, ErrorReason::AmbiguousName, text).with_metadata("ids", list)
            }
            agents::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<policies::Error> for Problem {
    fn from(error: policies::Error) -> Self {
        match error {
            policies::Error::Invalid(fields) => Problem::invalid_fields(fields),
            policies::Error::NotFound(key) => Problem::new(
                Code::NotFound,
                ErrorReason::NotFound,
                format!("there is no policy {key}"),
            ),
            policies::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<tokens::Error> for Problem {
    fn from(error: tokens::Error) -> Self {
        match error {
            tokens::Error::Invalid(fields) => Problem::invalid_fields(fields),
            tokens::Error::Refused => token_refused(),
            tokens::Error::Random(error) => internal(&error),
            tokens::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<enroll::Error> for Problem {
    fn from(error: enroll::Error) -> Self {
        match error {
        enroll::Error::Invalid(fields) => Problem::invalid_fields(fields),
        enroll::Error::TokenRefused => token_refused(),
        enroll::Error::Csr(error) => Problem::new(
            Code::InvalidArgument,
            ErrorReason::CsrInvalid,
            format!("the certificate request is not acceptable: {error}"),
        ),
        enroll::Error::AlreadyEnrolled(id) => Problem::new(
            Code::AlreadyExists,
            ErrorReason::AgentAlreadyEnrolled,
            format!("agent {id} is already enrolled, and this request does not prove that it is the same machine; the token was not used up"),
        )
        .with_metadata("agent_id", id.to_string()),
        enroll::Error::RateLimited => Problem::new(
            Code::ResourceExhausted,
            ErrorReason::RateLimited,
            "too many refused attempts from this address; try again in a minute",
        )
        .with_retry_after(std::time::Duration::from_secs(60)),
        enroll::Error::Pki(error) => internal(&error),
        enroll::Error::Store(error) => of_store(&error),
    }
    }
}

impl From<changes::Error> for Problem {
    fn from(error: changes::Error) -> Self {
        match error {
            changes::Error::Gone(_) | changes::Error::TooSlow(_) => Problem::new(
                Code::OutOfRange,
                ErrorReason::RevisionGone,
                format!("{error}; list again and watch from there"),
            ),
            changes::Error::Closed => shutting_down(),
            changes::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        of_store(&error)
    }
}

fn token_refused() -> Problem {
    Problem::new(
        Code::Unauthenticated,
        ErrorReason::TokenInvalid,
        "the token is unknown, wrong, expired or used up; make another with `musterctl token create`",
    )
}

pub fn shutting_down() -> Problem {
    Problem::new(
        Code::Unavailable,
        ErrorReason::ShuttingDown,
        "the controller is shutting down; connect again",
    )
}
