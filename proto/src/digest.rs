//! Digests by which two peers find out whether they hold the same value.

use std::{collections::BTreeMap, fmt::Write as _};

use sha2::{Digest as _, Sha256};

/// `sha256:<hex>` of a map, over the length and the bytes of each key and value in order.
pub fn of_map(map: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for text in map.iter().flat_map(|(key, value)| [key, value]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    to_text(&hash.finalize())
}

/// `sha256:<hex>` of bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    to_text(&Sha256::digest(bytes))
}

pub(crate) fn to_text(hash: &[u8]) -> String {
    let mut text = String::with_capacity(7 + hash.len() * 2);
    text.push_str("sha256:");
    for byte in hash {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_digest_depends_on_where_keys_end() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_ne!(of_map(&map("ab", "c")), of_map(&map("a", "bc")));
        assert_eq!(of_map(&map("a", "b")), of_map(&map("a", "b")));
    }
}
