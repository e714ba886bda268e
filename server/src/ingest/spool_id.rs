//! The id of a spool, "<generation>-<random>": later generations come later.

use std::{fmt, str::FromStr};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolId {
    generation: u64,
    random: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a spool id is <generation>-<random>, at most 64 characters")]
pub struct Invalid;

impl SpoolId {
    pub fn generation(&self) -> i64 {
        i64::try_from(self.generation).unwrap_or(i64::MAX)
    }
}

impl FromStr for SpoolId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (generation, random) = text.split_once('-').ok_or(Invalid)?;
        let is_plain = !random.is_empty() && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // Digits only: "+1" and "01" would be other names for the same spool.
        let is_number = generation.bytes().all(|byte| byte.is_ascii_digit()) && !generation.starts_with('0');
        if text.len() > 64 || !is_plain || !is_number {
            return Err(Invalid);
        }
        let generation = generation.parse().map_err(|_| Invalid)?;
        Ok(Self {
            generation,
            random: random.to_owned(),
        })
    }
}

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_generation() {
        let id = |text: &str| text.parse::<SpoolId>().expect("valid");
        assert!(id("9-zzz") < id("10-aaa"));
        assert_eq!(id("10-aB3").to_string(), "10-aB3");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "1",
            "1-",
            "-a",
            "0-a",
            "01-a",
            "+1-a",
            "1-a b",
            "1-\u{e4}",
            "99999999999999999999-a",
        ] {
            assert_eq!(text.parse::<SpoolId>(), Err(Invalid), "{text:?}");
        }
    }
}
