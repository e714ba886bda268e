//! The digest that controller and agent compare to know whether they mean the same set of policies. The signature of each
//! policy is another matter.

use sha2::{Digest as _, Sha256};

use crate::digest;

/// First into every digest, so that no other hash of ours can be mistaken for one.
const CONTEXT: &[u8] = b"muster.v1/policy-set\0";

/// `sha256:<hex>` over kind, name, version and payload of each policy; the order they come in does not matter.
pub fn digest<'a>(policies: impl IntoIterator<Item = (&'a str, &'a str, i64, &'a [u8])>) -> String {
    let mut policies: Vec<_> = policies.into_iter().collect();
    policies.sort_unstable();
    let mut hash = Sha256::new();
    hash.update(CONTEXT);
    for (kind, name, version, payload) in policies {
        // Each part with its length before it: no two different sets give the same bytes.
        for part in [kind.as_bytes(), name.as_bytes(), &version.to_be_bytes(), payload] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    digest::to_text(&hash.finalize())
}

/// The type that is signed with the payload of a policy of this kind: `muster.v1/Check`.
pub fn dsse_type(kind: &str) -> String {
    format!("muster.v1/{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_the_order() {
        let a = ("Check", "a", 1, b"x".as_slice());
        let b = ("Check", "b", 1, b"y".as_slice());
        assert_eq!(digest([a, b]), digest([b, a]));
    }

    #[test]
    fn the_digest_depends_on_every_part() {
        let base = digest([("Check", "a", 1, b"x".as_slice())]);
        assert!(base.starts_with("sha256:") && base.len() == 71, "{base}");
        for other in [
            digest([]),
            digest([("Chec", "ka", 1, b"x".as_slice())]),
            digest([("Check", "b", 1, b"x".as_slice())]),
            digest([("Check", "a", 2, b"x".as_slice())]),
            digest([("Check", "a", 1, b"y".as_slice())]),
            digest([("Check", "a", 1, b"x".as_slice()), ("Check", "a", 1, b"x".as_slice())]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_digest_is_the_same_in_every_release() {
        // An agent of one release compares with a controller of another.
        assert_eq!(
            digest([("Check", "disk-root", 7, b"payload".as_slice())]),
            "sha256:763c3891047e12a618c13838891bd37bf6af8c364fcae535c28c70a7e82400f9"
        );
    }
}
