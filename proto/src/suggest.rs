//! "Did you mean": the known word that is nearest to a mistyped one.

/// Longer words are no typing errors of ours.
const MAX_WORD: usize = 64;

/// The candidate that `word` most likely was meant to be: few letters added, left out, changed or swapped, case and
/// `-` and `_` not counted. None when nothing is near.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let word = folded(word);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_WORD)
        .filter_map(|candidate| {
            let folded = folded(candidate);
            let distance = distance(&word, &folded);
            let allowed = match word.len().max(folded.len()) {
                0..=2 => 0,
                3..=5 => 1,
                6..=8 => 2,
                _ => 3,
            };
            let starts = word.len() >= 3 && folded.starts_with(&word) || folded.len() >= 3 && word.starts_with(&folded);
            (distance <= allowed || starts).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

fn folded(word: &str) -> Vec<char> {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] = ["selector", "schedule", "timeout", "parameters", "run", "retryInterval"];

    #[test]
    fn a_mistyped_word_finds_the_one_that_was_meant() {
        for (word, meant) in [
            ("selctor", "selector"),
            ("sleector", "selector"),
            ("timout", "timeout"),
            ("time_out", "timeout"),
            ("retry_interval", "retryInterval"),
            ("retryinterval", "retryInterval"),
            ("rnu", "run"),
            ("Run", "run"),
        ] {
            assert_eq!(suggest(word, KEYS), Some(meant), "{word}");
        }
    }

    #[test]
    fn a_word_that_begins_like_a_known_one_finds_it() {
        assert_eq!(suggest("param", KEYS), Some("parameters"));
        assert_eq!(suggest("selectors", KEYS), Some("selector"));
    }

    #[test]
    fn what_is_near_nothing_finds_nothing() {
        for word in ["", "x", "owner", "contacts", &"selector".repeat(100)] {
            assert_eq!(suggest(word, KEYS), None, "{word}");
        }
    }
}
