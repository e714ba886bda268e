//! What a colour means. Words always say the same as the colour; it is never the only carrier.

use owo_colors::{OwoColorize as _, Style};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    /// Not known any longer: stale, unreachable, unknown.
    Doubtful,
    Faint,
    Strong,
}

impl Tone {
    /// `text` in this tone, or as it is when there is no colour.
    pub fn paint(self, text: &str, colour: bool) -> String {
        if !colour || self == Tone::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = match self {
            Tone::Plain => Style::new(),
            Tone::Good => Style::new().green(),
            Tone::Warning => Style::new().yellow(),
            Tone::Bad => Style::new().red(),
            Tone::Doubtful => Style::new().magenta(),
            Tone::Faint => Style::new().dimmed(),
            Tone::Strong => Style::new().bold(),
        };
        text.style(style).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_nothing_is_added() {
        assert_eq!(Tone::Bad.paint("CRITICAL", false), "CRITICAL");
    }

    #[test]
    fn with_colour_the_text_is_wrapped_and_closed() {
        assert_eq!(Tone::Bad.paint("CRITICAL", true), "\u{1b}[31mCRITICAL\u{1b}[0m");
        assert_eq!(Tone::Plain.paint("x", true), "x");
        assert_eq!(Tone::Bad.paint("", true), "");
    }
}
