//! `name{label="value",other!="value"}`: the part of PromQL's selectors that needs no history.

use std::collections::BTreeMap;

use crate::ingest::{is_label_name, is_metric_name};

const MAX_LENGTH: usize = 4_096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub name: String,
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Matcher {
    label: String,
    value: String,
    equal: bool,
}

/// Why a query cannot be answered, and where that was noticed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position}: {message}")]
pub struct Invalid {
    pub position: usize,
    pub message: String,
}

impl Query {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_LENGTH {
            return Err(Invalid {
                position: MAX_LENGTH,
                message: "the query is too long".into(),
            });
        }
        let mut cursor = Cursor { text, at: 0 };
        cursor.skip_space();
        let name = cursor
            .take(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            .to_owned();
        if !is_metric_name(&name) {
            return cursor.fail("a metric name is expected, such as node_load1");
        }
        let mut matchers = Vec::new();
        if cursor.eat("{") {
            while !cursor.eat("}") {
                matchers.push(cursor.matcher()?);
                if !cursor.eat(",") && !cursor.is_next("}") {
                    return cursor.fail("\",\" or \"}\" is expected");
                }
            }
        }
        cursor.skip_space();
        if cursor.at < text.len() {
            return cursor.fail("the query goes on, but only name{label=\"value\"} is supported");
        }
        Ok(Self { name, matchers })
    }

    /// A label that is absent is empty, as in Prometheus.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matchers
            .iter()
            .all(|matcher| (labels.get(&matcher.label).map_or("", String::as_str) == matcher.value) == matcher.equal)
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn is_next(&mut self, token: &str) -> bool {
        self.skip_space();
        self.rest().starts_with(token)
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.is_next(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn matcher(&mut self) -> Result<Matcher, Invalid> {
        self.skip_space();
        let label = self.take(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
        if !is_label_name(&label) {
            return self.fail("a label name is expected");
        }
        if self.is_next("=~") || self.is_next("!~") {
            return self.fail("regular expressions are not supported; use = or !=");
        }
        let equal = self.eat("=");
        if !equal && !self.eat("!=") {
            return self.fail("\"=\" or \"!=\" is expected");
        }
        Ok(Matcher {
            label,
            value: self.string()?,
            equal,
        })
    }

    fn string(&mut self) -> Result<String, Invalid> {
        self.skip_space();
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return self.fail("a value in quotes is expected"),
        };
        self.at += 1;
        let mut value = String::new();
        let mut escaped = false;
        for c in self.rest().chars() {
            self.at += c.len_utf8();
            match c {
                _ if escaped => {
                    value.push(if c == 'n' { '\n' } else { c });
                    escaped = false;
                }
                '\\' => escaped = true,
                c if c == quote => return Ok(value),
                c => value.push(c),
            }
        }
        self.fail("the value has no closing quote")
    }

    fn fail<T>(&self, message: &str) -> Result<T, Invalid> {
        Err(Invalid {
            position: self.at,
            message: message.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn names_and_labels_select() {
        let query = Query::parse(r#" node_cpu_seconds_total{ mode="idle", cpu!="0", gone="" } "#).expect("valid");
        assert_eq!(query.name, "node_cpu_seconds_total");
        assert!(query.matches(&labels(&[("mode", "idle"), ("cpu", "1")])));
        assert!(!query.matches(&labels(&[("mode", "idle"), ("cpu", "0")])));
        assert!(!query.matches(&labels(&[("mode", "user"), ("cpu", "1")])));
    }

    #[test]
    fn values_may_hold_quotes_and_commas() {
        let query = Query::parse(r#"m{path="C:\\x, \"y\"}"}"#).expect("valid");
        assert!(query.matches(&labels(&[("path", r#"C:\x, "y"}"#)])));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let cases = [
            ("", 0, "metric name"),
            ("9x", 2, "metric name"),
            ("m{", 2, "label name"),
            ("m{a", 3, "expected"),
            ("m{a=b}", 4, "quotes"),
            ("m{a=~\"b\"}", 3, "regular"),
            ("m{a=\"b\"", 7, "expected"),
            ("m{a=\"b", 6, "closing"),
            ("rate(m[5m])", 4, "goes on"),
        ];
        for (text, position, message) in cases {
            let error = Query::parse(text).expect_err(text);
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
        }
    }
}
