//! Bootstrap tokens: `mst_<id>_<secret>`. The id is public and finds the token's row; the secret is 256 random bits, kept
//! as a hash only. How long and how often a token may be used is the controller's affair.

use std::fmt;

use aws_lc_rs::{constant_time, rand};
use zeroize::Zeroizing;

use crate::fingerprint;

const PREFIX: &str = "mst_";
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;
const LEN: usize = PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS;
/// Longer texts are refused unread.
pub const MAX_BYTES: usize = 1024;

/// There is no `Display`: the secret leaves only by [`Token::expose`].
#[derive(Clone)]
pub struct Token {
    text: Zeroizing<String>,
}

/// None of the texts repeats any part of what was given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("failed to draw random bits")]
    Random,
    #[error("the token is empty")]
    Empty,
    #[error("a token starts with \"mst_\"")]
    Prefix,
    #[error(
        "a token is \"mst_\", {ID_DIGITS} digits, \"_\" and {SECRET_DIGITS} digits (0-9, a-f); was it copied whole?"
    )]
    Malformed,
}

impl Token {
    pub fn generate() -> Result<Token, Error> {
        let mut id = [0; ID_DIGITS / 2];
        let mut secret = Zeroizing::new([0; SECRET_DIGITS / 2]);
        rand::fill(&mut id).map_err(|_| Error::Random)?;
        rand::fill(secret.as_mut()).map_err(|_| Error::Random)?;
        let mut text = Zeroizing::new(String::with_capacity(LEN));
        text.push_str(PREFIX);
        text.push_str(&fingerprint::hex(&id));
        text.push('_');
        text.push_str(&Zeroizing::new(fingerprint::hex(secret.as_ref())));
        Ok(Token { text })
    }

    /// White space around the token is not part of it: it mostly comes from a file.
    pub fn parse(text: &str) -> Result<Token, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::Malformed);
        }
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::Empty);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(Error::Prefix)?;
        let (id, secret) = rest.split_once('_').ok_or(Error::Malformed)?;
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if id.len() != ID_DIGITS || secret.len() != SECRET_DIGITS || !digits(id) || !digits(secret) {
            return Err(Error::Malformed);
        }
        Ok(Token {
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// The whole token with its secret, to be shown once or sent.
    pub fn expose(&self) -> Zeroizing<String> {
        self.text.clone()
    }

    pub fn id(&self) -> &str {
        &self.text[PREFIX.len()..PREFIX.len() + ID_DIGITS]
    }

    /// SHA-256 of the secret part as it is written. Plain, because the secret has 256 random bits.
    pub fn hash(&self) -> [u8; 32] {
        fingerprint::sha256(&self.text.as_bytes()[LEN - SECRET_DIGITS..])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret redacted)", self.id())
    }
}

/// Compares in constant time.
pub fn hash_eq(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests;
