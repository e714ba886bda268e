//! What was found, for people and as JSON. Looks at nothing.

use std::fmt;

use serde::Serialize;

use crate::disk::space::size_text;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, and will not for ever.
    Warning,
    /// Something does not work.
    Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// disk, ballast, retention, database, lease, certificates, clock, files, configuration.
    pub area: &'static str,
    pub what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    #[serde(rename = "do", skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// What takes room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Use {
    pub what: String,
    pub bytes: u64,
    /// On the file system of the data directory; what is part of something else in this list is not counted twice.
    #[serde(skip)]
    pub is_part: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub uses: Vec<Use>,
}

impl Finding {
    pub fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            area,
            what: what.into(),
            why: String::new(),
            advice: String::new(),
        }
    }

    pub fn warning(area: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            why: why.into(),
            ..Self::ok(area, what)
        }
    }

    pub fn problem(area: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            level: Level::Problem,
            why: why.into(),
            ..Self::ok(area, what)
        }
    }

    /// What to do.
    pub fn hint(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl Report {
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub fn uses(&mut self, what: impl Into<String>, bytes: u64) {
        self.uses.push(Use {
            what: what.into(),
            bytes,
            is_part: false,
        });
    }

    /// Part of what was named before.
    pub fn uses_within(&mut self, what: impl Into<String>, bytes: u64) {
        self.uses.push(Use {
            what: what.into(),
            bytes,
            is_part: true,
        });
    }

    pub fn has_problems(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Problem)
    }

    pub fn to_json(&self) -> String {
        // Texts and numbers only, which JSON always takes.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{text}\n")
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// The worst last, where a terminal shows it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in [Level::Ok, Level::Warning, Level::Problem] {
            for finding in self.findings.iter().filter(|finding| finding.level == level) {
                writeln!(f, "{:<8} {:<14} {}", level, finding.area, finding.what)?;
                for (word, text) in [("why", &finding.why), ("do", &finding.advice)] {
                    if !text.is_empty() {
                        writeln!(f, "         {word:<14} {text}")?;
                    }
                }
            }
            if level == Level::Ok && !self.uses.is_empty() {
                writeln!(f, "\nwhat takes room")?;
                for used in &self.uses {
                    let indent = if used.is_part { "    " } else { "  " };
                    writeln!(f, "{:>12} {indent}{}", size_text(used.bytes), used.what)?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add(Finding::problem("disk", "the disk is full", "1 B is free").hint("make room"));
        report.add(Finding::ok("clock", "the clock is not behind"));
        report.uses("control.db", 2048);
        report.uses_within("results", 1024);
        report
    }

    #[test]
    fn people_read_the_worst_last_with_why_and_what_to_do() {
        let expected = "\
ok       clock          the clock is not behind

what takes room
     2.0 KiB   control.db
     1.0 KiB     results

problem  disk           the disk is full
         why            1 B is free
         do             make room
";
        assert_eq!(report().to_string(), expected);
        assert!(report().has_problems());
    }

    #[test]
    fn scripts_read_the_same_as_json() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "findings": [
                    { "level": "problem", "area": "disk", "what": "the disk is full", "why": "1 B is free", "do": "make room" },
                    { "level": "ok", "area": "clock", "what": "the clock is not behind" },
                ],
                "uses": [{ "what": "control.db", "bytes": 2048 }, { "what": "results", "bytes": 1024 }],
            })
        );
    }
}
