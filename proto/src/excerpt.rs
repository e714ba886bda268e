//! Texts from outside, made fit for a message: short, on one line, and without what a terminal would act on.

const MAX_CHARS: usize = 60;

/// The start of a text. Quotes and backslashes stay as they are, so that a person recognises it.
pub(crate) fn excerpt(text: &str) -> String {
    excerpt_of(text, MAX_CHARS)
}

/// The same with another limit.
pub(crate) fn excerpt_of(text: &str, max_chars: usize) -> String {
    let mut excerpt = String::new();
    for c in text.chars().take(max_chars) {
        if is_unprintable(c) {
            excerpt.extend(c.escape_default());
        } else {
            excerpt.push(c);
        }
    }
    if text.chars().nth(max_chars).is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// Control characters, and those that turn the direction of the text around them: in a table they would forge what
/// stands beside them.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_printable() {
        assert_eq!(excerpt("a 'b' \"c\" \\ ä"), "a 'b' \"c\" \\ ä");
        assert_eq!(excerpt("\u{1b}[2J\n\u{202e}"), "\\u{1b}[2J\\n\\u{202e}");
        assert_eq!(excerpt(&"x".repeat(61)), "x".repeat(60) + "…");
    }
}
