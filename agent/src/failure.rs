//! An error as a person sees it on the terminal or in the log: what was tried, why it failed, what to do. Errors of the
//! agent's rooms turn themselves into one; nothing is decided by its texts.

use std::fmt;

use muster_certs::file;
use muster_proto::error::{self, Problem};
use serde_json::{Value, json};

/// How a command of the agent ends; the numbers are those of `musterctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failure = 1,
    Usage = 2,
    /// No connection, or one that TLS does not trust.
    Unreachable = 3,
    Denied = 4,
    NotFound = 5,
    /// Time is over.
    Deadline = 6,
    Conflict = 8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// One line that says it all for the log.
    pub summary: String,
    pub what: String,
    pub why: String,
    /// Each line a step or a way out. Empty: there is nothing to advise.
    pub remedy: Vec<String>,
    /// What the controller called it, when it was the controller that refused.
    pub refusal: Option<Box<Refusal>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub reason: &'static str,
    pub request: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, summary: impl Into<String>) -> Self {
        Self {
            exit,
            summary: summary.into(),
            what: String::new(),
            why: String::new(),
            remedy: Vec::new(),
            refusal: None,
        }
    }

    #[must_use]
    pub fn refused(self, problem: &Problem) -> Self {
        Self {
            refusal: Some(Box::new(Refusal {
                code: error::code_name(problem.code),
                reason: error::reason_name(problem.reason),
                request: problem.request_id().map(str::to_owned),
            })),
            ..self
        }
    }

    #[must_use]
    pub fn what(self, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..self
        }
    }

    #[must_use]
    pub fn why(self, why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            ..self
        }
    }

    /// For a file or directory that others may read: to change its mode is all there is to do.
    pub fn too_open(error: &file::Error, what: &str) -> Option<Self> {
        let (path, mode, holds, wanted) = match error {
            file::Error::FileTooOpen { path, mode } => (path, mode, "it holds a secret", "600"),
            file::Error::DirectoryTooOpen { path, mode } => (path, mode, "it holds secrets", "700"),
            _ => return None,
        };
        let path = path.display();
        Some(
            Failure::new(Exit::Failure, format!("{path} is open to other users"))
                .what(what)
                .why(format!("{holds}, and its mode is {mode:04o} where 0{wanted} is needed"))
                .remedy(format!("chmod {wanted} {path}")),
        )
    }

    #[must_use]
    pub fn remedy(mut self, line: impl Into<String>) -> Self {
        self.remedy.push(line.into());
        self
    }
}

impl Failure {
    /// For scripts, in the form that errors of `musterctl` have.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "message": self.summary,
            "what": self.what,
            "why": self.why,
            "do": self.remedy,
            "exitCode": self.exit as u8,
        });
        if let Some(refusal) = &self.refusal {
            object["code"] = json!(refusal.code);
            object["reason"] = json!(refusal.reason);
            if let Some(request) = &refusal.request {
                object["requestId"] = json!(request);
            }
        }
        object
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        let remedy: Vec<&str> = self.remedy.iter().map(String::as_str).collect();
        for (word, lines) in [("what", &[&*self.what][..]), ("why", &[&*self.why]), ("do", &remedy)] {
            let lines = lines
                .iter()
                .flat_map(|text| text.lines())
                .filter(|line| !line.is_empty());
            for (number, line) in lines.enumerate() {
                write!(f, "\n  {:<4}  {line}", if number == 0 { word } else { "" })?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_do_in_aligned_lines() {
        let failure = Failure::new(
            Exit::Conflict,
            "enrollment refused by muster.example.com:8443: ALREADY_EXISTS",
        )
        .what("enroll as agent 7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21")
        .why("that id is already enrolled\nby another key")
        .remedy("one way")
        .remedy("another way");
        assert_eq!(
            failure.to_string(),
            "enrollment refused by muster.example.com:8443: ALREADY_EXISTS\n\
             \x20 what  enroll as agent 7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21\n\
             \x20 why   that id is already enrolled\n\
             \x20       by another key\n\
             \x20 do    one way\n\
             \x20       another way"
        );
    }

    #[test]
    fn for_scripts_a_failure_has_the_form_of_those_of_musterctl() {
        let problem = Problem::new(
            tonic::Code::Unauthenticated,
            muster_proto::v1::ErrorReason::TokenInvalid,
            "no",
        );
        let failure = Failure::new(Exit::Denied, "refused").what("enroll").why("it is wrong");
        let failure = failure.remedy("ask for another").refused(&problem);
        assert_eq!(
            failure.to_json().to_string(),
            r#"{"code":"UNAUTHENTICATED","do":["ask for another"],"exitCode":4,"message":"refused","reason":"TOKEN_INVALID","what":"enroll","why":"it is wrong"}"#
        );
        assert_eq!(Failure::new(Exit::Failure, "x").to_json().get("reason"), None);
    }

    #[test]
    fn parts_that_say_nothing_take_no_line() {
        assert_eq!(
            Failure::new(Exit::Failure, "it failed").why("because").to_string(),
            "it failed\n  why   because"
        );
    }

    #[test]
    fn of_a_file_that_others_may_read_it_is_said_to_change_the_mode_and_nothing_else() {
        let error = file::Error::FileTooOpen {
            path: "/x/identity.pem".into(),
            mode: 0o644,
        };
        let failure = Failure::too_open(&error, "load the agent's identity").unwrap();
        assert_eq!(failure.remedy, ["chmod 600 /x/identity.pem"]);
        assert!(failure.why.contains("0644 where 0600 is needed"), "{failure}");
        assert_eq!(Failure::too_open(&file::Error::NotText { path: "/x".into() }, ""), None);
    }
}
