//! Runs the checks of the policy set: when (`schedule`, driven by `scheduler`), and how: a plugin through `exec` and
//! `nagios`, or a `native` check. Knows neither the controller nor where policies come from.

pub mod nagios;
mod native;
pub mod perfdata;
pub mod schedule;
pub mod scheduler;

use std::time::Duration;

use muster_proto::check::{expand, timings};
use muster_proto::v1::{CheckResult, CheckState, RunEnd};

use crate::exec;
use crate::policy::ActiveCheck;

/// Runs a check now. `default_timeout` is for a check that has none of its own. Dropping the future ends the run.
pub async fn run_once(check: &ActiveCheck, default_timeout: Duration) -> CheckResult {
    let limit = if check.check.timeout.is_some() {
        timings(&check.check).timeout
    } else {
        default_timeout
    };
    let run = expand(&check.check);
    let result = if run.command.is_empty() {
        native::run(&run, limit).await.unwrap_or_else(nothing_to_run)
    } else {
        nagios::result(&exec::run(&run.command, limit).await, limit)
    };
    CheckResult {
        check: check.name.clone(),
        version: check.version,
        ..result
    }
}

fn nothing_to_run() -> CheckResult {
    not_started("the check has no kind of run that this agent knows; update the agent, or correct `run`")
}

/// A run that never was.
fn not_started(why: &str) -> CheckResult {
    let mut result = CheckResult {
        output: why.to_owned(),
        ..CheckResult::default()
    };
    result.set_state(CheckState::Unknown);
    result.set_end(RunEnd::NotStarted);
    result
}

/// "20s", "1m30s", "50ms".
fn span(duration: Duration) -> String {
    muster_proto::duration::format(duration)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_proto::v1;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn check(run: v1::Run) -> ActiveCheck {
        let parameters = BTreeMap::from([("word".to_owned(), "a b; c".to_owned())]);
        ActiveCheck {
            name: "probe".to_owned(),
            version: 7,
            check: v1::Check {
                parameters,
                run: Some(run),
                ..v1::Check::default()
            },
        }
    }

    #[tokio::test]
    async fn a_command_runs_with_its_parameters_put_in() {
        let command = ["/bin/echo", "OK: ${word}|n=1"].map(str::to_owned).to_vec();
        let result = run_once(
            &check(v1::Run {
                command,
                ..v1::Run::default()
            }),
            LONG,
        )
        .await;
        assert_eq!((result.check.as_str(), result.version), ("probe", 7));
        assert_eq!((result.state(), result.end()), (CheckState::Ok, RunEnd::Exited));
        assert_eq!(
            (result.output.as_str(), result.perfdata.as_str()),
            ("OK: a b; c", "n=1")
        );
    }

    #[tokio::test]
    async fn a_check_without_a_timeout_has_the_default_one() {
        let command = ["/bin/sleep", "600"].map(str::to_owned).to_vec();
        let result = run_once(
            &check(v1::Run {
                command,
                ..v1::Run::default()
            }),
            Duration::from_millis(50),
        )
        .await;
        assert_eq!((result.state(), result.end()), (CheckState::Unknown, RunEnd::TimedOut));
        assert_eq!(result.output, "timed out after 50ms and was killed");
    }

    #[tokio::test]
    async fn a_native_check_runs_without_a_process() {
        let disk = v1::DiskRun {
            path: "/".to_owned(),
            ..v1::DiskRun::default()
        };
        let result = run_once(
            &check(v1::Run {
                disk: Some(disk),
                ..v1::Run::default()
            }),
            LONG,
        )
        .await;
        assert_eq!((result.state(), result.end()), (CheckState::Ok, RunEnd::Exited));
        assert!(
            result.output.starts_with("DISK OK - free space: / "),
            "{}",
            result.output
        );
        assert_eq!(result.metrics[0].label, "/");
    }

    #[tokio::test]
    async fn a_check_with_nothing_to_run_is_unknown() {
        let result = run_once(&check(v1::Run::default()), LONG).await;
        assert_eq!(
            (result.state(), result.end()),
            (CheckState::Unknown, RunEnd::NotStarted)
        );
    }
}
