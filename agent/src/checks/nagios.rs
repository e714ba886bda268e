//! From what a plugin did to a check result, by the Nagios plugin API. Starts nothing itself.
//!
//! The state comes from the exit code alone, never from the text. Nagios and Icinga differ for codes other than 0 to 3:
//! here it is as in Icinga, UNKNOWN, with a note in the text, and so is a plugin that was killed by a signal, timed out
//! or was not started: none of them found out anything about what was to be checked.
//!
//! The API has no limit on length; `exec` cut the output before it came here.

use std::time::Duration;

use muster_proto::v1::{CheckResult, CheckState, RunEnd};

use super::{perfdata, span};
use crate::exec::{End, Outcome};

/// The result of a run that was given `limit` of time, without the name and version of its check.
pub fn result(outcome: &Outcome, limit: Duration) -> CheckResult {
    let stdout = outcome.stdout.text();
    // What a plugin says on standard error is for people at a terminal, but better than nothing.
    let mut text = if stdout.trim().is_empty() {
        Text::plain(&outcome.stderr.text())
    } else {
        Text::parse(&stdout)
    };
    let mut result = CheckResult {
        duration_micros: i64::try_from(outcome.duration.as_micros()).unwrap_or(i64::MAX),
        truncated_bytes: outcome.stdout.cut_bytes() + outcome.stderr.cut_bytes(),
        ..CheckResult::default()
    };
    let (state, end) = match &outcome.end {
        End::Exited(code) => {
            result.exit_code = *code;
            if text.output.is_empty() {
                text.output = "(no output returned from plugin)".to_owned();
            }
            (state_of(*code, &mut text), RunEnd::Exited)
        }
        End::Signaled(signal) => {
            result.signal = *signal;
            text.headline(format!("killed by signal {signal}{}", signal_name(*signal)));
            (CheckState::Unknown, RunEnd::Signaled)
        }
        End::TimedOut => {
            text.headline(format!("timed out after {} and was killed", span(limit)));
            (CheckState::Unknown, RunEnd::TimedOut)
        }
        End::NotStarted(reason) => {
            text.headline(reason.to_string());
            (CheckState::Unknown, RunEnd::NotStarted)
        }
    };
    result.set_state(state);
    result.set_end(end);
    result.metrics = text
        .perfdata_lines
        .iter()
        .flat_map(|line| perfdata::parse(line))
        .take(perfdata::MAX_VALUES)
        .collect();
    result.perfdata = text.perfdata_lines.concat().trim().to_owned();
    result.output = text.output;
    result.long_output = text.long_output;
    result
}

fn state_of(code: i32, text: &mut Text) -> CheckState {
    match code {
        0 => CheckState::Ok,
        1 => CheckState::Warning,
        2 => CheckState::Critical,
        3 => CheckState::Unknown,
        _ => {
            text.output
                .push_str(&format!(" (return code of {code} is out of bounds)"));
            CheckState::Unknown
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// Output in its parts. The first line is the summary, up to a `|`; lines follow, up to one with a `|`; what comes after
/// either `|`, and all lines after the second, is performance data.
#[derive(Debug, Default, PartialEq, Eq)]
struct Text {
    output: String,
    long_output: String,
    /// As printed, a part per line. The API joins them without white space, which is right for the text and would glue
    /// the last value of one to the first of the next; so they are parsed apart.
    perfdata_lines: Vec<String>,
}

impl Text {
    fn parse(stdout: &str) -> Text {
        let mut text = Text::default();
        let mut lines = stdout.trim_start().lines();
        let mut long = Vec::new();
        if let Some(first) = lines.next() {
            text.output = text.take_line(first).trim().to_owned();
        }
        for line in lines.by_ref() {
            let parts = text.perfdata_lines.len();
            let before = text.take_line(line);
            let last = text.perfdata_lines.len() > parts;
            if !(last && before.trim().is_empty()) {
                long.push(before.trim_end().to_owned());
            }
            if last {
                break;
            }
        }
        text.perfdata_lines.extend(lines.map(str::to_owned));
        text.long_output = long.join("\n").trim_end().to_owned();
        text
    }

    fn plain(stderr: &str) -> Text {
        let (first, rest) = stderr.trim().split_once('\n').unwrap_or((stderr.trim(), ""));
        Text {
            output: first.trim_end().to_owned(),
            long_output: rest.to_owned(),
            perfdata_lines: Vec::new(),
        }
    }

    /// Keeps what is after the first `|` of a line and gives what is before it.
    fn take_line<'a>(&mut self, line: &'a str) -> &'a str {
        match line.split_once('|') {
            Some((before, perfdata)) => {
                self.perfdata_lines.push(perfdata.to_owned());
                before
            }
            None => line,
        }
    }

    /// Puts our own words first; what the plugin said before moves below them.
    fn headline(&mut self, words: String) {
        let said = std::mem::replace(&mut self.output, words);
        let below = [said.as_str(), self.long_output.as_str()];
        self.long_output = below
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("\n");
        // Values of a run that did not end are not measurements.
        self.perfdata_lines.clear();
    }
}

#[cfg(test)]
mod tests;
