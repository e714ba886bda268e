//! Mistakes in manifests, each with its place: `file:line:column`, the line itself and a caret. What is a mistake is
//! decided by `muster_proto` and the controller.

use super::files::Source;
use crate::output::text;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Which of the sources.
    pub source: usize,
    /// From 1; 0: the text as a whole.
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// "did you mean" this.
    pub suggestion: Option<String>,
}

/// As compilers show it:
///
/// ```text
/// policies/disk.yaml:7:15: unknown field `intervall` in schedule
///    7 |   schedule: { intervall: 60s }
///      |               ^ did you mean `interval`?
/// ```
pub fn render(finding: &Finding, sources: &[Source]) -> String {
    let source = &sources[finding.source];
    let mut place = source.name.clone();
    for number in [finding.line, finding.column] {
        if finding.line > 0 && number > 0 {
            place.push_str(&format!(":{number}"));
        }
    }
    let mut page = format!("{place}: {}", text::line(&finding.message));
    let hint = finding
        .suggestion
        .as_ref()
        .map(|meant| format!("did you mean `{}`?", text::line(meant)));
    let line = finding
        .line
        .checked_sub(1)
        .and_then(|index| source.text.lines().nth(index));
    let Some(line) = line.filter(|line| line.chars().count() <= LONGEST_LINE) else {
        if let Some(hint) = hint {
            page.push_str(&format!(" ({hint})"));
        }
        return page;
    };
    let number = format!("{:>5}", finding.line);
    // Tabs and control characters would put the caret in the wrong place.
    let shown = |part: &str| {
        part.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
    };
    page.push_str(&format!("\n{number} | {}", shown(line).trim_end()));
    if finding.column > 0 {
        let before: String = line.chars().take(finding.column - 1).collect();
        let blanks = " ".repeat(text::width(&shown(&before)));
        let hint = hint.map(|hint| format!(" {hint}")).unwrap_or_default();
        page.push_str(&format!("\n      | {blanks}^{hint}"));
    } else if let Some(hint) = hint {
        page.push_str(&format!("\n      | {hint}"));
    }
    page
}

/// A longer line is not shown; its number is.
const LONGEST_LINE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Vec<Source> {
        vec![Source {
            name: "policies/disk.yaml".to_owned(),
            text: text.to_owned(),
        }]
    }

    fn finding(line: usize, column: usize) -> Finding {
        Finding {
            source: 0,
            line,
            column,
            message: "unknown field `intervall` in schedule".to_owned(),
            suggestion: Some("interval".to_owned()),
        }
    }

    #[test]
    fn a_finding_shows_the_line_a_caret_and_what_was_meant() {
        let sources = sources("kind: Check\nspec:\n  schedule: { intervall: 60s }\n");
        assert_eq!(
            render(&finding(3, 15), &sources),
            "policies/disk.yaml:3:15: unknown field `intervall` in schedule\n    3 |   schedule: { intervall: 60s }\n\
             \u{20}     |               ^ did you mean `interval`?"
        );
    }

    #[test]
    fn a_caret_stands_right_after_wide_characters() {
        let sources = sources("日本: {a: 1}");
        let page = render(&finding(1, 6), &sources);
        assert!(page.lines().nth(2).unwrap().starts_with("      |        ^"), "{page}");
    }

    #[test]
    fn a_place_outside_the_text_or_none_at_all_is_no_reason_to_fail() {
        let sources = sources("a: 1");
        assert_eq!(
            render(&finding(9, 1), &sources),
            "policies/disk.yaml:9:1: unknown field `intervall` in schedule (did you mean `interval`?)"
        );
        assert!(render(&finding(0, 0), &sources).starts_with("policies/disk.yaml: unknown field"));
        assert!(render(&finding(1, 0), &sources).contains("policies/disk.yaml:1: unknown"));
        assert!(render(&finding(1, 400), &sources).contains("1:400"));
    }

    proptest::proptest! {
        #[test]
        fn no_place_in_any_text_is_a_reason_to_fail(text in "[\\PC\n\t\r]{0,60}", line in 0usize..9, column in 0usize..80) {
            let page = render(&finding(line, column), &sources(&text));
            proptest::prop_assert!(page.starts_with("policies/disk.yaml") && page.contains("did you mean `interval`?"));
            proptest::prop_assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{page:?}");
        }
    }

    #[test]
    fn a_very_long_line_is_not_shown() {
        let sources = sources(&"x".repeat(201));
        assert_eq!(render(&finding(1, 1), &sources).lines().count(), 1);
    }
}
