//! Ids and names, parsed once at the edge. Label keys and values are `label`'s.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// What is longest for a policy's name.
pub const MAX_NAME: usize = 63;

/// The name of an agent in every message, table and file: a UUID, shown in lower case with hyphens. It names only; what
/// proves an agent is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Uuid);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("expected a UUID like 7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21, 36 characters with hyphens; found {length}")]
    Length { length: usize },
    #[error(
        "expected a UUID like 7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21; found another character than a hexadecimal digit or a hyphen, or one in the wrong place"
    )]
    Characters,
    #[error("the UUID of all zeros or all ones names nothing")]
    Reserved,
}

impl AgentId {
    /// A new random id (UUID version 4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id of a machine that has none of its own, from the SHA-256 of its public key (UUID version 8): one that asks twice
    /// at once is one agent.
    pub fn of_key(digest: &[u8; 32]) -> Self {
        let (first, _) = digest.split_first_chunk().expect("32 bytes begin with 16");
        Self(uuid::Builder::from_custom_bytes(*first).into_uuid())
    }

    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for AgentId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Accepts the hyphenated form alone, in either case: `Uuid`'s own parser also takes braces, URNs and bare digits, which
/// in a file somebody wrote are more likely a mistake.
impl FromStr for AgentId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() != 36 {
            return Err(Error::Length {
                length: text.chars().count(),
            });
        }
        let uuid = Uuid::try_parse(text).map_err(|_| Error::Characters)?;
        if uuid.is_nil() || uuid.is_max() {
            return Err(Error::Reserved);
        }
        Ok(Self(uuid))
    }
}

/// [`name_is_valid`] as a regular expression.
pub const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$";

/// Whether a policy may be called that: 1 to 63 of `a-z 0-9 - _ .`, a letter or digit at both ends.
pub fn name_is_valid(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_id_is_shown_in_lower_case_whatever_case_it_was_given_in() {
        let id: AgentId = "7D0C51C2-9F0E-4B57-A3A1-5E1F0C7B8D21".parse().unwrap();
        assert_eq!(id.to_string(), "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn only_the_hyphenated_form_of_a_uuid_is_an_agent_id() {
        for text in [
            "",
            "db-01",
            "7d0c51c29f0e4b57a3a15e1f0c7b8d21",
            "{7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21}",
            "urn:uuid:7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21",
            "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d2g",
            "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21\n",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            assert!(text.parse::<AgentId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn policy_names_are_short_lower_case_words() {
        for name in ["a", "disk-root", "9", "a.b_c-d", &"x".repeat(63)] {
            assert!(name_is_valid(name), "{name:?}");
        }
        for name in ["", "-a", "a-", ".a", "a.", "Disk", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(!name_is_valid(name), "{name:?}");
        }
    }
}
