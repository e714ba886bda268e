//! YAML text as a tree that knows its lines: what manifests and config files are read through, so that every complaint
//! about them has a place. Types are those of YAML 1.2's core schema (`no` is text). What the keys mean is known elsewhere.
//!
//! Input is bounded: 1 MiB, 64 levels, 100,000 values. There are no aliases, so nothing can grow while it is read; a key
//! that comes twice in a map is an error.

mod build;
mod scalar;
#[cfg(test)]
mod tests;

use crate::excerpt::excerpt;
pub use crate::suggest::suggest;

pub const MAX_BYTES: usize = 1024 * 1024;
pub const MAX_DEPTH: usize = 64;
pub const MAX_NODES: usize = 100_000;

/// A value and where it starts; lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: usize,
    pub column: usize,
    pub value: Value,
    /// The text as it stands there, when it was read as null, a truth value or a number: `1.10`, `0x1F`.
    pub plain: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    Seq(Vec<Node>),
    /// In the order of the text; keys are unique.
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub text: String,
    pub line: usize,
    pub column: usize,
}

/// Why a text is no YAML that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct Error {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// The documents of a text; empty ones are left out.
pub fn parse(text: &str) -> Result<Vec<Node>, Error> {
    build::documents(text)
}

impl Node {
    /// The entry of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(known, _)| known.text == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// Without places. A number that JSON lacks becomes its text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => match serde_json::Number::from_f64(*value) {
                Some(number) => Json::Number(number),
                None => Json::String(self.plain.clone().unwrap_or_else(|| value.to_string())),
            },
            Value::String(value) => Json::String(value.clone()),
            Value::Seq(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| (key.text.clone(), node.to_json()))
                .collect(),
        }
    }

    /// What it is, for a message: `the text "x"`, `the number 20`, `a list`.
    pub fn describe(&self) -> String {
        let plain = || excerpt(self.plain.as_deref().unwrap_or_default());
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the truth value {value}"),
            Value::Int(_) | Value::Float(_) => format!("the number {}", plain()),
            Value::String(text) => format!("the text \"{}\"", excerpt(text)),
            Value::Seq(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}
