//! Secrets that are shown to get in: bootstrap tokens, `mst_<id>_<secret>`, and API keys, `mk_<id>_<secret>`. The id is public
//! and finds the row; the secret is 256 bits, random or derived from a key, kept as a hash only. How long and how often one may be
//! used is the controller's affair.

mod seed;

use std::{fmt, marker::PhantomData};

use aws_lc_rs::{constant_time, rand};
use zeroize::Zeroizing;

pub use seed::Seed;

use crate::fingerprint;

const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;
/// Longer texts are refused unread.
pub const MAX_BYTES: usize = 1024;

/// What a secret is for. The prefix says so to people, and to programs that look for secrets where none should be.
pub trait Kind {
    const PREFIX: &'static str;
    /// In messages, with its article.
    const NAME: &'static str;
}

#[derive(Clone, Copy, Debug)]
pub enum Bootstrap {}

impl Kind for Bootstrap {
    const PREFIX: &'static str = "mst_";
    const NAME: &'static str = "a token";
}

#[derive(Clone, Copy, Debug)]
pub enum Api {}

impl Kind for Api {
    const PREFIX: &'static str = "mk_";
    const NAME: &'static str = "an API key";
}

/// Lets a machine enroll.
pub type Token = Secret<Bootstrap>;
/// Lets a script call the API.
pub type ApiKey = Secret<Api>;

/// There is no `Display`: the secret leaves only by [`Secret::expose`].
pub struct Secret<K> {
    text: Zeroizing<String>,
    kind: PhantomData<K>,
}

impl<K> Clone for Secret<K> {
    fn clone(&self) -> Self {
        Self {
            text: self.text.clone(),
            kind: PhantomData,
        }
    }
}

/// None of the texts repeats any part of what was given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("failed to draw random bits")]
    Random,
    #[error("failed to derive bits")]
    Derive,
    #[error("{0} is missing: the text is empty")]
    Empty(&'static str),
    #[error("{0} starts with {1:?}")]
    Prefix(&'static str, &'static str),
    #[error("{0} is {1:?}, {ID_DIGITS} digits, \"_\" and {SECRET_DIGITS} digits (0-9, a-f); was it copied whole?")]
    Malformed(&'static str, &'static str),
}

impl<K: Kind> Secret<K> {
    const LEN: usize = K::PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS;

    pub fn generate() -> Result<Self, Error> {
        let mut bits = Zeroizing::new([0; (ID_DIGITS + SECRET_DIGITS) / 2]);
        rand::fill(bits.as_mut()).map_err(|_| Error::Random)?;
        Ok(Self::of_bits(&bits))
    }

    /// The one of this seed: the same again whenever it is asked for.
    pub fn derive(seed: &Seed) -> Result<Self, Error> {
        let mut bits = Zeroizing::new([0; (ID_DIGITS + SECRET_DIGITS) / 2]);
        seed.fill(K::PREFIX, bits.as_mut())?;
        Ok(Self::of_bits(&bits))
    }

    fn of_bits(bits: &[u8; (ID_DIGITS + SECRET_DIGITS) / 2]) -> Self {
        let (id, secret) = bits.split_at(ID_DIGITS / 2);
        let mut text = Zeroizing::new(String::with_capacity(Self::LEN));
        text.push_str(K::PREFIX);
        text.push_str(&fingerprint::hex(id));
        text.push('_');
        text.push_str(&Zeroizing::new(fingerprint::hex(secret)));
        Self::of(text)
    }

    /// White space around the token is not part of it: it mostly comes from a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed(K::NAME, K::PREFIX);
        if text.len() > MAX_BYTES {
            return Err(malformed());
        }
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::Empty(K::NAME));
        }
        let rest = text.strip_prefix(K::PREFIX).ok_or(Error::Prefix(K::NAME, K::PREFIX))?;
        let (id, secret) = rest.split_once('_').ok_or_else(malformed)?;
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if id.len() != ID_DIGITS || secret.len() != SECRET_DIGITS || !digits(id) || !digits(secret) {
            return Err(malformed());
        }
        Ok(Self::of(Zeroizing::new(text.to_owned())))
    }

    fn of(text: Zeroizing<String>) -> Self {
        Self {
            text,
            kind: PhantomData,
        }
    }

    /// The whole token with its secret, to be shown once or sent.
    pub fn expose(&self) -> Zeroizing<String> {
        self.text.clone()
    }

    pub fn id(&self) -> &str {
        &self.text[K::PREFIX.len()..K::PREFIX.len() + ID_DIGITS]
    }

    /// SHA-256 of the secret part as it is written. Plain, because the secret has 256 random bits.
    pub fn hash(&self) -> [u8; 32] {
        fingerprint::sha256(&self.text.as_bytes()[Self::LEN - SECRET_DIGITS..])
    }
}

impl<K: Kind> fmt::Debug for Secret<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}, secret redacted", K::PREFIX, self.id())
    }
}

/// Compares in constant time.
pub fn hash_eq(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests;
