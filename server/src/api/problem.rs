//! From errors of the domain to statuses: the code, the reason, the words.

use std::error::Error as _;

use muster_certs::csr;
use muster_proto::{
    error::{ErrorReason, FieldViolation, Problem},
    label,
    selector::Selector,
};
use tonic::{Code, Status};
use tracing::error;

use crate::{
    access::{Distrust, OpCtx, scope::Unclear},
    agents, api_keys, cas, changes,
    clock::{self, Micros},
    clones, controllers,
    enroll::{self, matching::Mismatch},
    grants, idempotency, manifests, pki, policies,
    renewal::{self, Refusal},
    store, tokens, users,
};

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

/// A time of a request.
pub fn moment(field: &str, time: Option<prost_types::Timestamp>, default: Micros) -> Result<Micros, Problem> {
    let Some(time) = time else { return Ok(default) };
    std::time::SystemTime::try_from(time)
        .map(clock::from_system)
        .map_err(|_| invalid_field(field, "is not a time"))
}

pub fn csr_refused(error: &csr::Error) -> Problem {
    Problem::new(
        Code::InvalidArgument,
        ErrorReason::CsrInvalid,
        format!("the certificate request is not acceptable: {error}"),
    )
}

/// A call whose caller is of another kind than its row in the table says.
pub fn through_another_door() -> Problem {
    Problem::new(
        Code::Internal,
        ErrorReason::Internal,
        "the call did not come through its door",
    )
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

pub fn of_store(error: &store::Error) -> Problem {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    error!(error = error as &dyn std::error::Error, cause, "the database failed");
    if error.is_full() {
        return Problem::new(
            Code::ResourceExhausted,
            ErrorReason::DiskFull,
            "the controller's disk has no room for this, and nothing was changed",
        );
    }
    if error.is_about_data() {
        return Problem::new(
            Code::InvalidArgument,
            ErrorReason::InvalidField,
            "the database does not take what the request holds, such as a text with a NUL in it",
        );
    }
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
            agents::Error::AlreadyEnrolled(id) => Problem::new(
                Code::AlreadyExists,
                ErrorReason::AgentAlreadyEnrolled,
                format!("agent {id} has enrolled without being pre-registered; to take it over: --adopt"),
            ),
            agents::Error::Deleted(id) => Problem::new(
                Code::AlreadyExists,
                ErrorReason::AgentDeleted,
                format!("agent {id} was deleted; to use its id again: --revive"),
            ),
            agents::Error::Revoked(id) => Problem::new(
                Code::FailedPrecondition,
                ErrorReason::AgentRevoked,
                format!("agent {id} is revoked; it needs a token to come back: musterctl token create --agent-id {id}"),
            ),
            agents::Error::NeverEnrolled(id) => Problem::new(
                Code::FailedPrecondition,
                ErrorReason::AgentPreregistered,
                format!("agent {id} has never enrolled; it has no certificate to renew"),
            ),
            agents::Error::Taken(id) => Problem::new(
                Code::AlreadyExists,
                ErrorReason::AlreadyExists,
                format!("the id {id} is taken; choose another"),
            ),
            agents::Error::Conflict { seen, is } => conflict(seen, is),
            agents::Error::Labels(refusal) => refusal.into(),
            agents::Error::TooManyLabels(count) => {
                let text = format!(
                    "would make {count} labels of the agent, and {} are allowed: remove some",
                    label::MAX_COUNT
                );
                invalid_field("set", text)
            }
            agents::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<cas::Error> for Problem {
    fn from(error: cas::Error) -> Self {
        match error {
            cas::Error::Phase(text) => Problem::new(Code::FailedPrecondition, ErrorReason::CaPhase, text),
            cas::Error::InUse(waiting) => {
                let names: Vec<String> = waiting
                    .named
                    .iter()
                    .map(|(id, name, _, why)| format!("{name} ({id}) {why}"))
                    .collect();
                let ids: Vec<String> = waiting.named.iter().map(|(id, ..)| id.to_string()).collect();
                let text = format!("{} agents stand in the way: {}", waiting.count, names.join("; "));
                Problem::new(Code::FailedPrecondition, ErrorReason::CaInUse, text)
                    .with_metadata("agents", ids.join(","))
                    .with_metadata("count", waiting.count.to_string())
            }
            cas::Error::Pki(error @ (pki::Error::RootKeyOffline(_) | pki::Error::External)) => {
                Problem::new(Code::FailedPrecondition, ErrorReason::CaKeyOffline, error.to_string())
            }
            cas::Error::Pki(error) => internal(&error),
            cas::Error::List(error) => internal(&error),
            cas::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<renewal::Error> for Problem {
    fn from(error: renewal::Error) -> Self {
        let refused = |reason, text: String| Problem::new(Code::Unauthenticated, reason, text);
        match error {
            renewal::Error::Csr(error) => csr_refused(&error),
            renewal::Error::Refused(Refusal::Expired { grace_end }) => refused(
                ErrorReason::CertificateExpired,
                format!(
                    "the certificate has expired, and could be renewed until {}; an operator can let the agent in again: \
                     musterctl agent readmit",
                    clock::to_text(grace_end)
                ),
            )
            .with_metadata("grace_end", clock::to_text(grace_end)),
            renewal::Error::Refused(Refusal::Revoked) => refused(
                ErrorReason::CertificateRevoked,
                "the trust in this agent has ended; it needs a token to come back".into(),
            ),
            renewal::Error::Refused(Refusal::Unknown) => refused(
                ErrorReason::CertificateUnknown,
                "the certificate, or its agent, is not on file; the agent needs a token to come back".into(),
            ),
            renewal::Error::Clone(refusal) => (*refusal).into(),
            renewal::Error::Pki(error) => internal(&error),
            renewal::Error::Store(error) => of_store(&error),
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
            policies::Error::Taken(key) => Problem::new(
                Code::AlreadyExists,
                ErrorReason::AlreadyExists,
                format!("the name {key} is taken by a policy of another scope; choose another"),
            ),
            policies::Error::Scope(key, Unclear::Several) => invalid_field(
                "metadata.scope",
                format!("is missing for {key}: the caller has several scopes; `musterctl whoami` shows them"),
            ),
            policies::Error::Scope(key, Unclear::Foreign) => Problem::new(
                Code::PermissionDenied,
                ErrorReason::OutOfScope,
                format!("{key} cannot be made in, or moved to, that scope; `musterctl whoami` shows the caller's"),
            ),
            policies::Error::Conflict { key, seen, is } => conflict(seen, is).with_metadata("policy", key.to_string()),
            policies::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<manifests::Error> for Problem {
    fn from(error: manifests::Error) -> Self {
        match error {
            manifests::Error::Invalid(fields) => Problem::invalid_fields(fields),
            manifests::Error::Missing(permission) => Problem::new(
                Code::PermissionDenied,
                ErrorReason::PermissionMissing,
                format!("the caller has no role that gives the permission {}", permission.name),
            )
            .with_metadata("permission", permission.name),
            manifests::Error::Outdated => Problem::new(
                Code::Aborted,
                ErrorReason::PlanOutdated,
                "what this would change, or whom it would touch, is no longer what was planned; plan again",
            ),
            manifests::Error::NotFound { kind, name } => Problem::new(
                Code::NotFound,
                ErrorReason::NotFound,
                format!("nothing is on file of {kind}/{name}"),
            ),
            manifests::Error::Unfinished(error) if error.is_panic() => internal(&error),
            manifests::Error::Unfinished(_) => shutting_down(),
            manifests::Error::Policies(error) => error.into(),
            manifests::Error::Grants(error) => error.into(),
            manifests::Error::Users(error) => error.into(),
            manifests::Error::ApiKeys(error) => error.into(),
            manifests::Error::TokenTemplates(error) => error.into(),
            manifests::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<tokens::Error> for Problem {
    fn from(error: tokens::Error) -> Self {
        match error {
            tokens::Error::Invalid(fields) => Problem::invalid_fields(fields),
            tokens::Error::Refused => token_refused(),
            tokens::Error::Random(error) => internal(&error),
            tokens::Error::Once(error) => error.into(),
            tokens::Error::Conflict { seen, is } => conflict(seen, is),
            tokens::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<idempotency::Error> for Problem {
    fn from(error: idempotency::Error) -> Self {
        match error {
            idempotency::Error::Reused(key) => Problem::new(
                Code::AlreadyExists,
                ErrorReason::IdempotencyKeyReused,
                format!("the idempotency key {key:?} belongs to another request; take a new one"),
            ),
            idempotency::Error::Derive(error) => internal(&error),
            idempotency::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<users::Error> for Problem {
    fn from(error: users::Error) -> Self {
        match error {
            users::Error::Invalid(fields) => Problem::invalid_fields(fields),
            users::Error::Csr(error) => csr_refused(&error),
            users::Error::NotFound(name) => {
                let text = format!("there is no user {name}");
                Problem::new(Code::NotFound, ErrorReason::NotFound, text)
            }
            users::Error::Exists(name) => Problem::new(
                Code::AlreadyExists,
                ErrorReason::AlreadyExists,
                format!("there is a user {name} already; for another certificate: musterctl user renew {name}"),
            ),
            users::Error::Revoked { name, is_new: true } => Problem::new(
                Code::AlreadyExists,
                ErrorReason::UserRevoked,
                format!("there was a user {name}, who is revoked; to give the name a certificate again: --reinstate"),
            ),
            users::Error::Revoked { name, is_new: false } => Problem::new(
                Code::FailedPrecondition,
                ErrorReason::UserRevoked,
                format!(
                    "user {name} is revoked and is given no certificate; to let the user in again: musterctl user create {name} --reinstate"
                ),
            ),
            users::Error::LastAdmin(name) => Problem::new(
                Code::FailedPrecondition,
                ErrorReason::LastAdmin,
                format!(
                    "nobody but {name} can use the API; make another admin first: musterctl user create NAME, or \
                     `muster-server admin create NAME` on the controller's host"
                ),
            ),
            users::Error::Escalation(permission) => escalation(permission),
            users::Error::Missing(permission) => Problem::new(
                Code::PermissionDenied,
                ErrorReason::PermissionMissing,
                format!(
                    "the caller has no role that gives the permission {permission}, which it takes for another user"
                ),
            )
            .with_metadata("permission", permission),
            users::Error::CallerRevoked => caller_revoked(),
            users::Error::Pki(error) => internal(&error),
            users::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<grants::Error> for Problem {
    fn from(error: grants::Error) -> Self {
        let refused = |reason, text: String| Problem::new(Code::FailedPrecondition, reason, text);
        match error {
            grants::Error::Invalid(fields) => Problem::invalid_fields(fields),
            grants::Error::NoRole(name) => {
                let text = format!("there is no role {name}");
                Problem::new(Code::NotFound, ErrorReason::NotFound, text)
            }
            grants::Error::NoGrant(id) => {
                let text = format!("there is no grant {id}");
                Problem::new(Code::NotFound, ErrorReason::NotFound, text)
            }
            grants::Error::NoSubject(subject) => {
                let text = format!("there is no {subject}, or it is revoked");
                Problem::new(Code::NotFound, ErrorReason::NotFound, text)
            }
            grants::Error::Exists(name) => {
                let text = format!("there is a role {name} already; to change it: musterctl role update {name}");
                Problem::new(Code::AlreadyExists, ErrorReason::AlreadyExists, text)
            }
            grants::Error::BuiltIn(name) => refused(
                ErrorReason::BuiltIn,
                format!("role {name} is built in and stays as it is; make one of another name"),
            ),
            grants::Error::InUse { name, count } => refused(
                ErrorReason::InUse,
                format!("role {name} is granted {count} times: musterctl grant list --role {name}"),
            )
            .with_metadata("count", count.to_string()),
            grants::Error::Escalation(permission) => escalation(permission),
            grants::Error::Once(error) => error.into(),
            grants::Error::Conflict { seen, is } => conflict(seen, is),
            grants::Error::LastAdmin => refused(
                ErrorReason::LastAdmin,
                "nobody else may do everything; grant the role admin to another user first, or make one with \
                 `muster-server admin create NAME` on the controller's host"
                    .to_owned(),
            ),
            grants::Error::CallerRevoked => caller_revoked(),
            grants::Error::Users(error) => error.into(),
            grants::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<api_keys::Error> for Problem {
    fn from(error: api_keys::Error) -> Self {
        match error {
            api_keys::Error::Invalid(fields) => Problem::invalid_fields(fields),
            api_keys::Error::NotFound(id) => {
                let text = format!("there is no API key {id}");
                Problem::new(Code::NotFound, ErrorReason::NotFound, text)
            }
            api_keys::Error::Random(error) => internal(&error),
            api_keys::Error::Once(error) => error.into(),
            api_keys::Error::Grant(error) => error.into(),
            api_keys::Error::Store(error) => of_store(&error),
        }
    }
}

impl From<enroll::Error> for Problem {
    fn from(error: enroll::Error) -> Self {
        match error {
            enroll::Error::Invalid(fields) => Problem::invalid_fields(fields),
            enroll::Error::TokenRefused => token_refused(),
            enroll::Error::Csr(error) => csr_refused(&error),
            enroll::Error::Mismatch(id, mismatch) => {
                let (code, reason, text) = match mismatch {
                    Mismatch::AlreadyEnrolled => (
                        Code::AlreadyExists,
                        ErrorReason::AgentAlreadyEnrolled,
                        format!(
                            "agent {id} is already enrolled, and this request does not prove that it is the same machine; the token was not used up"
                        ),
                    ),
                    Mismatch::Deleted => (
                        Code::AlreadyExists,
                        ErrorReason::AgentDeleted,
                        format!(
                            "the id {id} belonged to an agent that was deleted; it needs a token that is bound to it, or somebody who revives it; the token was not used up"
                        ),
                    ),
                    Mismatch::LabelNotGranted(key) => (
                        Code::PermissionDenied,
                        ErrorReason::AgentPreregistered,
                        format!(
                            "agent {id} is pre-registered with the label {key}, which the token does not grant; it needs a token that does, or one that is bound to it; the token was not used up"
                        ),
                    ),
                    Mismatch::OutOfScope => (
                        Code::PermissionDenied,
                        ErrorReason::OutOfScope,
                        format!(
                            "the token is of somebody whose scope agent {id} is not in, or would leave with its labels; the token was not used up"
                        ),
                    ),
                };
                Problem::new(code, reason, text).with_metadata("agent_id", id.to_string())
            }
            enroll::Error::NotStored => Problem::new(
                Code::Unavailable,
                ErrorReason::Unavailable,
                "the enrollment could not be stored now; try again, nothing was used up",
            ),
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

impl From<clones::Refusal> for Problem {
    fn from(refusal: clones::Refusal) -> Self {
        Problem::new(Code::AlreadyExists, ErrorReason::CloneDetected, refusal.message())
            .with_metadata("on_clone", refusal.on_clone.as_str())
            .with_metadata("remote", &refusal.live.remote)
            .with_metadata("machine_id", &refusal.live.machine)
            .with_metadata("boot_id", &refusal.live.boot)
            .with_metadata("host_name", &refusal.live.host)
    }
}

impl From<controllers::Error> for Problem {
    fn from(error: controllers::Error) -> Self {
        match error {
            controllers::Error::Invalid(fields) => Problem::invalid_fields(fields),
            controllers::Error::Stopping => shutting_down(),
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

/// Nobody gives, or gets, what it does not have.
fn escalation(permission: &str) -> Problem {
    Problem::new(
        Code::PermissionDenied,
        ErrorReason::Escalation,
        format!("this would give the permission {permission}, which the caller does not have for everything"),
    )
    .with_metadata("permission", permission)
}

/// The resource has changed since the caller saw it.
pub fn conflict(seen: i64, is: i64) -> Problem {
    Problem::new(
        Code::Aborted,
        ErrorReason::Conflict,
        format!("it has changed since: its revision is {is}, and the request was made for {seen}; read it again"),
    )
    .with_metadata("seen_revision", seen.to_string())
    .with_metadata("revision", is.to_string())
}

fn token_refused() -> Problem {
    Problem::new(
        Code::Unauthenticated,
        ErrorReason::TokenInvalid,
        "the token is unknown, wrong, expired or used up; make another with `musterctl token create`",
    )
}

/// To somebody who was let in, and has been revoked since.
pub fn caller_revoked() -> Problem {
    Problem::new(
        Code::Unauthenticated,
        ErrorReason::CertificateRevoked,
        "the trust in this certificate or key has ended",
    )
}

/// To somebody whose call is under way.
pub fn distrusted(why: Distrust) -> Problem {
    match why {
        Distrust::Ended => caller_revoked(),
        Distrust::OtherRights => Problem::new(
            Code::Unavailable,
            ErrorReason::RightsChanged,
            "what this caller may do has changed; call again",
        ),
    }
}

pub fn shutting_down() -> Problem {
    Problem::new(
        Code::Unavailable,
        ErrorReason::ShuttingDown,
        "the controller is shutting down; connect again",
    )
}
