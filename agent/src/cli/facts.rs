//! `muster-agent facts`.

use std::process::ExitCode;

use super::FactsArgs;
use crate::{facts, failure::Failure};

pub(super) fn facts(args: FactsArgs) -> Result<ExitCode, Failure> {
    let facts = facts::gather();
    args.output.print(&facts, || {
        let width = facts.keys().map(String::len).max().unwrap_or_default();
        facts
            .iter()
            .map(|(key, value)| format!("{key:<width$}  {value}\n"))
            .collect()
    })?;
    Ok(ExitCode::SUCCESS)
}
