//! What went wrong, for a person and for a script: a headline, then what was tried, why it failed and what to do, and an
//! exit code. How a status of the controller becomes one is `problem/status`, how a failed connection does
//! `problem/connection`.

pub mod connection;
pub mod status;

use std::{
    collections::BTreeMap,
    io,
    ops::{Deref, DerefMut},
};

use serde_json::{Value, json};

use crate::{
    exit::Exit,
    output::{document, style::Tone, text},
    terminal::Stream,
};

/// Boxed, as it stands in every result and is in hardly any.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
pub struct Parts {
    pub exit: Exit,
    /// A fragment in lower case that says it all in a line.
    pub headline: String,
    pub what: String,
    pub why: String,
    /// The way out, a line each; a line that starts with a blank goes on from the one before.
    pub steps: Vec<String>,
    /// Lines to show under the headline: places in manifests, a caret under a selector.
    pub details: Vec<String>,
    /// The status code and reason, when the controller said so.
    pub code: Option<&'static str>,
    pub reason: Option<String>,
    pub request: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub fields: Vec<(String, String)>,
}

impl Deref for Problem {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl Problem {
    pub fn new(exit: Exit, headline: impl Into<String>) -> Problem {
        Problem(Box::new(Parts {
            exit,
            headline: headline.into(),
            what: String::new(),
            why: String::new(),
            steps: Vec::new(),
            details: Vec::new(),
            code: None,
            reason: None,
            request: None,
            metadata: BTreeMap::new(),
            fields: Vec::new(),
        }))
    }

    pub fn what(mut self, what: impl Into<String>) -> Problem {
        self.what = what.into();
        self
    }

    pub fn why(mut self, why: impl Into<String>) -> Problem {
        self.why = why.into();
        self
    }

    pub fn step(mut self, step: impl Into<String>) -> Problem {
        self.steps.push(step.into());
        self
    }

    /// An exit code that is an answer, and no failure.
    pub fn silent_with(exit: Exit) -> Problem {
        Problem::new(exit, "")
    }

    /// Nothing to say: the reader of our output has gone, as `head` does.
    fn silent() -> Problem {
        Problem::new(Exit::Success, "")
    }

    /// Nothing more to say than what has been printed; the exit code remains.
    pub fn told(exit: Exit) -> Problem {
        Problem::new(exit, "")
    }

    /// Writes it to stderr: text, or one JSON object on one line for those who asked for JSON.
    pub fn print(&self, err: &mut Stream, as_json: bool) -> io::Result<()> {
        if self.headline.is_empty() {
            return Ok(());
        }
        if as_json {
            err.write(&document::json_line(&self.to_json()))
        } else {
            err.write(&self.to_text(err.colour))
        }
    }

    fn to_text(&self, colour: bool) -> String {
        let label = Tone::Bad.paint("musterctl:", colour);
        let mut page = format!("{label} {}\n", text::line(&self.headline));
        for detail in &self.details {
            for line in text::lines(detail) {
                page.push_str(&line);
                page.push('\n');
            }
        }
        let mut part = |name: &str, lines: &[&str]| {
            for (index, content) in lines.iter().enumerate() {
                let label = if index == 0 {
                    Tone::Strong.paint(&format!("{name:<4}"), colour)
                } else {
                    " ".repeat(4)
                };
                page.push_str(&format!("  {label}  {content}\n"));
            }
        };
        let why = text::lines(&self.why);
        let steps: Vec<String> = self.steps.iter().flat_map(|step| text::lines(step)).collect();
        if !self.what.is_empty() {
            part("what", &[&text::line(&self.what)]);
        }
        part("why", &why.iter().map(String::as_str).collect::<Vec<_>>());
        part("do", &steps.iter().map(String::as_str).collect::<Vec<_>>());
        page
    }

    fn to_json(&self) -> Value {
        let mut object = json!({
            "message": self.headline,
            "what": self.what,
            "why": self.why,
            "do": self.steps,
            "exitCode": self.exit.code(),
        });
        let mut add = |key: &str, value: Value| object[key] = value;
        if let Some(code) = self.code {
            add("code", json!(code));
        }
        if let Some(reason) = &self.reason {
            add("reason", json!(reason));
        }
        if let Some(request) = &self.request {
            add("requestId", json!(request));
        }
        if !self.metadata.is_empty() {
            add("metadata", json!(self.metadata));
        }
        if !self.details.is_empty() {
            add("details", json!(self.details));
        }
        if !self.fields.is_empty() {
            let fields: Vec<Value> = self
                .fields
                .iter()
                .map(|(field, description)| json!({ "field": field, "description": description }))
                .collect();
            add("fields", Value::Array(fields));
        }
        object
    }
}

/// Of writing to stdout. A reader that has gone is no failure.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Problem::silent();
        }
        Problem::new(Exit::Failure, "the output could not be written")
            .what("write to stdout")
            .why(error.to_string())
            .step("make sure that the file or device that the output goes to has room and may be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        let mut problem = Problem::new(Exit::NotFound, "127.0.0.1:9443 says NOT_FOUND")
            .what("get agent db-99")
            .why("no agent is called db-99\u{1b}[2J")
            .step("musterctl agent list")
            .step("musterctl agent get UUID");
        problem.code = Some("NOT_FOUND");
        problem.reason = Some("NOT_FOUND".to_owned());
        problem
    }

    #[test]
    fn the_text_has_what_why_and_do_in_a_column() {
        assert_eq!(
            problem().to_text(false),
            "musterctl: 127.0.0.1:9443 says NOT_FOUND\n  what  get agent db-99\n  why   no agent is called db-99[2J\n  \
             do    musterctl agent list\n        musterctl agent get UUID\n"
        );
    }

    #[test]
    fn the_object_has_the_exit_code_and_no_empty_parts() {
        let object = problem().to_json();
        assert_eq!(object["exitCode"], 5);
        assert_eq!(
            object["do"],
            json!(["musterctl agent list", "musterctl agent get UUID"])
        );
        assert_eq!(object["code"], "NOT_FOUND");
        assert!(object.get("fields").is_none() && object.get("requestId").is_none());
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Problem::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((gone.exit, gone.headline.as_str()), (Exit::Success, ""));
        assert_eq!(
            Problem::from(io::Error::from(io::ErrorKind::StorageFull)).exit,
            Exit::Failure
        );
    }
}
