//! `muster-agent check NAME`: one run of a check as the agent would do it, printed as a plugin prints.

use std::process::ExitCode;

use muster_proto::v1::{self, CheckState};

use super::{Check, ConfigFile, output};
use crate::{
    checks,
    failure::{Exit, Failure},
    identity::Identity,
    policy::Policies,
    state_dir::StateDir,
};

pub(super) fn check(file: &ConfigFile, args: Check) -> Result<ExitCode, Failure> {
    let config = file.load(args.state_dir.as_deref())?;
    let state = StateDir::at(&config.agent.state_dir);
    let what = format!("run the check {}", args.name);
    let identity = Identity::load(&state)
        .map_err(|error| error.failure().what(what.clone()))?
        .ok_or_else(|| {
            Failure::new(Exit::NotFound, "this machine has no checks")
                .what(what.clone())
                .why(format!(
                    "it is not enrolled: {} is not there",
                    state.identity().display()
                ))
                .remedy("give the state directory of the agent with --config FILE or --state-dir DIR, or enroll first")
        })?;
    let policies = Policies::load(state.policies(), identity.trust().clone(), config.allow);
    let active = policies.active().borrow().get(&args.name).cloned();
    let Some(active) = active else {
        return Err(missing(&args.name, &policies.status().borrow()).what(what));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, "failed to start").why(error.to_string()))?;
    let result = runtime.block_on(checks::run_once(&active, config.checks.default_timeout));
    output::write(&text(&result))?;
    Ok(ExitCode::from(match result.state() {
        CheckState::Ok => 0,
        CheckState::Warning => 1,
        CheckState::Critical => 2,
        CheckState::Unknown | CheckState::Pending | CheckState::Unspecified => 3,
    }))
}

fn missing(name: &str, status: &v1::PolicyStatus) -> Failure {
    match status.policies.iter().find(|report| report.name == name) {
        Some(report) => Failure::new(Exit::Denied, "the check is not applied on this machine")
            .why(&report.reason)
            .remedy("`muster-agent status` shows all policies that are not applied"),
        None => {
            let names: Vec<&str> = status.policies.iter().map(|report| &*report.name).collect();
            let known = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            Failure::new(Exit::NotFound, "this machine has no such check")
                .why(format!("its checks are: {known}"))
                .remedy("give one of these, or look at the policy's selector:  musterctl policy get NAME")
        }
    }
}

/// The plugin API's form: summary and performance data in the first line, then the rest.
fn text(result: &v1::CheckResult) -> String {
    let mut text = result.output.clone();
    if !result.perfdata.is_empty() {
        text.push_str(" | ");
        text.push_str(&result.perfdata);
    }
    if !result.long_output.is_empty() {
        text.push('\n');
        text.push_str(&result.long_output);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_printed_as_its_plugin_would_have() {
        let mut result = v1::CheckResult {
            output: "DISK OK".into(),
            ..Default::default()
        };
        assert_eq!(text(&result), "DISK OK");
        result.perfdata = "/=1MB;2;3".into();
        result.long_output = "more\nlines".into();
        assert_eq!(text(&result), "DISK OK | /=1MB;2;3\nmore\nlines");
    }

    #[test]
    fn a_check_that_was_refused_is_told_from_one_that_is_not_there() {
        let report = v1::PolicyReport {
            name: "a".into(),
            reason: "old".into(),
            ..Default::default()
        };
        let status = v1::PolicyStatus {
            policies: vec![report],
            ..Default::default()
        };
        assert_eq!(
            (missing("a", &status).exit, missing("a", &status).why),
            (Exit::Denied, "old".into())
        );
        assert_eq!(missing("b", &status).exit, Exit::NotFound);
    }
}
