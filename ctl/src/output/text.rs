//! Text from elsewhere, made safe and short for a terminal. What an agent or a plugin says may hold escape sequences that
//! would move the cursor or recolour the screen of whoever looks at it.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// One line without control characters: each becomes a space, runs of white space one, and characters that reorder text go.
pub fn line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            _ if reorders(character) => {}
            _ if character.is_control() || character.is_whitespace() => {
                if !clean.ends_with(' ') {
                    clean.push(' ');
                }
            }
            _ => clean.push(character),
        }
    }
    clean.trim().to_owned()
}

/// The lines of `text`, each without control characters but with its indentation; a tab is four spaces.
pub fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let tabless = line.replace('\t', "    ");
            let clean: String = tabless
                .chars()
                .filter(|character| !character.is_control() && !reorders(*character))
                .collect();
            clean.trim_end().to_owned()
        })
        .collect()
}

/// Columns that `text` takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `limit` columns, with "…" where something was cut off.
pub fn shorten(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for character in text.chars() {
        let wide = character.width().unwrap_or(0);
        if used + wide > limit {
            break;
        }
        used += wide;
        short.push(character);
    }
    let mut short = short.trim_end().to_owned();
    short.push('…');
    short
}

/// Marks and overrides of direction: with them a text can be shown in another order than it is written.
pub(super) fn reorders(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_of_a_plugin_do_not_reach_the_terminal() {
        assert_eq!(
            line("OK\u{1b}[2J\u{1b}]0;owned\u{7}\r\ndone\u{9b}31m"),
            "OK [2J ]0;owned done 31m"
        );
        assert_eq!(line("a\u{202e}b"), "ab");
        assert_eq!(lines("a\u{1b}[31m\n\tb  \n"), ["a[31m", "    b"]);
    }

    #[test]
    fn a_text_that_fits_stays_and_a_longer_one_ends_in_an_ellipsis() {
        assert_eq!(shorten("disk full", 9), "disk full");
        assert_eq!(shorten("disk full", 8), "disk fu…");
        assert_eq!(shorten("disk full", 6), "disk…");
        assert_eq!(shorten("disk", 1), "…");
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_plugin_says_becomes_one_plain_line_that_fits(said in "\\PC*|[\\x00-\\x9f\u{200e}-\u{2069}日é]{0,80}", limit in 1usize..40) {
            let clean = line(&said);
            proptest::prop_assert!(!clean.contains(|c: char| c.is_control() || reorders(c)), "{clean:?}");
            let short = shorten(&clean, limit);
            proptest::prop_assert!(width(&short) <= limit, "{short:?}");
            proptest::prop_assert!(short == clean || short.ends_with('…'));
        }
    }

    #[test]
    fn wide_characters_count_as_two_columns() {
        assert_eq!(width("日本"), 4);
        assert_eq!(shorten("日本語", 5), "日本…");
        assert_eq!(shorten("日本語", 4), "日…");
    }
}
