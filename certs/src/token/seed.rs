//! Where secrets come from that are derived and not drawn, so that they can be had again though nobody keeps them.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use super::Error;

/// 256 bits that nobody can tell without the key that they come from.
#[derive(Clone)]
pub struct Seed(Zeroizing<[u8; 32]>);

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Seed {
    /// HKDF with SHA-256 (RFC 5869). `label` is what the key is used for here, `parts` is what tells this seed from others.
    pub(crate) fn of(key: &[u8], label: &str, parts: &[&[u8]]) -> Result<Self, Error> {
        // With their lengths, so that it counts where one ends.
        let lengths: Vec<[u8; 8]> = parts.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
        let info: Vec<&[u8]> = lengths
            .iter()
            .zip(parts)
            .flat_map(|(length, part)| [length.as_slice(), *part])
            .collect();
        let key = Salt::new(HKDF_SHA256, label.as_bytes()).extract(key);
        let mut bits = Zeroizing::new([0; 32]);
        expand(&key, &info, bits.as_mut_slice())?;
        Ok(Self(bits))
    }

    /// The bits for one use.
    pub(super) fn fill(&self, label: &str, bits: &mut [u8]) -> Result<(), Error> {
        let key = Prk::new_less_safe(HKDF_SHA256, self.0.as_slice());
        expand(&key, &[label.as_bytes()], bits)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed, redacted")
    }
}

fn expand(key: &Prk, info: &[&[u8]], bits: &mut [u8]) -> Result<(), Error> {
    key.expand(info, Length(bits.len()))
        .and_then(|expanded| expanded.fill(bits))
        .map_err(|_| Error::Derive)
}
