//! Selectors: which agents, said by labels and facts. One grammar in policies, on the command line and in API calls.
//! Where labels and facts come from is the caller's business.
//!
//! | written | matches |
//! |---|---|
//! | `*` | every agent |
//! | `env=prod`, `env==prod` | the label is there and has that value |
//! | `role!=db` | the label has another value, **or is not there** |
//! | `zone in (eu,us)` | the label is there and has one of the values |
//! | `zone notin (eu,us)` | the label has none of the values, **or is not there** |
//! | `gpu` | the label is there |
//! | `!spot` | the label is not there |
//!
//! Terms are separated by commas and must all match. `!=` and `notin` match without the label as in Kubernetes; who wants
//! it to be there writes `role,role!=db`. A fact is a key under `fact.`: `fact.os.id=debian`. A value with other characters
//! than letters, digits and `. _ - / : @ + %` stands in double quotes, in which `\"` and `\\` are those characters.

mod parse;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, str::FromStr};

/// What is longest for a selector, in bytes.
pub const MAX_BYTES: usize = 4 * 1024;
/// How many terms it may have.
pub const MAX_TERMS: usize = 64;

/// A parsed selector. Two that are written differently and mean the same by the table above are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// None of them: every agent.
    terms: Vec<Term>,
}

/// Why a text is no selector. `Display` is one line; the fields are for who wants to draw a caret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {position}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct Error {
    /// The byte of the text it was noticed at; its length, when the text ends too early.
    pub position: usize,
    /// How many bytes from there are the trouble; at least 1, also at the end of the text.
    pub length: usize,
    /// "expected ... , found ...".
    pub message: String,
    /// What to write instead, as a sentence.
    pub hint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Term {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Condition {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    NotExists,
}

impl Selector {
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::selector(text)
    }

    /// `*`.
    pub fn all() -> Self {
        Self { terms: Vec::new() }
    }

    pub fn is_all(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it selects whatever has these labels. `label` is asked for each key, those of facts with their `fact.`.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| term.condition.holds(label(&term.key)))
    }

    /// What each term finds, in their order: as it is written, the key that it looks at, and whether it holds. `matches` is whether all do.
    pub fn explain<'a, 's>(
        &'s self,
        label: impl Fn(&str) -> Option<&'a str> + 's,
    ) -> impl Iterator<Item = (String, &'s str, bool)> + 's {
        self.terms.iter().map(move |term| {
            (
                term.to_string(),
                term.key.as_str(),
                term.condition.holds(label(&term.key)),
            )
        })
    }

    /// Whether it wants exactly this value for the key, whatever else it wants.
    pub fn pins(&self, key: &str, value: &str) -> bool {
        let is_only = |values: &BTreeSet<String>| values.len() == 1 && values.contains(value);
        self.terms.iter().any(|term| match &term.condition {
            Condition::In(values) => term.key == key && is_only(values),
            _ => false,
        })
    }

    /// The keys it asks for, facts with their `fact.`; a key may come more than once.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.key.as_str())
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl Condition {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists => value.is_some(),
            Self::NotExists => value.is_none(),
        }
    }
}

/// The shortest way to write it; parses back to the same selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("*");
        }
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            term.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let (single, several, values) = match &self.condition {
            Condition::Exists => return f.write_str(key),
            Condition::NotExists => return write!(f, "!{key}"),
            Condition::In(values) => ("=", "in", values),
            Condition::NotIn(values) => ("!=", "notin", values),
        };
        if let (Some(value), 1) = (values.first(), values.len()) {
            write!(f, "{key}{single}")?;
            return write_value(f, value);
        }
        write!(f, "{key} {several} (")?;
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write_value(f, value)?;
        }
        f.write_str(")")
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    if !value.is_empty() && value.bytes().all(parse::is_bare_value_byte) {
        return f.write_str(value);
    }
    f.write_str("\"")?;
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}
