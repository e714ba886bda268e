//! `muster-agent config check`.

use std::process::ExitCode;

use serde::Serialize;

use super::{ConfigCheck, ConfigFile, config_failure};
use crate::{
    config::{self, Config, Finding},
    failure::{Exit, Failure},
};

#[derive(Serialize)]
struct Answer {
    file: String,
    findings: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    line: usize,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
}

/// Every finding counts here, also those that `run` only warns of.
pub(super) fn check(file: &ConfigFile, args: ConfigCheck) -> Result<ExitCode, Failure> {
    let findings = match Config::load(file.path()) {
        Ok(config) => config.warnings,
        Err(config::Error::Invalid(findings)) => findings,
        Err(error) => return Err(config_failure(&error)),
    };
    let told = |finding: &Finding| Told {
        line: finding.line,
        message: finding.message.clone(),
        suggestion: finding.suggestion.clone(),
    };
    let name = file.path().display().to_string();
    let answer = Answer {
        file: name.clone(),
        findings: findings.iter().map(told).collect(),
    };
    args.output.print(&answer, || match findings.as_slice() {
        [] => format!("{name}: good"),
        findings => findings.iter().map(|finding| format!("{finding}\n")).collect(),
    })?;
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Failure as u8)
    })
}
