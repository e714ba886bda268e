//! Every reason of the controller, with its exit code and a way out.

use std::time::Duration;

use super::*;

fn status(code: Code, reason: ErrorReason) -> Status {
    error::Problem::new(code, reason, "the message").into()
}

fn seen(status: &Status) -> Problem {
    problem(
        "127.0.0.1:9443",
        &Asked::new("get agent db").listed_by("musterctl agent list"),
        status,
    )
}

#[test]
fn each_reason_has_its_exit_code() {
    use ErrorReason as R;
    for (code, reason, exit) in [
        (Code::Internal, R::Internal, Exit::Failure),
        (Code::Unavailable, R::Unavailable, Exit::Unreachable),
        (Code::InvalidArgument, R::InvalidField, Exit::Usage),
        (Code::InvalidArgument, R::InvalidSelector, Exit::Usage),
        (Code::NotFound, R::NotFound, Exit::NotFound),
        (Code::FailedPrecondition, R::AmbiguousName, Exit::Conflict),
        (Code::PermissionDenied, R::MethodNotAllowed, Exit::Denied),
        (Code::Unauthenticated, R::CertificateRequired, Exit::Denied),
        (Code::Unauthenticated, R::CertificateExpired, Exit::Denied),
        (Code::Unauthenticated, R::CertificateUnknown, Exit::Denied),
        (Code::AlreadyExists, R::AgentAlreadyEnrolled, Exit::Conflict),
        (Code::ResourceExhausted, R::RateLimited, Exit::Failure),
        (Code::OutOfRange, R::RevisionGone, Exit::Failure),
        (Code::Unavailable, R::ShuttingDown, Exit::Unreachable),
        (Code::PermissionDenied, R::PermissionMissing, Exit::Denied),
        (Code::PermissionDenied, R::Escalation, Exit::Denied),
        (Code::PermissionDenied, R::OutOfScope, Exit::Denied),
        (Code::Unauthenticated, R::ApiKeyInvalid, Exit::Denied),
        (Code::Aborted, R::Conflict, Exit::Conflict),
        (Code::FailedPrecondition, R::BuiltIn, Exit::Conflict),
        (Code::FailedPrecondition, R::InUse, Exit::Conflict),
        (Code::Unavailable, R::RightsChanged, Exit::Unreachable),
    ] {
        let problem = seen(&status(code, reason));
        assert_eq!(problem.exit, exit, "{reason:?}");
        assert_eq!(problem.reason.as_deref(), Some(error::reason_name(reason)));
    }
}

#[test]
fn a_status_without_a_reason_is_known_by_its_code() {
    for (code, exit) in [
        (Code::Unavailable, Exit::Unreachable),
        (Code::DeadlineExceeded, Exit::DeadlinePassed),
        (Code::PermissionDenied, Exit::Denied),
        (Code::NotFound, Exit::NotFound),
        (Code::Aborted, Exit::Conflict),
        (Code::InvalidArgument, Exit::Usage),
        (Code::Unimplemented, Exit::Failure),
        (Code::Unknown, Exit::Failure),
    ] {
        let problem = seen(&Status::new(code, ""));
        assert_eq!((problem.exit, problem.reason.as_deref()), (exit, None), "{code:?}");
    }
}

#[test]
fn whatever_goes_wrong_has_what_why_and_do() {
    for code in 1..=16 {
        for reason in -1..=45 {
            let reason = ErrorReason::try_from(reason).unwrap_or_default();
            let problem = seen(&status(Code::from(code), reason));
            assert!(
                !problem.what.is_empty() && !problem.why.is_empty() && !problem.steps.is_empty(),
                "{problem:?}"
            );
        }
        let problem = seen(&Status::new(Code::from(code), ""));
        assert!(!problem.why.is_empty() && !problem.steps.is_empty(), "{problem:?}");
    }
}

#[test]
fn the_headline_names_controller_code_reason_and_request() {
    let status = error::Problem::new(Code::Internal, ErrorReason::Internal, "it broke").with_request_id("01JD5R8Q");
    let problem = seen(&status.into());
    assert_eq!(problem.headline, "127.0.0.1:9443 says INTERNAL (request 01JD5R8Q)");
    assert!(problem.steps[0].contains("grep 01JD5R8Q"));
    let problem = seen(&self::status(Code::Unauthenticated, ErrorReason::CertificateExpired));
    assert_eq!(
        problem.headline,
        "127.0.0.1:9443 says UNAUTHENTICATED CERTIFICATE_EXPIRED"
    );
}

#[test]
fn a_permission_that_is_missing_is_named_with_whom_to_ask() {
    let status = error::Problem::new(
        Code::PermissionDenied,
        ErrorReason::PermissionMissing,
        "alice has no role for it",
    )
    .with_metadata("permission", "ca.write");
    let steps = seen(&status.into()).steps.join("\n");
    assert!(
        steps.contains("musterctl whoami") && steps.contains("a role that has ca.write"),
        "{steps}"
    );
    let conflict =
        error::Problem::new(Code::Aborted, ErrorReason::Conflict, "it has changed").with_metadata("revision", "43");
    assert!(seen(&conflict.into()).steps[1].ends_with("--revision 43"));
}

#[test]
fn an_ambiguous_name_lists_the_commands_that_are_not() {
    let status = Status::from(
        error::Problem::new(
            Code::FailedPrecondition,
            ErrorReason::AmbiguousName,
            "two agents are called db",
        )
        .with_metadata("ids", "id-1,id-2"),
    );
    let problem = problem(
        "c:1",
        &Asked::new("get agent db").by_command("musterctl agent get"),
        &status,
    );
    assert_eq!(
        problem.steps[1..],
        ["  musterctl agent get id-1", "  musterctl agent get id-2"]
    );
}

#[test]
fn a_selector_is_shown_with_a_caret_at_the_mistake() {
    let status = |position: &str| {
        Status::from(
            error::Problem::new(Code::InvalidArgument, ErrorReason::InvalidSelector, "expected a value")
                .with_metadata("position", position),
        )
    };
    let asked = Asked::new("list agents").with_selector("größe=,b");
    let shown = problem("c:1", &asked, &status("8"));
    assert_eq!(shown.details, ["    größe=,b\n          ^"]);
    for nowhere in ["3", "99", "-1", "x"] {
        assert!(problem("c:1", &asked, &status(nowhere)).details.is_empty(), "{nowhere}");
    }
}

#[test]
fn an_expression_is_pointed_at_like_a_selector() {
    let problem = error::Problem::invalid_fields(vec![error::FieldViolation::new("query", "expected a matcher")])
        .with_metadata("position", "3");
    let asked = Asked::new("query").with_text("query", "up{").with_selector("env=prod");
    assert_eq!(
        self::problem("c:1", &asked, &problem.into()).details,
        ["    up{\n       ^"]
    );
}

#[test]
fn wrong_fields_are_all_told() {
    let one = error::Problem::invalid_fields(vec![error::FieldViolation::new("ttl", "too long")]);
    let two = one.clone().with_field("uses", "too many");
    assert_eq!(seen(&one.into()).why, "ttl: too long");
    let problem = seen(&two.into());
    assert_eq!(problem.why, "ttl: too long\nuses: too many");
    assert_eq!(problem.fields.len(), 2);
}

#[test]
fn a_limit_says_when_to_come_back() {
    let status = error::Problem::new(Code::ResourceExhausted, ErrorReason::RateLimited, "slow down")
        .with_retry_after(Duration::from_secs(7));
    assert_eq!(seen(&status.into()).steps, ["try again in 7s"]);
}
