//! What a call fails with: a code, a reason from one enum, and what belongs to it. The one bridge between these and
//! `tonic::Status`; which problem a situation is, is decided elsewhere.

mod http;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::selector;
pub use crate::v1::ErrorReason;

/// The domain of every `google.rpc.ErrorInfo` of ours.
pub const DOMAIN: &str = "muster";

const REQUEST_ID: &str = "request_id";

/// Statuses travel in HTTP trailers, which peers bound (hyper and most proxies at 16 KiB for all of them).
const MAX_MESSAGE: usize = 2 * 1024;
const MAX_DETAILS: usize = 4 * 1024;

/// A failed call, as the caller gets to know it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    pub code: Code,
    pub reason: ErrorReason,
    /// For people; nothing matches on it.
    pub message: String,
    pub metadata: BTreeMap<String, String>,
    /// Which fields of the request are wrong, with `INVALID_ARGUMENT`.
    pub fields: Vec<FieldViolation>,
    /// When the same call may be tried again.
    pub retry_after: Option<Duration>,
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldViolation {
    /// Path in the JSON dialect: `policies[3].check.schedule.retryInterval`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub description: String,
}

impl Problem {
    pub fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            fields: Vec::new(),
            retry_after: None,
        }
    }

    /// `INVALID_ARGUMENT INVALID_FIELD` for these fields.
    pub fn invalid_fields(fields: Vec<FieldViolation>) -> Self {
        let message = match fields.as_slice() {
            [] => "the request is invalid".to_owned(),
            [only] => only.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        Self {
            fields,
            ..Self::new(Code::InvalidArgument, ErrorReason::InvalidField, message)
        }
    }

    /// `INVALID_ARGUMENT INVALID_SELECTOR` for the field that holds the selector, with the position and the hint apart from
    /// the text, so that a caller can point at the place.
    pub fn invalid_selector(field: &str, error: &selector::Error) -> Self {
        let problem = Self::new(
            Code::InvalidArgument,
            ErrorReason::InvalidSelector,
            format!("{field}: {error}"),
        )
        .with_field(field, error.to_string())
        .with_metadata("position", error.position.to_string());
        match &error.hint {
            Some(hint) => problem.with_metadata("hint", hint),
            None => problem,
        }
    }

    /// The id under which the controller's log has the call.
    #[must_use]
    pub fn with_request_id(self, id: &str) -> Self {
        self.with_metadata(REQUEST_ID, id)
    }

    pub fn request_id(&self) -> Option<&str> {
        self.metadata.get(REQUEST_ID).map(String::as_str)
    }

    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.fields.push(FieldViolation::new(field, description));
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The problem that a status of ours carries; none for statuses of others, such as those that tonic or a proxy makes.
    /// A reason that this release does not know is `ERROR_REASON_UNSPECIFIED`.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let reason = ErrorReason::from_str_name(&format!("{PREFIX}{}", info.reason)).unwrap_or_default();
        let fields = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|violation| FieldViolation::new(&*violation.field, &*violation.description))
                .collect()
        });
        Some(Self {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            metadata: info.metadata.clone().into_iter().collect(),
            fields,
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        })
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let mut room = MAX_DETAILS;
        let mut metadata: HashMap<String, String> = problem
            .metadata
            .into_iter()
            .map(|(key, value)| (key, shortened(value, MAX_MESSAGE)))
            .filter(|(key, value)| take(&mut room, key.len() + value.len()))
            .collect();

        let total = problem.fields.len();
        let fields: Vec<_> = problem
            .fields
            .into_iter()
            .map(|violation| (violation.field, shortened(violation.description, 512)))
            .take_while(|(field, description)| take(&mut room, field.len() + description.len()))
            .collect();
        if fields.len() < total {
            metadata.insert("fields_omitted".to_owned(), (total - fields.len()).to_string());
        }

        let mut details = ErrorDetails::new();
        details.set_error_info(reason_name(problem.reason), DOMAIN, metadata);
        for (field, description) in fields {
            details.add_bad_request_violation(field, description);
        }
        if problem.retry_after.is_some() {
            details.set_retry_info(problem.retry_after);
        }
        Status::with_error_details(problem.code, shortened(problem.message, MAX_MESSAGE), details)
    }
}

impl FieldViolation {
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }

    /// The same of a larger message, in which this one is the field `prefix`.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        let field = if self.field.is_empty() {
            prefix.to_owned()
        } else {
            format!("{prefix}.{}", self.field)
        };
        Self { field, ..self }
    }
}

impl fmt::Display for FieldViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

const PREFIX: &str = "ERROR_REASON_";

/// The reason as it stands in `ErrorInfo` and in the text of the command line: `TOKEN_INVALID`.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

fn take(room: &mut usize, bytes: usize) -> bool {
    match room.checked_sub(bytes) {
        Some(left) => *room = left,
        None => return false,
    }
    true
}

fn shortened(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// The name of a code as the gRPC specification writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_the_way_through_a_status() {
        let problem = Problem::new(
            Code::ResourceExhausted,
            ErrorReason::RateLimited,
            "too many enrollments",
        )
        .with_metadata("source", "192.0.2.7")
        .with_field("name", "too long")
        .with_retry_after(Duration::from_secs(7));
        let status = Status::from(problem.clone());
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(Problem::from_status(&status), Some(problem));
    }

    #[test]
    fn a_bad_selector_is_told_with_the_place_of_the_mistake() {
        let error = selector::Selector::parse("env:prod").unwrap_err();
        let status = Status::from(Problem::invalid_selector("policies[3].check.selector", &error));
        let problem = Problem::from_status(&status).unwrap();
        assert_eq!(
            (problem.code, problem.reason),
            (Code::InvalidArgument, ErrorReason::InvalidSelector)
        );
        assert_eq!(problem.metadata["position"], "3");
        assert_eq!(problem.metadata["hint"], "did you mean `=`?");
        assert_eq!(problem.fields[0].field, "policies[3].check.selector");
    }

    #[test]
    fn the_reason_on_the_wire_has_no_prefix() {
        let status = Status::from(Problem::new(Code::NotFound, ErrorReason::NotFound, "no agent `x`"));
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NOT_FOUND", "muster"));
    }

    #[test]
    fn a_status_of_somebody_else_is_no_problem_of_ours() {
        assert_eq!(Problem::from_status(&Status::unavailable("connection refused")), None);
        let details = ErrorDetails::with_error_info("NOT_FOUND", "example.com", HashMap::new());
        assert_eq!(
            Problem::from_status(&Status::with_error_details(Code::NotFound, "", details)),
            None
        );
    }

    #[test]
    fn a_reason_of_a_later_release_is_kept_as_unspecified() {
        let details = ErrorDetails::with_error_info("FROM_THE_FUTURE", DOMAIN, HashMap::new());
        let status = Status::with_error_details(Code::Aborted, "later", details);
        let problem = Problem::from_status(&status).unwrap();
        assert_eq!(
            (problem.code, problem.reason),
            (Code::Aborted, ErrorReason::Unspecified)
        );
    }

    #[test]
    fn a_status_stays_small_enough_for_a_trailer() {
        let mut problem = Problem::new(Code::InvalidArgument, ErrorReason::InvalidField, "ä".repeat(100_000));
        for n in 0..1_000 {
            problem = problem.with_field(format!("policies[{n}].check.selector"), "x".repeat(1_000));
        }
        let status = Status::from(problem.with_metadata("position", "7"));
        assert!(
            status.details().len() + status.message().len() < 8 * 1024,
            "{}",
            status.details().len()
        );
        let back = Problem::from_status(&status).unwrap();
        let omitted: usize = back.metadata["fields_omitted"].parse().unwrap();
        assert_eq!(back.fields.len() + omitted, 1_000);
        assert_eq!(back.metadata["position"], "7");
    }

    #[test]
    fn a_violation_can_be_moved_into_a_larger_message() {
        let violation = FieldViolation::new("check.selector", "empty").within("policies[3]");
        assert_eq!(violation.to_string(), "policies[3].check.selector: empty");
    }
}
