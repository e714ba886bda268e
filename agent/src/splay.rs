//! Spreads what a fleet does at the same pace over time: a point in an interval that is always the same for the same words
//! and as good as random between different ones. Not for secrets.

use std::time::Duration;

/// A point in `0..within`, to the millisecond, that depends on `words` alone, on every machine and in every version.
pub fn point(words: &[&str], within: Duration) -> Duration {
    // 64 bits of hash as a fraction of the interval.
    let millis = (within.as_millis() * u128::from(hash(words))) >> 64;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// FNV-1a, then the finalizer of SplitMix64: by itself FNV leaves the upper bits of short words much alike.
fn hash(words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // A zero after each word, so that "ab", "c" is not "a", "bc".
    for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_point_of_the_same_words_never_changes() {
        // A new version must not make a whole fleet jump.
        assert_eq!(hash(&["agent", "disk-root"]), 0xb54d_05bf_0950_f2ea);
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }

    #[test]
    fn points_of_many_words_are_spread_evenly() {
        let mut counts = [0; 6];
        for n in 0..6000 {
            let point = point(&[&format!("agent-{n}"), "load"], MINUTE);
            assert!(point < MINUTE);
            counts[usize::try_from(point.as_secs() / 10).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_point_of_no_time_is_its_start() {
        assert_eq!(point(&["a"], Duration::ZERO), Duration::ZERO);
    }
}
