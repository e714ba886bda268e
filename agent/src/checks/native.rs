//! Checks that need no plugin: one file for each kind of run, all with the words, states and performance data that a
//! plugin of the Nagios plugin API would give. Deadlines are theirs: a peer that does not answer in time is a critical
//! finding, as it is for the plugins.

mod disk;
mod http;
mod load;
mod memory;
mod process;
mod tcp;

use std::str::FromStr;
use std::time::{Duration, Instant};

use muster_proto::v1::{self, CheckResult, CheckState, Perfdata, RunEnd};
use tokio::time;

use super::{perfdata, span};

/// What a native check found.
#[derive(Debug, Clone, PartialEq)]
struct Finding {
    state: CheckState,
    /// One line, that begins with the kind and the state: "DISK OK - ...".
    summary: String,
    perfdata: Vec<Perfdata>,
}

impl Finding {
    /// `kind` is written in capitals, like the plugins do.
    fn new(kind: &str, state: CheckState, text: impl AsRef<str>) -> Finding {
        let word = match state {
            CheckState::Ok => "OK",
            CheckState::Warning => "WARNING",
            CheckState::Critical => "CRITICAL",
            CheckState::Unknown | CheckState::Pending | CheckState::Unspecified => "UNKNOWN",
        };
        Finding {
            state,
            summary: format!("{kind} {word} - {}", text.as_ref()),
            perfdata: Vec::new(),
        }
    }

    fn with(self, perfdata: Vec<Perfdata>) -> Finding {
        Finding { perfdata, ..self }
    }
}

/// A performance value without thresholds.
fn value(label: &str, value: f64, unit: &str) -> Perfdata {
    Perfdata {
        label: label.to_owned(),
        value: Some(value),
        unit: unit.to_owned(),
        ..Perfdata::default()
    }
}

/// Runs the native check of `run`, whose parameters have been put in; None if it holds none.
pub async fn run(run: &v1::Run, limit: Duration) -> Option<CheckResult> {
    let started = Instant::now();
    // The checks of peers end at `limit` by themselves; that for the others is what they are cut at.
    let found = time::timeout(limit.saturating_add(Duration::from_secs(1)), find(run, limit)).await;
    let mut result = match found {
        Ok(finding) => {
            let finding = finding?;
            let mut result = CheckResult {
                exit_code: exit_code(finding.state),
                output: finding.summary,
                perfdata: perfdata::render(&finding.perfdata),
                metrics: finding.perfdata,
                ..CheckResult::default()
            };
            result.set_state(finding.state);
            result.set_end(RunEnd::Exited);
            result
        }
        Err(_) => {
            let mut result = CheckResult {
                output: format!("timed out after {}", span(limit)),
                ..CheckResult::default()
            };
            result.set_state(CheckState::Unknown);
            result.set_end(RunEnd::TimedOut);
            result
        }
    };
    result.duration_micros = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
    Some(result)
}

async fn find(run: &v1::Run, limit: Duration) -> Option<Finding> {
    let finding = if let Some(disk) = &run.disk {
        disk::run(disk, limit).await
    } else if let Some(load) = &run.load {
        load::run(load)
    } else if let Some(memory) = &run.memory {
        memory::run(memory)
    } else if let Some(process) = &run.process {
        process::run(process).await
    } else if let Some(tcp) = &run.tcp {
        tcp::run(tcp, limit).await
    } else if let Some(http) = &run.http {
        http::run(http, limit).await
    } else {
        return None;
    };
    Some(finding)
}

fn exit_code(state: CheckState) -> i32 {
    match state {
        CheckState::Ok => 0,
        CheckState::Warning => 1,
        CheckState::Critical => 2,
        CheckState::Unknown | CheckState::Pending | CheckState::Unspecified => 3,
    }
}

/// A threshold as written, None when empty. The controller has refused what does not parse; this is for what came
/// another way.
fn threshold<T: FromStr<Err: std::fmt::Display>>(field: &str, text: &str) -> Result<Option<T>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("{field}: {error}"))
}

/// Critical beats warning.
fn worse(critical: bool, warning: bool) -> CheckState {
    match (critical, warning) {
        (true, _) => CheckState::Critical,
        (false, true) => CheckState::Warning,
        (false, false) => CheckState::Ok,
    }
}

/// A time limit of a check's answer, None when absent or nonsense.
fn duration(field: Option<&prost_types::Duration>) -> Option<Duration> {
    field.and_then(muster_proto::duration::from_proto)
}

/// An answer's time as performance data, with its thresholds.
fn time_value(elapsed: Duration, warning: Option<Duration>, critical: Option<Duration>, limit: Duration) -> Perfdata {
    let text = |limit: Option<Duration>| limit.map(|limit| seconds(limit).to_string()).unwrap_or_default();
    Perfdata {
        warning: text(warning),
        critical: text(critical),
        min: Some(0.0),
        max: Some(seconds(limit)),
        ..value("time", seconds(elapsed), "s")
    }
}

/// To the microsecond, which is as much as an answer's time means.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// The state by the time that an answer took.
fn by_time(elapsed: Duration, warning: Option<Duration>, critical: Option<Duration>) -> CheckState {
    let reached = |limit: Option<Duration>| limit.is_some_and(|limit| elapsed >= limit);
    worse(reached(critical), reached(warning))
}

/// An error of the system in words, without its number.
fn plain(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => text[..at].to_owned(),
        _ => text,
    }
}

/// "12.3 GiB".
fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024.0 belongs to the next unit.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `part` of `whole` in percent; all of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        100.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_the_unit_that_fits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (13_207_024_435, "12.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(binary_size(bytes), text);
        }
    }

    #[test]
    fn errors_of_the_system_are_words_alone() {
        assert_eq!(plain(std::io::Error::from_raw_os_error(111)), "Connection refused");
        assert_eq!(plain("no (os error 1) number"), "no (os error 1) number");
    }

    #[test]
    fn an_answers_time_is_a_problem_at_its_threshold() {
        let at = |millis| {
            by_time(
                Duration::from_millis(millis),
                Some(Duration::from_millis(5)),
                Some(Duration::from_millis(9)),
            )
        };
        assert_eq!(
            [at(4), at(5), at(9)],
            [CheckState::Ok, CheckState::Warning, CheckState::Critical]
        );
        assert_eq!(by_time(Duration::MAX, None, None), CheckState::Ok);
    }

    #[tokio::test]
    async fn what_a_native_check_prints_is_what_its_values_say() {
        let run = v1::Run {
            load: Some(v1::LoadRun::default()),
            ..v1::Run::default()
        };
        let result = super::run(&run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(result.state(), CheckState::Ok);
        assert_eq!((result.end(), result.exit_code), (RunEnd::Exited, 0));
        assert_eq!(perfdata::parse(&result.perfdata), result.metrics);
    }

    #[tokio::test]
    async fn a_run_of_another_kind_is_not_for_here() {
        let run = v1::Run {
            command: vec!["/bin/true".to_owned()],
            ..v1::Run::default()
        };
        assert_eq!(super::run(&run, Duration::from_secs(60)).await, None);
    }
}
