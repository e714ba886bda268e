//! Manifests: configuration as people write it, in YAML or JSON, and as the command line shows them. Files are read and sent
//! elsewhere; here text becomes documents or errors with places, all of them at once.
//!
//! ```yaml
//! apiVersion: muster/v1
//! kind: Check
//! metadata: { name: disk-root, labels: { team: base } }
//! spec: {}   # the message of the kind, in the JSON dialect; durations also as "1h30m", enum values also by short name
//! ```
//!
//! What is shown reads back: output-only metadata and `status` are passed over, and of a list its `items` are read.

mod envelope;
mod rules;
mod schema;
#[cfg(test)]
mod tests;
mod walk;

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

use crate::{
    json,
    v1::{self, manifest::Spec},
};

pub use schema::schema;

pub const API_VERSION: &str = "muster/v1";

pub const CHECK: &str = "Check";
pub const ROLE: &str = "Role";
pub const GRANT: &str = "Grant";
pub const TOKEN_TEMPLATE: &str = "TokenTemplate";

pub const KINDS: [&str; 4] = [CHECK, ROLE, GRANT, TOKEN_TEMPLATE];

/// How many errors are told of one text; who has more has another problem.
pub const MAX_ERRORS: usize = 50;

/// One document, and where each part of it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub source: String,
    pub line: usize,
    pub document: v1::Manifest,
    /// Places by path, as errors of the controller name them: `check.selector`, `metadata.name`.
    pub fields: BTreeMap<String, Place>,
}

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// One thing that is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The name of the file, as it was given.
    pub source: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// What most likely was meant.
    pub suggestion: Option<String>,
}

impl std::error::Error for Error {}

/// `policies/disk.yaml:7:3: unknown field `selctor`; did you mean `selector`?`
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.source, self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(meant) => write!(f, "; did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

/// Reads all documents of a text. They are complete as they are written, without defaults, and pass the rules of
/// their kind; the errors are in the order of the text.
pub fn parse(source: &str, text: &str) -> Result<Vec<Manifest>, Vec<Error>> {
    envelope::manifests(source, text)
}

impl Manifest {
    /// Where a field was written, or what it would stand in, or else the manifest itself.
    pub fn place(&self, field: &str) -> Place {
        place(&self.fields, field).unwrap_or(Place {
            line: self.line,
            column: 1,
        })
    }
}

fn place(fields: &BTreeMap<String, Place>, field: &str) -> Option<Place> {
    let mut field = field;
    loop {
        if let Some(place) = fields.get(field) {
            return Some(*place);
        }
        field = &field[..field.rfind(['.', '['])?];
    }
}

/// A document as people write it, with what the controller has added.
pub fn render(document: &v1::Manifest) -> Value {
    let mut metadata = match document.metadata.as_ref().map(json::to_json) {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    metadata.entry("name").or_insert_with(|| json!(""));
    let spec = match &document.spec {
        Some(Spec::Check(check)) => json::to_json(check),
        Some(Spec::Role(role)) => json::to_json(role),
        Some(Spec::Grant(grant)) => json::to_json(grant),
        Some(Spec::TokenTemplate(template)) => json::to_json(template),
        None => json!({}),
    };
    json!({"apiVersion": API_VERSION, "kind": kind(document), "metadata": metadata, "spec": spec})
}

/// A policy as a manifest, with how far it has come.
pub fn render_policy(policy: &v1::Policy) -> Value {
    let mut manifest = render(&of_policy(policy));
    if let Some(v1::PolicyCounts {
        assigned,
        applied,
        refused,
    }) = policy.counts
    {
        manifest["status"] = json!({"assigned": assigned, "applied": applied, "refused": refused});
    }
    manifest
}

pub fn of_policy(policy: &v1::Policy) -> v1::Manifest {
    v1::Manifest {
        kind: policy.kind.clone(),
        metadata: policy.metadata.clone(),
        spec: policy
            .spec
            .clone()
            .map(|v1::policy::Spec::Check(check)| Spec::Check(check)),
    }
}

/// None: it is no policy.
pub fn to_policy(document: v1::Manifest) -> Option<v1::Policy> {
    match document.spec {
        Some(Spec::Check(check)) => Some(v1::Policy {
            kind: CHECK.to_owned(),
            metadata: document.metadata,
            spec: Some(v1::policy::Spec::Check(check)),
            counts: None,
        }),
        _ => None,
    }
}

/// The name of the kind of a document, which what it holds decides.
pub fn kind(document: &v1::Manifest) -> &str {
    match document.spec {
        Some(Spec::Check(_)) => CHECK,
        Some(Spec::Role(_)) => ROLE,
        Some(Spec::Grant(_)) => GRANT,
        Some(Spec::TokenTemplate(_)) => TOKEN_TEMPLATE,
        None => &document.kind,
    }
}
