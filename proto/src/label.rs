//! Label keys and values: what may be one. Where a label comes from and which one wins is the controller's business.

use std::collections::BTreeMap;

use crate::excerpt::{excerpt, is_unprintable};

/// How many labels one set may hold.
pub const MAX_COUNT: usize = 64;
/// What is longest for a value, in bytes.
pub const MAX_VALUE: usize = 253;
/// What is longest for the part of a key before `/`, in bytes.
pub const MAX_PREFIX: usize = 253;
/// What is longest for the name in a key, and for each dotted segment of its prefix, in bytes.
pub const MAX_NAME: usize = 63;
/// Keys under which selectors find facts; no label may have one.
pub const FACT_PREFIX: &str = "fact.";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid label key `{key}`: {problem}")]
    Key { key: String, problem: &'static str },
    #[error("invalid value of label `{key}`: {problem}")]
    Value { key: String, problem: &'static str },
    #[error("expected `key=value`, for example `env=prod`; found `{text}`")]
    Pair { text: String },
    #[error("{count} labels are more than the {MAX_COUNT} that are allowed")]
    Count { count: usize },
}

/// Whether a label may have this key: a name of 1 to 63 letters, digits, `-`, `_`, `.` with a letter or digit at both
/// ends, if wanted after a dotted prefix and `/`: `env`, `example.com/team`. Keys under `fact.` are taken by facts.
pub fn key_is_valid(key: &str) -> bool {
    check_key(key).is_ok()
}

/// Whether a label may have this value: at most 253 bytes without control characters and without blanks at its ends.
pub fn value_is_valid(value: &str) -> bool {
    value_problem(value).is_none()
}

/// As [`key_is_valid`], with the reason.
pub fn check_key(key: &str) -> Result<(), Error> {
    let problem = if key.starts_with(FACT_PREFIX) {
        Some("keys that start with `fact.` are those of facts; choose another")
    } else {
        key_problem(key)
    };
    problem.map_or(Ok(()), |problem| {
        Err(Error::Key {
            key: excerpt(key),
            problem,
        })
    })
}

/// Key and value of one label.
pub fn check(key: &str, value: &str) -> Result<(), Error> {
    check_key(key)?;
    value_problem(value).map_or(Ok(()), |problem| {
        Err(Error::Value {
            key: key.to_owned(),
            problem,
        })
    })
}

/// A whole set; the first problem in order of keys.
pub fn check_all(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > MAX_COUNT {
        return Err(Error::Count { count: labels.len() });
    }
    labels.iter().try_for_each(|(key, value)| check(key, value))
}

/// One `key=value` as it is typed on a command line. The value may hold further `=`.
pub fn parse_pair(text: &str) -> Result<(String, String), Error> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::Pair { text: excerpt(text) })?;
    check(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What is wrong with the shape of a key, facts included.
pub(crate) fn key_problem(key: &str) -> Option<&'static str> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if !prefix_is_valid(prefix) {
                return Some(
                    "what is before `/` must be like a domain: segments of 1 to 63 letters, digits and `-`, separated by dots",
                );
            }
            name
        }
        None => key,
    };
    if name.is_empty() {
        Some("it has no name")
    } else if name.len() > MAX_NAME {
        Some("its name is longer than 63 characters")
    } else if !name.bytes().all(is_key_byte) {
        Some("a name consists of letters, digits, `-`, `_` and `.`")
    } else if !has_alphanumeric_ends(name) {
        Some("a name starts and ends with a letter or digit")
    } else {
        None
    }
}

/// Bytes that a name in a key may consist of.
pub(crate) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

pub(crate) fn value_problem(value: &str) -> Option<&'static str> {
    if value.len() > MAX_VALUE {
        Some("it is longer than 253 bytes")
    } else if value.chars().any(is_unprintable) {
        Some("it holds a control character")
    } else if value.trim() != value {
        Some("it starts or ends with a blank")
    } else {
        None
    }
}

fn prefix_is_valid(prefix: &str) -> bool {
    prefix.len() <= MAX_PREFIX
        && prefix.split('.').all(|segment| {
            (1..=MAX_NAME).contains(&segment.len())
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && has_alphanumeric_ends(segment)
        })
}

fn has_alphanumeric_ends(text: &str) -> bool {
    let bytes = text.as_bytes();
    [bytes.first(), bytes.last()]
        .iter()
        .all(|byte| byte.is_some_and(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names_with_an_optional_domain() {
        for key in ["env", "A", "0", "a.b_c-d", "example.com/team", "x/y", &"k".repeat(63)] {
            assert!(key_is_valid(key), "{key:?}");
        }
        let long = "k".repeat(64);
        for key in [
            "",
            "-a",
            "a-",
            "a b",
            "a=b",
            "/a",
            "a/",
            "a//b",
            "a/b/c",
            "-x.com/a",
            "x..y/a",
            "ä",
            "a\n",
            "fact.os.id",
            &long,
        ] {
            assert!(!key_is_valid(key), "{key:?}");
        }
    }

    #[test]
    fn values_are_printable_text_of_bounded_length() {
        for value in ["", "prod", "a b", "10.0.0.0/8", "größe", "a,b=(c)\"", &"v".repeat(253)] {
            assert!(value_is_valid(value), "{value:?}");
        }
        for value in [" a", "a ", "a\nb", "a\0", "\u{202e}dorp", "\u{7f}", &"v".repeat(254)] {
            assert!(!value_is_valid(value), "{value:?}");
        }
    }

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(matches!(parse_pair("a"), Err(Error::Pair { .. })));
        assert!(matches!(parse_pair("=b"), Err(Error::Key { .. })));
        assert!(matches!(parse_pair("a=\u{1b}[31m"), Err(Error::Value { .. })));
    }

    #[test]
    fn a_set_of_too_many_labels_is_refused() {
        let labels: BTreeMap<_, _> = (0..65).map(|n| (format!("k{n}"), String::new())).collect();
        assert_eq!(check_all(&labels), Err(Error::Count { count: 65 }));
    }

    #[test]
    fn a_message_never_carries_the_control_characters_of_a_bad_key() {
        let error = check_key(&"\u{1b}[2J".repeat(100)).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 1_000, "{error}");
    }
}
