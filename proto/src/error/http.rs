//! The same problem over plain HTTP, as RFC 9457 wants it: the code, the reason and the fields that gRPC has.

use serde_json::{Value, json};
use tonic::Code;

use super::{FieldViolation, Problem, code_name, reason_name};

impl Problem {
    /// As Google's API guide maps codes, but for what is not there at all: 404.
    pub fn http_status(&self) -> u16 {
        match self.code {
            Code::Ok => 200,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound | Code::Unimplemented => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::ResourceExhausted => 429,
            Code::Cancelled => 499,
            Code::Unavailable => 503,
            Code::DeadlineExceeded => 504,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }

    /// `application/problem+json`.
    pub fn to_json(&self) -> Value {
        self.to_json_with(self.http_status())
    }

    /// The same with a status that says more than the code.
    pub fn to_json_with(&self, status: u16) -> Value {
        let mut object = json!({
            "type": "about:blank",
            "title": title(status),
            "status": status,
            "detail": self.message,
            "code": code_name(self.code),
            "reason": reason_name(self.reason),
            "metadata": self.metadata,
        });
        if !self.fields.is_empty() {
            let field =
                |violation: &FieldViolation| json!({ "field": violation.field, "description": violation.description });
            object["fieldViolations"] = self.fields.iter().map(field).collect();
        }
        if let Some(after) = self.retry_after {
            object["retryAfterSeconds"] = json!(after.as_secs_f64());
        }
        object
    }
}

fn title(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        499 => "Client Closed Request",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorReason;

    #[test]
    fn a_problem_is_told_as_rfc_9457_wants_it() {
        let problem = Problem::new(Code::NotFound, ErrorReason::NotFound, "there is no agent x").with_request_id("id1");
        assert_eq!(
            problem.to_json(),
            json!({
                "type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no agent x",
                "code": "NOT_FOUND", "reason": "NOT_FOUND", "metadata": {"request_id": "id1"},
            })
        );
        let other = problem.to_json_with(405);
        assert_eq!(
            (&other["status"], &other["title"]),
            (&json!(405), &json!("Method Not Allowed"))
        );
    }

    #[test]
    fn wrong_fields_and_the_time_to_come_back_are_told_as_well() {
        let fields = vec![FieldViolation::new("ttl", "is too long")];
        let problem = Problem::invalid_fields(fields).with_retry_after(Duration::from_millis(1_500));
        let object = problem.to_json();
        assert_eq!(
            object["fieldViolations"],
            json!([{"field": "ttl", "description": "is too long"}])
        );
        assert_eq!(object["retryAfterSeconds"], json!(1.5));
    }
}
